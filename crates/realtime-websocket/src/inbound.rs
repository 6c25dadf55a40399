//! [`InboundHandler`]: what becomes of the texts that clients send.

use bytestring::ByteString;
use futures_core::future::BoxFuture;
use realtime_core::SessionHandle;

/// Handles the texts of clients, one at a time per connection and in order.
///
/// The next text of a connection is read when the future of the one before is done, so a slow handler slows only
/// its own client down. When the connection ends, a future that is not done is dropped.
///
/// Closures will do:
///
/// ```
/// # use realtime_websocket::{InboundHandler, SessionHandle};
/// # use bytestring::ByteString;
/// let shout = |_session: SessionHandle, text: ByteString| async move { Some(text.to_uppercase().into()) };
/// # fn check(_: impl InboundHandler) {}
/// # check(shout);
/// ```
pub trait InboundHandler: Send + Sync + 'static {
    /// A client sent a text. What the future returns goes back to this connection alone.
    fn on_text(&self, session: SessionHandle, text: ByteString) -> BoxFuture<'static, Option<ByteString>>;
}

impl<F, Fut> InboundHandler for F
where
    F: Fn(SessionHandle, ByteString) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Option<ByteString>> + Send + 'static,
{
    fn on_text(&self, session: SessionHandle, text: ByteString) -> BoxFuture<'static, Option<ByteString>> {
        Box::pin(self(session, text))
    }
}

/// Sends every text back to its own connection, as the seed does; `ping` is answered `pong`.
///
/// RuoYi's front end relies on it: its heartbeat is `{"type":"ping"}`, and it hangs up unless the same text comes
/// back within two seconds.
#[derive(Debug, Clone, Copy, Default)]
pub struct Echo;

impl Echo {
    /// The answer to a text.
    pub fn answer(text: ByteString) -> ByteString {
        if text.eq_ignore_ascii_case("ping") { ByteString::from_static("pong") } else { text }
    }
}

impl InboundHandler for Echo {
    fn on_text(&self, _: SessionHandle, text: ByteString) -> BoxFuture<'static, Option<ByteString>> {
        Box::pin(std::future::ready(Some(Self::answer(text))))
    }
}
