//! [`Expect`]: answers `Expect: 100-continue`.

use std::{
    convert::Infallible,
    future::{Ready, ready},
};

use actix_http::{HttpMessage, Request, Response, StatusCode, body::BoxBody, header};
use actix_service::{Service, ServiceFactory, always_ready};

use crate::{gate::Announced, io::Shared};

/// Service that refuses a request whose announced body is too large, before the client sends it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Expect {
    pub(crate) most: u64,
}

impl ServiceFactory<Request> for Expect {
    type Response = Request;
    type Error = Response<BoxBody>;
    type Config = ();
    type Service = Self;
    type InitError = Infallible;
    type Future = Ready<Result<Self, Infallible>>;

    fn new_service(&self, (): ()) -> Self::Future {
        ready(Ok(*self))
    }
}

impl Service<Request> for Expect {
    type Response = Request;
    type Error = Response<BoxBody>;
    type Future = Ready<Result<Request, Response<BoxBody>>>;

    always_ready!();

    fn call(&self, request: Request) -> Self::Future {
        let length = request.headers().get(header::CONTENT_LENGTH);
        let length = length.and_then(|length| length.to_str().ok()?.trim().parse().ok());
        if length.is_none_or(|length: u64| length <= self.most) {
            return ready(Ok(request));
        }
        if let Some(connection) = request.conn_data::<Shared>() {
            // A client that sends the body nevertheless has it discarded.
            connection.asked(Announced::Sized(length.unwrap_or_default()));
            connection.answered();
        }
        ready(Err(Response::new(StatusCode::PAYLOAD_TOO_LARGE)))
    }
}
