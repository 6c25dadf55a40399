//! [`WebSockets`]: the methods of RuoYi's `WebSocketUtils` and `WebSocketSessionHolder`.

use std::ops::Deref;

use realtime_core::{Facade, FacadeError, Hub, Published, WebSocketMessageDto};

use crate::TRANSPORT;

/// Pushes through WebSockets.
///
/// It derefs to [`Facade`], which has the methods that both transports share: `send_message`, `send_message_all`,
/// `publish_all`, `exist_session`, `sessions_all`, `sessions`, `is_enabled`.
#[derive(Debug, Clone)]
pub struct WebSockets(Facade);

impl WebSockets {
    /// WebSockets of a hub.
    pub fn new(hub: Hub) -> Self {
        Self(Facade::new(Some(hub), TRANSPORT))
    }

    /// WebSockets of a disabled module: every method returns [`FacadeError::Disabled`].
    pub fn disabled() -> Self {
        Self(Facade::new(None, TRANSPORT))
    }

    /// Publishes a text to some users on every node, by RuoYi's DTO.
    ///
    /// # Errors
    /// [`FacadeError`] when the module is disabled, the list is empty, the text is too large or the bus is unavailable.
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
