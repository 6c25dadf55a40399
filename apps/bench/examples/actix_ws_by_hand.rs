//! What most services on actix-web begin with: actix-ws, a map of sessions, a task and a bounded channel for each. A peer of
//! `realtime-bench compare`: WebSockets at `/ws`, and `POST /publish` sends its body to all. Its argument is the port.

use std::{
    collections::HashMap,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use actix_web::{
    App, HttpRequest, HttpResponse, HttpServer,
    web::{Data, Payload, get, post},
};
use actix_ws::{Message, MessageStream, Session};
use anyhow::Context;
use bytestring::ByteString;
use tokio::sync::mpsc::{Receiver, Sender, channel};

/// Messages that a session may have waiting.
const QUEUE: usize = 64;

#[derive(Default)]
struct Sessions {
    next: AtomicU64,
    senders: Mutex<HashMap<u64, Sender<ByteString>>>,
}

impl Sessions {
    fn enter(&self) -> (u64, Receiver<ByteString>) {
        let (sender, receiver) = channel(QUEUE);
        let id = self.next.fetch_add(1, Ordering::Relaxed);
        self.senders.lock().unwrap_or_else(PoisonError::into_inner).insert(id, sender);
        (id, receiver)
    }

    fn leave(&self, id: u64) {
        self.senders.lock().unwrap_or_else(PoisonError::into_inner).remove(&id);
    }

    /// Sends a text to all. A session that is full loses its sender, and its task ends.
    fn publish(&self, text: &ByteString) {
        let mut senders = self.senders.lock().unwrap_or_else(PoisonError::into_inner);
        senders.retain(|_, sender| sender.try_send(text.clone()).is_ok());
    }
}

async fn open(
    request: HttpRequest,
    body: Payload,
    sessions: Data<Sessions>,
) -> actix_web::Result<HttpResponse> {
    let (response, session, incoming) = actix_ws::handle(&request, body)?;
    actix_web::rt::spawn(async move {
        let (id, outgoing) = sessions.enter();
        // A session that cannot be written to has ended.
        let _ = serve(session, incoming, outgoing).await;
        sessions.leave(id);
    });
    Ok(response)
}

async fn serve(
    mut session: Session,
    mut incoming: MessageStream,
    mut outgoing: Receiver<ByteString>,
) -> Result<(), actix_ws::Closed> {
    loop {
        tokio::select! {
            text = outgoing.recv() => match text {
                Some(text) => session.text(text).await?,
                None => break,
            },
            message = incoming.recv() => match message {
                Some(Ok(Message::Ping(payload))) => session.pong(&payload).await?,
                Some(Ok(Message::Close(_)) | Err(_)) | None => break,
                Some(Ok(_)) => {}
            },
        }
    }
    session.close(None).await
}

async fn publish(text: String, sessions: Data<Sessions>) -> HttpResponse {
    sessions.publish(&text.into());
    HttpResponse::Ok().finish()
}

#[actix_web::main]
async fn main() -> anyhow::Result<()> {
    let port = std::env::args().nth(1).context("the argument is missing: a port")?.parse()?;
    let sessions = Data::new(Sessions::default());
    let server = HttpServer::new(move || {
        App::new()
            .app_data(sessions.clone())
            .route("/ws", get().to(open))
            .route("/publish", post().to(publish))
    });
    server.bind(("127.0.0.1", port))?.run().await.context("the server")
}
