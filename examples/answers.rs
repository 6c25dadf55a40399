//! Answers of a language model: a text that survives reloads. `cargo run -p realtime-examples --bin answers`.
//!
//! The answer belongs to no request: a task writes it to the user's topic, where each page gets it, early or late.

use std::{env, error::Error, sync::Arc, time::Duration};

use actix_web::{
    App, HttpResponse,
    web::{self, Data, Path},
};
use realtime_sse::{
    HttpServer, Hub, SseConfig, Topic, UserId,
    auth::{Claims, JwtAlgorithm, JwtAuthenticator},
    routes,
    streams::{Outcome, StreamError, StreamId, StreamWriter},
};
use tokio::{sync::mpsc, time::sleep};

#[actix_web::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let hub = Hub::builder().start()?;
    let jwt = Arc::new(JwtAuthenticator::new(JwtAlgorithm::Hs256, "a secret of at least 32 bytes ....")?);
    let token = jwt.sign(&Claims::new(42, u64::from(u32::MAX)))?;

    let server = HttpServer::new(move || {
        App::new()
            .app_data(Data::new(hub.clone()))
            .configure(routes(hub.clone(), jwt.clone(), SseConfig::default()))
            .route("/users/{user}/answers/{id}", web::post().to(ask))
            .route("/users/{user}/answers/{id}/stop", web::post().to(stop))
    })
    .bind(env::args().nth(1).as_deref().unwrap_or("127.0.0.1:8080"))?;

    let address = server.addrs()[0];
    eprintln!("listening on {address}");
    eprintln!("ask: curl -X POST -d 'why?' http://{address}/users/42/answers/answer-7");
    eprintln!("stop it: curl -X POST http://{address}/users/42/answers/answer-7/stop");
    eprintln!(
        "open the stream, early or late: curl -N 'http://{address}/resource/sse?Authorization={token}'"
    );
    server.run().await?;
    Ok(())
}

/// Begins an answer. Yours: may the caller ask for this user?
async fn ask(
    hub: Data<Hub>,
    path: Path<(UserId, String)>,
    question: String,
) -> Result<HttpResponse, Box<dyn Error>> {
    let (user, id) = path.into_inner();
    let stream = hub.stream(&Topic::user(&user), &id).await?;
    tokio::spawn(async move {
        if let Err(error) = answer(stream, model(&question)).await {
            eprintln!("an answer was not completed: {error}");
        }
    });
    Ok(HttpResponse::Accepted().finish())
}

async fn answer(stream: StreamWriter, mut tokens: mpsc::Receiver<String>) -> Result<(), StreamError> {
    loop {
        tokio::select! {
            token = tokens.recv() => match token {
                Some(token) => stream.append(&token).await?,
                None => return stream.finish(Outcome::Done).await,
            },
            () = stream.stopped() => return stream.finish(Outcome::Stopped).await,
        }
    }
}

/// Stands for your model, which is slow.
fn model(question: &str) -> mpsc::Receiver<String> {
    let (sender, tokens) = mpsc::channel(16);
    let answer = format!("You asked: {question} This takes a while, and is never done.");
    tokio::spawn(async move {
        for word in answer.split_inclusive(' ').chain(std::iter::repeat(".")) {
            sleep(Duration::from_millis(50)).await;
            if sender.send(word.to_owned()).await.is_err() {
                return;
            }
        }
    });
    tokens
}

async fn stop(hub: Data<Hub>, path: Path<(UserId, StreamId)>) -> Result<String, Box<dyn Error>> {
    let (user, id) = path.into_inner();
    let result = hub.stop_stream(&Topic::user(&user), &id).await?;
    Ok(format!("{} writers were asked to stop\n", result.changed))
}
