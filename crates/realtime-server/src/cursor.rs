//! [`cursor_header`]: the cursor of a response whose client subscribes behind it.

use actix_web::{
    HttpRequest, HttpResponse, Responder,
    http::header::{HeaderName, HeaderValue},
};
use realtime_core::Hub;

/// The header `X-Realtime-Cursor`. Its value is the cursor behind which the client of the response subscribes.
pub const CURSOR_HEADER: HeaderName = HeaderName::from_static("x-realtime-cursor");

/// Takes [`Hub::cursor`] for a response. Call it before the query whose result is sent: a client that subscribes from the
/// cursor on misses nothing that the result lacks.
///
/// The header is absent on a bus without positions. Pages of another origin see it only if the response lists it in
/// `Access-Control-Expose-Headers`.
///
/// ```
/// use actix_web::{Responder, web::{Data, Json}};
/// use realtime_core::Hub;
/// use realtime_server::cursor_header;
///
/// # struct Database;
/// # impl Database { async fn orders(&self) -> Vec<u64> { vec![] } }
/// async fn orders(hub: Data<Hub>, database: Data<Database>) -> impl Responder {
///     let cursor = cursor_header(&hub);
///     cursor.on(Json(database.orders().await))
/// }
/// ```
#[must_use = "the header has to be added to a response"]
pub fn cursor_header(hub: &Hub) -> CursorHeader {
    let cursor = hub.cursor().and_then(|cursor| HeaderValue::try_from(cursor.to_string()).ok());
    CursorHeader(cursor)
}

/// A cursor for a response: see [`cursor_header`].
#[derive(Debug, Clone)]
pub struct CursorHeader(Option<HeaderValue>);

impl CursorHeader {
    /// Adds the header to a response, if there is a cursor.
    pub fn on<R: Responder>(self, responder: R) -> WithCursor<R> {
        WithCursor { responder, cursor: self }
    }

    /// The header's value; `None` if there is no cursor.
    pub fn value(&self) -> Option<&HeaderValue> {
        self.0.as_ref()
    }
}

/// A response with the header of a [`CursorHeader`].
#[derive(Debug)]
pub struct WithCursor<R> {
    responder: R,
    cursor: CursorHeader,
}

impl<R: Responder> Responder for WithCursor<R> {
    type Body = R::Body;

    fn respond_to(self, request: &HttpRequest) -> HttpResponse<R::Body> {
        let mut response = self.responder.respond_to(request);
        if let Some(cursor) = self.cursor.0 {
            response.headers_mut().insert(CURSOR_HEADER, cursor);
        }
        response
    }
}
