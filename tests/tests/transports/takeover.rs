//! Connections that leave the HTTP dispatcher once they are open, and servers with such connections.
#![cfg(target_os = "linux")]

mod applications;
mod during_the_head;

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use actix_web::{
    App, HttpRequest, HttpResponse, Responder,
    body::{BodySize, MessageBody},
    dev::{Service, ServiceResponse},
    middleware::{Compress, Logger},
    rt::net::TcpStream,
    web,
};
use bytestring::ByteString;
use realtime_core::{
    Hub, SessionHandle, Settings,
    auth::{JwtAlgorithm, JwtAuthenticator},
};
use realtime_sse::{SseConfig, SseEmitters};
use realtime_tests::{RawClient, Running, SECRET, ServerKind, start_server};
use realtime_websocket::WebSocketConfig;
use socket2::SockRef;

fn hub() -> Hub {
    let mut settings = Settings::default();
    settings.limits.max_inbound_rate = 0;
    Hub::builder().settings(settings).start().unwrap()
}

/// The requests of both transports, and the beginning of their answers.
fn requests(user: i64) -> [(String, &'static str); 2] {
    [(RawClient::websocket(user), "HTTP/1.1 101 "), (RawClient::event_stream(user), "HTTP/1.1 200 ")]
}

fn is_taken() -> bool {
    ServerKind::of_run() == ServerKind::Realtime
}

/// An application of its own around both transports.
fn start(hub: &Hub, configure: impl Fn(&mut web::ServiceConfig) + Send + Sync + 'static) -> Running {
    start_with(hub, Arc::new(|_: SessionHandle, text: ByteString| async move { Some(text) }), configure)
}

fn start_with(
    hub: &Hub,
    inbound: Arc<dyn realtime_websocket::InboundHandler>,
    configure: impl Fn(&mut web::ServiceConfig) + Send + Sync + 'static,
) -> Running {
    let (hub, configure) = (hub.clone(), Arc::new(configure));
    let app = move || {
        let authenticator = Arc::new(JwtAuthenticator::new(JwtAlgorithm::Hs256, SECRET).unwrap());
        let mut websocket = WebSocketConfig::default();
        websocket.inbound = Arc::clone(&inbound);
        let configure = Arc::clone(&configure);
        App::new()
            .app_data(web::Data::new(SseEmitters::new(hub.clone())))
            .wrap_fn(|request, service| {
                let replace = request.headers().contains_key("x-replace");
                let answer = service.call(request);
                async move {
                    let answer: ServiceResponse = answer.await?.map_into_boxed_body();
                    let answer = if replace {
                        // The transport's response is dropped.
                        answer.into_response(HttpResponse::Ok().body("replaced"))
                    } else {
                        answer
                    };
                    Ok(answer.map_body(|_, body| Counted { body, chunks: Arc::default() }))
                }
            })
            .wrap(Compress::default())
            .wrap(Logger::default())
            .route("/plain", web::get().to(plain))
            .route("/bytes/{count}", web::get().to(async |count: web::Path<usize>| "b".repeat(*count)))
            .configure(move |services| configure(services))
            .configure(realtime_websocket::routes(hub.clone(), authenticator.clone(), websocket))
            .configure(realtime_sse::routes(hub.clone(), authenticator, SseConfig::default()))
    };
    start_server!(
        ServerKind::of_run(),
        app.clone(),
        workers(1),
        h1_allow_half_closed(false),
        on_connect(|connection, data| {
            let tcp = connection.downcast_ref::<TcpStream>().unwrap();
            SockRef::from(tcp).set_send_buffer_size(32 << 10).unwrap();
            data.insert(ConnectionPort(tcp.peer_addr().unwrap().port()));
        })
    )
}

struct ConnectionPort(u16);

async fn plain(request: HttpRequest) -> impl Responder {
    request.conn_data::<ConnectionPort>().unwrap().0.to_string()
}

pin_project_lite::pin_project! {
    /// A body within a body, as a middleware makes it.
    struct Counted<B> {
        #[pin]
        body: B,
        chunks: Arc<AtomicUsize>,
    }
}

impl<B: MessageBody> MessageBody for Counted<B> {
    type Error = B::Error;

    fn size(&self) -> BodySize {
        self.body.size()
    }

    fn poll_next(
        self: std::pin::Pin<&mut Self>,
        cx: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Result<web::Bytes, Self::Error>>> {
        let this = self.project();
        this.chunks.fetch_add(1, Ordering::Relaxed);
        this.body.poll_next(cx)
    }
}
