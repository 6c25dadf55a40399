//! [`most`]: what most of several servers say.

use std::time::Duration;

use futures_util::{StreamExt, stream::FuturesUnordered};
use redis::{RedisError, RedisResult};
use tokio::time::{Instant, timeout_at};

use super::missing;

/// How long the others have after the first that says who the master is.
const PATIENCE: Duration = Duration::from_millis(200);

/// To each of some questions what more than half of those asked say; failing that, what most say that answer with the
/// first or soon after.
///
/// All are asked at once, so that one that hangs holds nobody up, and one that was cut off from the others with an
/// old master is outvoted.
pub(super) async fn most<A: PartialEq>(
    mut asked: FuturesUnordered<impl Future<Output = RedisResult<Vec<RedisResult<A>>>>>,
    questions: usize,
) -> Vec<RedisResult<A>> {
    let majority = asked.len() / 2 + 1;
    let mut votes: Vec<Votes<A>> = (0..questions).map(|_| Votes::default()).collect();
    let mut deadline = None;
    while !votes.iter().all(|votes| votes.most() >= majority) {
        let next = match deadline {
            None => asked.next().await,
            Some(deadline) => timeout_at(deadline, asked.next()).await.unwrap_or(None),
        };
        match next {
            None => break,
            Some(Err(error)) => votes.iter_mut().for_each(|votes| votes.problem = Some(error.clone())),
            Some(Ok(answers)) => {
                if answers.iter().any(Result::is_ok) {
                    deadline.get_or_insert_with(|| Instant::now() + PATIENCE);
                }
                votes.iter_mut().zip(answers).for_each(|(votes, answer)| votes.enter(answer));
            }
        }
    }
    votes.into_iter().map(Votes::result).collect()
}

/// What was said to one question.
struct Votes<A> {
    said: Vec<(A, usize)>,
    problem: Option<RedisError>,
}

impl<A> Default for Votes<A> {
    fn default() -> Self {
        Self { said: Vec::new(), problem: None }
    }
}

impl<A: PartialEq> Votes<A> {
    fn enter(&mut self, answer: RedisResult<A>) {
        match answer {
            Ok(answer) => match self.said.iter_mut().find(|(said, _)| *said == answer) {
                Some((_, count)) => *count += 1,
                None => self.said.push((answer, 1)),
            },
            Err(error) => self.problem = Some(error),
        }
    }

    fn most(&self) -> usize {
        self.said.iter().map(|(_, count)| *count).max().unwrap_or(0)
    }

    fn result(self) -> RedisResult<A> {
        let most = self.said.into_iter().max_by_key(|(_, count)| *count);
        let problem = || self.problem.unwrap_or_else(|| missing("there is nobody to ask"));
        most.map(|(answer, _)| answer).ok_or_else(problem)
    }
}

#[cfg(test)]
mod tests {
    use std::future::{pending, ready};

    use futures_util::future::Either;

    use super::*;

    /// Each asked server's answer: a name, `!` for an error, nothing for one that hangs.
    async fn ask(answers: &[&'static str]) -> Option<&'static str> {
        let asked = answers.iter().map(|answer| match *answer {
            "" => Either::Left(pending()),
            "!" => Either::Right(ready(Err(missing("refused")))),
            answer => Either::Right(ready(Ok(vec![Ok(answer)]))),
        });
        most(asked.collect(), 1).await.remove(0).ok()
    }

    #[tokio::test]
    async fn each_key_has_a_majority_of_its_own() {
        let says = |first: &'static str, second: &'static str| {
            ready(Ok(vec![Ok(first), if second.is_empty() { Err(missing("no server")) } else { Ok(second) }]))
        };
        let asked = [says("a", "old"), says("a", "new"), says("b", "new")];
        let answers = most(asked.into_iter().collect(), 2).await;
        assert_eq!(answers.into_iter().map(Result::unwrap).collect::<Vec<_>>(), ["a", "new"]);
        let answers = most([says("a", ""), says("a", "")].into_iter().collect(), 2).await;
        assert_eq!(answers.iter().map(Result::is_ok).collect::<Vec<_>>(), [true, false]);
    }

    #[tokio::test]
    async fn the_master_is_whom_most_name() {
        assert_eq!(ask(&["old", "new", "new"]).await, Some("new"));
        assert_eq!(ask(&["new", "old", "new"]).await, Some("new"));
        assert_eq!(ask(&["!", "new", "!"]).await, Some("new"));
        assert_eq!(ask(&["!", "!", "!"]).await, None);
    }

    #[tokio::test]
    async fn servers_that_hang_hold_nobody_up() {
        let asked = Instant::now();
        assert_eq!(ask(&["", "new", "new"]).await, Some("new"));
        assert!(asked.elapsed() < PATIENCE, "most have answered");
        assert_eq!(ask(&["", "", "new"]).await, Some("new"));
        assert!(asked.elapsed() < PATIENCE * 5);
    }
}
