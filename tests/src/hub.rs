//! Helper functions for the hub of a test's own server.

use std::time::Duration;

use realtime_core::{Envelope, Hub, Message, Scope, SessionHandle};
use tokio::time::sleep;

use crate::within;

/// A session of a user, once there is one.
pub async fn session(hub: &Hub, user: i64) -> SessionHandle {
    within("the session", async {
        loop {
            if let Some(session) = hub.sessions(&user.into()).pop() {
                return session;
            }
            sleep(Duration::from_millis(1)).await;
        }
    })
    .await
}

/// Publishes a text to a user.
pub async fn publish(hub: &Hub, user: i64, text: &str) {
    let message = Message::text(text.to_owned());
    hub.publish(Envelope::to_users([user], Scope::Both, message).unwrap()).await.unwrap();
}
