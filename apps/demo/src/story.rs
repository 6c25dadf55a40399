//! The AI scene: a canned answer in tokens, and the request that is answered by a stream of its own.

use std::{convert::Infallible, time::Duration};

use actix_web_lab::sse::{self, Sse};
use futures_util::{Stream, StreamExt, stream};
use serde::{Deserialize, Serialize};
use tokio::time::sleep;

use crate::{caller::Caller, event::Event, params::Params};

#[derive(Deserialize)]
pub(crate) struct Prompt {
    prompt: String,
}

#[derive(Serialize)]
struct Token<'a> {
    text: &'a str,
}

const ANSWER: &str = "This answer is canned, but the way it reaches you is real: every few letters are appended to a \
    text stream of the hub, which all of your sessions follow, on whatever node they are. Reload the page, open it in \
    a second tab, or lose the network for a while: the text goes on where it was. Put a model behind it and nothing \
    else has to change.";

/// Pause of the simulated model between tokens.
pub(crate) const PACE: Duration = Duration::from_millis(45);

/// Characters of the prompt that the answer repeats.
const QUOTED: usize = 120;

/// One client, one stream, no hub: the semantic SSE types of actix-web-lab fit this best.
pub(crate) async fn tell(
    _: Caller,
    query: Params<Prompt>,
) -> Sse<impl Stream<Item = Result<sse::Event, Infallible>>> {
    let tokens = stream::iter(tokens(&query.values.prompt)).then(|text| async move {
        sleep(PACE).await;
        sse::Data::new(Event::new("token", Token { text: &text }).json()).event("token")
    });
    let done = stream::once(async { sse::Data::new(Event::new("done", ()).json()).event("done") });
    Sse::from_stream(tokens.chain(done).map(|data| Ok(data.into())))
}

/// The answer to a prompt, in tokens.
pub(crate) fn tokens(prompt: &str) -> Vec<String> {
    let quoted: String = prompt.trim().chars().take(QUOTED).collect();
    let answer =
        if quoted.is_empty() { ANSWER.to_owned() } else { format!("You asked: “{quoted}”. {ANSWER}") };
    split(&answer)
}

/// Cuts a text into pieces of about four characters, as models do.
fn split(text: &str) -> Vec<String> {
    let letters: Vec<char> = text.chars().collect();
    letters.chunks(4).map(|piece| piece.iter().collect()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tokens_are_the_answer() {
        assert_eq!(split(ANSWER).concat(), ANSWER);
    }
}
