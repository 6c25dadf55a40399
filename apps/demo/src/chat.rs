//! [`Chat`]: what the demo makes of texts that clients send over a WebSocket.

use std::borrow::Cow;

use actix_web::web::Data;
use bytestring::ByteString;
use futures_util::future::BoxFuture;
use realtime_core::wire::replace_lone_surrogates;
use realtime_websocket::{Echo, Envelope, InboundHandler, Scope, SessionHandle, TRANSPORT, UserId};
use serde::{Deserialize, Serialize, de::IgnoredAny};

use crate::{caller::Caller, event::Event, state::State};

/// Publishes chat lines; every other text is echoed, as in RuoYi-Vue-Plus.
pub(crate) struct Chat(pub(crate) Data<State>);

/// A text that may be a line.
#[derive(Deserialize)]
struct Typed<'a> {
    #[serde(borrow, rename = "type")]
    kind: Cow<'a, str>,
}

/// A line to one user or to all; never to all because it names nobody.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Line {
    #[serde(rename = "type")]
    _kind: IgnoredAny,
    to: Option<UserId>,
    broadcast: Option<bool>,
    text: String,
}

impl Line {
    /// The line of a text, or what is wrong with it; `None` if the text is none.
    fn of(text: &str) -> Option<Result<Self, String>> {
        serde_json::from_str::<Typed<'_>>(text).ok().filter(|typed| typed.kind == "chat")?;
        let line = serde_json::from_str::<Self>(text).map_err(|error| error.to_string());
        Some(line.and_then(|line| match (&line.to, line.broadcast.unwrap_or_default()) {
            (Some(_), false) | (None, true) => Ok(line),
            (None, false) => Err("to: is missing; \"broadcast\": true is for everyone".to_owned()),
            (Some(_), true) => Err("only one of to and \"broadcast\": true can be the target".to_owned()),
        }))
    }
}

#[derive(Serialize)]
struct ChatData {
    from: Caller,
    /// `null`: everyone.
    to: Option<UserId>,
    text: String,
}

impl InboundHandler for Chat {
    fn on_text(&self, session: SessionHandle, text: ByteString) -> BoxFuture<'static, Option<ByteString>> {
        let state = self.0.clone();
        Box::pin(async move {
            let Line { to, text: line, .. } = match Line::of(&replace_lone_surrogates(&text)) {
                None => return Some(Echo::answer(text)),
                Some(Ok(line)) => line,
                Some(Err(problem)) => return Some(Event::new("error", problem).json().into()),
            };
            let from = Caller::of(&state, session.user().clone());
            if let Err(error) = from.check_is_of_demo(&state, "chat") {
                return Some(Event::new("error", error.to_string()).json().into());
            }
            let scope = Scope::Only(TRANSPORT);
            let users = to.clone().map(|to| [to, from.id.clone()]);
            let message = Event::new("chat", ChatData { from, to, text: line }).message();
            let envelope = match users {
                None => Envelope::broadcast(scope, message),
                Some(users) => Envelope::to_users(&users, scope, message).expect("two users are not none"),
            };
            let error = state.hub.publish(envelope).await.err()?;
            tracing::warn!(%error, "a chat line was not published");
            Some(Event::new("error", error.to_string()).json().into())
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_names_whom_it_is_for_and_other_texts_are_none() {
        let missing = "to: is missing";
        for (text, expected) in [
            (r#"{"type":"chat","to":2,"text":"hi"}"#, Some(Ok("2"))),
            (r#"{"type":"chat","to":"u-7","broadcast":null,"text":"hi"}"#, Some(Ok("u-7"))),
            (r#"{"type":"chat","to":9007199254740993,"text":"hi"}"#, Some(Ok("9007199254740993"))),
            (r#"{"type":"chat","broadcast":true,"to":null,"text":"hi"}"#, Some(Ok(""))),
            (r#"{"type":"chat","text":"hi"}"#, Some(Err(missing))),
            (r#"{"type":"chat","to":null,"text":"hi"}"#, Some(Err(missing))),
            (r#"{"type":"chat","to":null,"broadcast":false,"text":"hi"}"#, Some(Err(missing))),
            (r#"{"type":"chat","to":2,"broadcast":true,"text":"hi"}"#, Some(Err("only one of"))),
            (r#"{"type":"chat","to":"a b","text":"hi"}"#, Some(Err("user id"))),
            (r#"{"type":"chat","to":2}"#, Some(Err("missing field `text`"))),
            (r#"{"type":"chat","to":2,"text":"\ud83d"}"#, Some(Err(""))),
            (r#"{"type":"ping"}"#, None),
            ("hello", None),
        ] {
            let line = Line::of(text);
            let found = line.as_ref().map(|line| match line {
                Ok(line) => Ok(line.to.as_ref().map(ToString::to_string).unwrap_or_default()),
                Err(problem) => Err(problem),
            });
            match (found, expected) {
                (None, None) => {}
                (Some(Ok(to)), Some(Ok(expected))) => assert_eq!(to, expected, "{text}"),
                (Some(Err(problem)), Some(Err(expected))) => assert!(problem.contains(expected), "{problem}"),
                (found, expected) => panic!("{text}: {found:?} instead of {expected:?}"),
            }
        }
    }
}
