//! [`Proxy`]: an address that does not change, in front of a server that may.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU16, Ordering},
    },
    time::{Duration, Instant},
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{
        TcpListener, TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    task::{JoinHandle, JoinSet},
    time::sleep,
};

/// Bytes of a client to which the answer is lost.
type LastWord = Arc<Mutex<Option<&'static str>>>;

/// Passes connections on to a server on 127.0.0.1. All of them end when it is dropped.
#[derive(Debug)]
pub struct Proxy {
    port: u16,
    target: Arc<AtomicU16>,
    last_word: LastWord,
    task: JoinHandle<()>,
}

impl Proxy {
    /// Passes everything on as it comes.
    pub async fn start(target: u16) -> Self {
        Self::start_at(target, usize::MAX).await
    }

    /// Forwards at most that number of bytes a second from the server to each client.
    pub async fn start_at(target: u16, bytes_per_second: usize) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let target = Arc::new(AtomicU16::new(target));
        let current = Arc::clone(&target);
        let last_word = LastWord::default();
        let last = Arc::clone(&last_word);
        let task = tokio::spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((client, _)) = listener.accept().await {
                let target = current.load(Ordering::Acquire);
                let last_word = Arc::clone(&last);
                connections.spawn(async move {
                    let Ok(server) = TcpStream::connect(("127.0.0.1", target)).await else { return };
                    client.set_nodelay(true).unwrap();
                    server.set_nodelay(true).unwrap();
                    let (from_client, to_client) = client.into_split();
                    let (from_server, to_server) = server.into_split();
                    let is_last = AtomicBool::new(false);
                    tokio::select! {
                        () = pass(from_client, to_server, &last_word, &is_last) => {}
                        () = trickle(from_server, to_client, bytes_per_second, &is_last) => {}
                    }
                });
            }
        });
        Self { port, target, last_word, task }
    }

    /// Its port on 127.0.0.1.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Ends the next connection on which a client sends this word, instead of passing on the answer.
    pub fn lose_the_answer_to(&self, word: &'static str) {
        *self.last_word.lock().unwrap() = Some(word);
    }

    /// Leads new connections to another server; the old ones stay.
    pub fn lead_to(&self, target: u16) {
        self.target.store(target, Ordering::Release);
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn pass(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, last_word: &LastWord, is_last: &AtomicBool) {
    let mut buffer = vec![0; 64 << 10];
    while let Ok(read @ 1..) = from.read(&mut buffer).await {
        let bytes = &buffer[..read];
        let said = |word: &mut &str| bytes.windows(word.len()).any(|part| part == word.as_bytes());
        if last_word.lock().unwrap().take_if(said).is_some() {
            is_last.store(true, Ordering::Release);
        }
        if to.write_all(bytes).await.is_err() {
            return;
        }
    }
}

async fn trickle(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    bytes_per_second: usize,
    is_last: &AtomicBool,
) {
    let mut buffer = vec![0; 64 << 10];
    let (begin, mut passed) = (Instant::now(), 0_usize);
    while let Ok(read @ 1..) = from.read(&mut buffer).await {
        if is_last.load(Ordering::Acquire) || to.write_all(&buffer[..read]).await.is_err() {
            return;
        }
        passed += read;
        let due = Duration::from_secs_f64(passed as f64 / bytes_per_second as f64);
        sleep(due.saturating_sub(begin.elapsed())).await;
    }
}
