//! [`WebSockets`]: the verbs of the seed's `WebSocketUtils` and `WebSocketSessionHolder`.

use std::ops::Deref;

use realtime_core::{Facade, FacadeError, Hub, Published, WebSocketMessageDto};

use crate::TRANSPORT;

/// Pushes through WebSockets.
///
/// It derefs to [`Facade`], which has the verbs that both transports share: `send_message`, `send_message_all`,
/// `publish_all`, `exist_session`, `sessions_all`, `sessions`, `is_enabled`.
#[derive(Debug, Clone)]
pub struct WebSockets(Facade);

impl WebSockets {
    /// The sockets of a hub.
    pub fn new(hub: Hub) -> Self {
        Self(Facade::new(Some(hub), TRANSPORT))
    }

    /// The sockets of a module that is switched off: every verb answers [`FacadeError::Disabled`].
    pub fn disabled() -> Self {
        Self(Facade::new(None, TRANSPORT))
    }

    /// Publishes the seed's DTO: a text to some users on every node.
    ///
    /// # Errors
    /// [`FacadeError`] when the module is off, the list empty, the text too large or the bus away.
    pub async fn publish_message(&self, dto: WebSocketMessageDto) -> Result<Published, FacadeError> {
        self.publish_to(&dto.session_keys, dto.message).await
    }
}

impl Deref for WebSockets {
    type Target = Facade;

    fn deref(&self) -> &Facade {
        &self.0
    }
}
