//! [`Chat`]: what the demo makes of texts that clients send over a WebSocket.

use actix_web::web::Data;
use bytestring::ByteString;
use futures_util::future::BoxFuture;
use realtime_core::wire::replace_lone_surrogates;
use realtime_websocket::{Echo, Envelope, InboundHandler, Scope, SessionHandle, TRANSPORT, UserId};
use serde::{Deserialize, Serialize};

use crate::{caller::Caller, event::Event, state::State};

/// Publishes chat lines; every other text is echoed, as in RuoYi-Vue-Plus.
pub(crate) struct Chat(pub(crate) Data<State>);

#[derive(Deserialize)]
#[serde(tag = "type", rename_all = "lowercase", deny_unknown_fields)]
enum Line {
    Chat {
        /// `null`: everyone.
        to: Option<UserId>,
        text: String,
    },
}

#[derive(Serialize)]
struct ChatData {
    from: Caller,
    to: Option<UserId>,
    text: String,
}

impl InboundHandler for Chat {
    fn on_text(&self, session: SessionHandle, text: ByteString) -> BoxFuture<'static, Option<ByteString>> {
        let state = self.0.clone();
        Box::pin(async move {
            let Ok(Line::Chat { to, text: line }) = serde_json::from_str(&replace_lone_surrogates(&text))
            else {
                return Some(Echo::answer(text));
            };
            let from = Caller::of(&state, session.user().clone());
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
