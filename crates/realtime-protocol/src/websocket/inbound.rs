//! [`InboundHandler`]: handles the messages that clients send.

use bytes::Bytes;
use bytestring::ByteString;
use futures_core::future::BoxFuture;
use realtime_core::SessionHandle;

/// Handles the messages of clients, one at a time per connection and in order.
///
/// The next message of a connection is read after the previous future has completed, so a slow handler slows down only its
/// own client. When the connection ends, an incomplete future is dropped. A handler that panics ends its connection with the
/// code 1011 (internal error), with which clients come back.
///
/// It is implemented for closures that handle texts:
///
/// ```
/// # use realtime_core::SessionHandle;
/// # use realtime_protocol::websocket::InboundHandler;
/// # use bytestring::ByteString;
/// let shout = |_session: SessionHandle, text: ByteString| async move { Some(text.to_uppercase().into()) };
/// # fn check(_: impl InboundHandler) {}
/// # check(shout);
/// ```
pub trait InboundHandler: Send + Sync + 'static {
    /// Handles a client's text. The future's result is sent back on this connection only.
    fn on_text(&self, session: SessionHandle, text: ByteString) -> BoxFuture<'static, Option<ByteString>>;

    /// Handles a client's binary message, as [`Self::on_text`] does texts; to clients of `realtime.v1` the result goes as
    /// base64. `None`, the default, ends the connection with the code 1003 (unsupported data).
    fn on_binary(&self, session: SessionHandle, data: Bytes) -> Option<BoxFuture<'static, Option<Bytes>>> {
        let _ = (session, data);
        None
    }
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

/// Sends every text back on its own connection, as RuoYi-Vue-Plus does; `ping` is answered with `pong`.
///
/// RuoYi's front end relies on it: its heartbeat is `{"type":"ping"}`, and it disconnects unless the same text comes back
/// within two seconds.
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
