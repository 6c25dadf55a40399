//! [`majority`]: the answers that most of several servers agree on.

use std::time::Duration;

use futures_util::{StreamExt, stream::FuturesUnordered};
use redis::{RedisError, RedisResult};
use tokio::time::{Instant, timeout_at};

use crate::error::client_error;

/// Time that the other servers have after the first successful answer.
const GRACE: Duration = Duration::from_millis(200);

/// Returns, for each question, the answer of more than half of the servers; failing that, the most frequent one among
/// those that arrive with the first or within [`GRACE`] of it.
///
/// All servers are asked at once, so that one that hangs delays nothing, and one that was cut off from the others together
/// with an old master is outvoted.
pub(super) async fn majority<A: PartialEq>(
    mut asked: FuturesUnordered<impl Future<Output = RedisResult<Vec<RedisResult<A>>>>>,
    questions: usize,
) -> Vec<RedisResult<A>> {
    let enough = asked.len() / 2 + 1;
    let mut votes: Vec<Votes<A>> = (0..questions).map(|_| Votes::default()).collect();
    let mut deadline = None;
    while !votes.iter().all(|votes| votes.most() >= enough) {
        let next = match deadline {
            None => asked.next().await,
            Some(deadline) => timeout_at(deadline, asked.next()).await.unwrap_or(None),
        };
        match next {
            None => break,
            Some(Err(error)) => votes.iter_mut().for_each(|votes| votes.problem = Some(error.clone())),
            Some(Ok(answers)) => {
                if answers.iter().any(Result::is_ok) {
                    deadline.get_or_insert_with(|| Instant::now() + GRACE);
                }
                votes.iter_mut().zip(answers).for_each(|(votes, answer)| votes.enter(answer));
            }
        }
    }
    votes.into_iter().map(Votes::result).collect()
}

/// The answers to one question.
struct Votes<A> {
    counts: Vec<(A, usize)>,
    problem: Option<RedisError>,
}

impl<A> Default for Votes<A> {
    fn default() -> Self {
        Self { counts: Vec::new(), problem: None }
    }
}

impl<A: PartialEq> Votes<A> {
    fn enter(&mut self, answer: RedisResult<A>) {
        match answer {
            Ok(answer) => match self.counts.iter_mut().find(|(known, _)| *known == answer) {
                Some((_, count)) => *count += 1,
                None => self.counts.push((answer, 1)),
            },
            Err(error) => self.problem = Some(error),
        }
    }

    fn most(&self) -> usize {
        self.counts.iter().map(|(_, count)| *count).max().unwrap_or(0)
    }

    fn result(self) -> RedisResult<A> {
        let most = self.counts.into_iter().max_by_key(|(_, count)| *count);
        let problem = || self.problem.unwrap_or_else(|| client_error("there is no server to ask"));
        most.map(|(answer, _)| answer).ok_or_else(problem)
    }
}

#[cfg(test)]
mod tests {
    use std::future::{pending, ready};

    use futures_util::future::Either;

    use super::*;

    /// Each server's answer: a name, `!` for an error, empty for one that hangs.
    async fn ask(answers: &[&'static str]) -> Option<&'static str> {
        let asked = answers.iter().map(|answer| match *answer {
            "" => Either::Left(pending()),
            "!" => Either::Right(ready(Err(client_error("refused")))),
            answer => Either::Right(ready(Ok(vec![Ok(answer)]))),
        });
        majority(asked.collect(), 1).await.remove(0).ok()
    }

    #[tokio::test]
    async fn each_key_has_a_majority_of_its_own() {
        let answer = |first: &'static str, second: &'static str| {
            ready(Ok(vec![
                Ok(first),
                if second.is_empty() { Err(client_error("no server")) } else { Ok(second) },
            ]))
        };
        let asked = [answer("a", "old"), answer("a", "new"), answer("b", "new")];
        let answers = majority(asked.into_iter().collect(), 2).await;
        assert_eq!(answers.into_iter().map(Result::unwrap).collect::<Vec<_>>(), ["a", "new"]);
        let answers = majority([answer("a", ""), answer("a", "")].into_iter().collect(), 2).await;
        assert_eq!(answers.iter().map(Result::is_ok).collect::<Vec<_>>(), [true, false]);
    }

    #[tokio::test]
    async fn the_master_is_the_one_that_most_servers_name() {
        assert_eq!(ask(&["old", "new", "new"]).await, Some("new"));
        assert_eq!(ask(&["new", "old", "new"]).await, Some("new"));
        assert_eq!(ask(&["!", "new", "!"]).await, Some("new"));
        assert_eq!(ask(&["!", "!", "!"]).await, None);
    }

    #[tokio::test]
    async fn servers_that_hang_delay_nothing() {
        let asked = Instant::now();
        assert_eq!(ask(&["", "new", "new"]).await, Some("new"));
        assert!(asked.elapsed() < GRACE, "most have answered");
        assert_eq!(ask(&["", "", "new"]).await, Some("new"));
        assert!(asked.elapsed() < GRACE * 5);
    }
}
