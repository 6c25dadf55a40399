//! [`Watch`]: the application's service; it reports the beginning and the end of each request to the connection's gate.

use std::{
    future::Future,
    marker::PhantomData,
    mem,
    pin::Pin,
    task::{Context, Poll, ready},
};

use actix_http::{
    ConnectionType, HttpMessage, Payload, Request, Response, ResponseHead, StatusCode, Version,
    body::{BodySize, BoxBody, MessageBody},
    error::PayloadError,
    header,
};
use actix_service::{Service, ServiceFactory};
use bytes::Bytes;
use futures_core::{Stream, future::LocalBoxFuture};
use pin_project_lite::pin_project;

use crate::{
    announced_body::{length_of, takes_rest},
    conform::{correct, ends_connection},
    gate::Announced,
    io::Shared,
};

/// Factory of [`Watch`].
pub(crate) struct WatchFactory<F, B>(F, PhantomData<B>);

impl<F, B> WatchFactory<F, B> {
    pub(crate) fn new(factory: F) -> Self {
        Self(factory, PhantomData)
    }
}

impl<F, B> ServiceFactory<Request> for WatchFactory<F, B>
where
    F: ServiceFactory<Request, Config = ()>,
    F::Response: Into<Response<B>>,
    F::Error: Into<Response<BoxBody>>,
    F::Future: 'static,
    B: MessageBody,
{
    type Response = Response<Answer<B>>;
    type Error = Response<BoxBody>;
    type Config = ();
    type Service = Watch<F::Service, B>;
    type InitError = F::InitError;
    type Future = LocalBoxFuture<'static, Result<Self::Service, Self::InitError>>;

    fn new_service(&self, (): ()) -> Self::Future {
        let service = self.0.new_service(());
        Box::pin(async move { Ok(Watch(service.await?, PhantomData)) })
    }
}

/// Wrapper of the application's service.
pub(crate) struct Watch<S, B>(S, PhantomData<B>);

impl<S, B> Service<Request> for Watch<S, B>
where
    S: Service<Request>,
    S::Response: Into<Response<B>>,
    S::Error: Into<Response<BoxBody>>,
    B: MessageBody,
{
    type Response = Response<Answer<B>>;
    type Error = Response<BoxBody>;
    type Future = Answering<S::Future, B>;

    fn poll_ready(&self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.0.poll_ready(cx).map_err(Into::into)
    }

    fn call(&self, mut request: Request) -> Self::Future {
        let connection = request.conn_data::<Shared>().cloned();
        let (version, upgrades) = (request.version(), request.head().upgrade());
        let mut unframed = false;
        if let Some(connection) = &connection {
            if request.head().connection_type() == ConnectionType::Close {
                connection.ends();
            }
            let body = announced(&mut request);
            connection.asked(body);
            unframed = body == Announced::Rest;
            if unframed {
                let inner = request.take_payload();
                let rest = Rest { inner, connection: connection.clone(), is_open: false };
                *request.payload() = Payload::Stream { payload: Box::pin(rest) };
            }
        }
        let asked = Asked { connection, version, upgrades, unframed };
        Answering { inner: self.0.call(request), asked: Some(asked), _body: PhantomData }
    }
}

/// Body that a request's head announces, determined in the same order as in actix-http.
fn announced(request: &mut Request) -> Announced {
    if !matches!(request.payload(), Payload::H1 { .. }) {
        return Announced::None;
    }
    if takes_rest(request, request.method()) {
        return Announced::Rest;
    }
    if request.chunked().unwrap_or(false) {
        return Announced::Chunked;
    }
    length_of(request).map_or(Announced::None, Announced::Sized)
}

/// Input behind a request that upgrades the connection. The gate opens for it when it is first polled.
struct Rest {
    inner: Payload,
    connection: Shared,
    is_open: bool,
}

impl Stream for Rest {
    type Item = Result<Bytes, PayloadError>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if !mem::replace(&mut self.is_open, true) {
            self.connection.let_through();
        }
        let polled = Pin::new(&mut self.inner).poll_next(cx);
        self.connection.await_rest(polled.is_pending());
        polled
    }
}

impl Drop for Rest {
    fn drop(&mut self) {
        self.connection.await_rest(false);
    }
}

pin_project! {
    /// Future of a response.
    pub(crate) struct Answering<F, B> {
        #[pin]
        inner: F,
        asked: Option<Asked>,
        _body: PhantomData<B>,
    }
}

/// Properties of a request that the head of its response depends on.
struct Asked {
    connection: Option<Shared>,
    version: Version,
    /// It offers an upgrade.
    upgrades: bool,
    /// The dispatcher does not chunk the response.
    unframed: bool,
}

impl<F, B, R, E> Future for Answering<F, B>
where
    F: Future<Output = Result<R, E>>,
    R: Into<Response<B>>,
    E: Into<Response<BoxBody>>,
    B: MessageBody,
{
    type Output = Result<Response<Answer<B>>, Response<BoxBody>>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let result = ready!(this.inner.poll(cx));
        let asked = this.asked.take().expect("it is polled until it has a result");
        Poll::Ready(match result {
            Ok(response) => Ok(asked.begin(response.into())),
            // A refusal of a middleware is a response like others.
            Err(error) => Err(asked.begin(error.into()).map_body(|_, body| BoxBody::new(body))),
        })
    }
}

impl Asked {
    /// Corrects the head of a response, and reports its beginning.
    fn begin<B: MessageBody>(self, mut response: Response<B>) -> Response<Answer<B>> {
        let Self { connection, version, upgrades, unframed } = self;
        let size = response.body().size();
        let is_switch = response.status() == StatusCode::SWITCHING_PROTOCOLS;
        let is_endless = size == BodySize::Stream;
        let takes_over =
            connection.as_ref().is_some_and(|connection| connection.answering(!is_endless, is_switch));
        // A connection that takes the socket frames its bytes itself.
        correct(version, upgrades, unframed && !takes_over, size, response.head_mut());
        if let Some(connection) = &connection {
            if takes_over && !is_switch {
                conform_to_takeover(response.head_mut());
            }
            if ends_connection(version, size, response.head()) {
                connection.ends();
            }
        }
        response.map_body(|_, body| Answer { body, _end: AnswerEnd(connection) })
    }
}

/// Corrects the head of a response that a connection goes on with on the socket itself.
fn conform_to_takeover(head: &mut ResponseHead) {
    // The dispatcher has lost the socket and cannot read another request.
    head.set_connection_type(ConnectionType::Close);
    // A middleware that encodes the body gets none of its bytes.
    if head.headers().get(header::CONTENT_ENCODING).is_some_and(|encoding| encoding != "identity") {
        head.headers_mut().remove(header::CONTENT_ENCODING);
    }
}

pin_project! {
    /// Body of a response; its drop is the response's end.
    pub(crate) struct Answer<B> {
        #[pin]
        body: B,
        _end: AnswerEnd,
    }
}

struct AnswerEnd(Option<Shared>);

impl Drop for AnswerEnd {
    fn drop(&mut self) {
        if let Some(connection) = &self.0 {
            connection.answered();
        }
    }
}

impl<B: MessageBody> MessageBody for Answer<B> {
    type Error = B::Error;

    fn size(&self) -> BodySize {
        self.body.size()
    }

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, Self::Error>>> {
        self.project().body.poll_next(cx)
    }
}
