//! [`DevServer`]: the counterpart of plus-ui's Vite development server.

use std::{
    io,
    path::{Component, Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU16, Ordering::Relaxed},
    },
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, copy_bidirectional},
    net::{TcpListener, TcpStream},
    task::JoinHandle,
};

use crate::Server;

/// A server that has the page of `tests/front-end` and passes what is below `/dev-api` on to another server, without
/// that prefix and with the other's name in `Host`, as plus-ui's `vite.config.ts` asks of Vite (`changeOrigin`, `ws`,
/// `rewrite`). So the page's origin is not the server's own. It ends when it is dropped.
#[derive(Debug)]
pub struct DevServer {
    port: u16,
    target: Arc<AtomicU16>,
    task: JoinHandle<()>,
}

impl DevServer {
    /// Starts on a free port and passes nothing on yet.
    pub async fn start() -> Self {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("front-end");
        assert!(
            folder.join("node_modules").exists(),
            "this test needs npm packages: tests/run.sh, or `npm ci` in {}",
            folder.display()
        );
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let target = Arc::new(AtomicU16::new(0));
        let (folder, port_of_target) = (Arc::new(folder), Arc::clone(&target));
        let task = tokio::spawn(async move {
            while let Ok((browser, _)) = listener.accept().await {
                let (folder, target) = (Arc::clone(&folder), port_of_target.load(Relaxed));
                // A browser that disconnects during a request is expected.
                tokio::spawn(async move { serve(browser, &folder, target).await.ok() });
            }
        });
        Self { port, target, task }
    }

    /// Passes on to that server from now on.
    pub fn pass_to(&self, server: &impl Server) {
        self.target.store(server.port(), Relaxed);
    }

    /// The origin of its pages.
    pub fn origin(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }
}

impl Drop for DevServer {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Answers one request, or hands the connection over. A connection serves one request, so that no later one is missed.
async fn serve(mut browser: TcpStream, folder: &Path, target: u16) -> io::Result<()> {
    let mut request = Vec::new();
    let end = loop {
        if let Some(end) = request.windows(4).position(|bytes| bytes == b"\r\n\r\n") {
            break end;
        }
        if browser.read_buf(&mut request).await? == 0 {
            return Ok(());
        }
    };
    let (head, body) = request.split_at(end);
    let head = String::from_utf8_lossy(head);
    let path = head.split(' ').nth(1).unwrap_or_default();
    if let Some(path) = path.strip_prefix(PREFIX) {
        let mut server = TcpStream::connect(("127.0.0.1", target)).await?;
        server.write_all(passed_on(&head, path, target).as_bytes()).await?;
        server.write_all(body).await?;
        copy_bidirectional(&mut browser, &mut server).await?;
    } else {
        browser.write_all(&file(folder, path).await).await?;
    }
    browser.shutdown().await
}

/// A request's head under another path and for another host.
fn passed_on(head: &str, path: &str, port: u16) -> String {
    let method = head.split(' ').next().unwrap_or_default();
    let mut passed = format!("{method} {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}");
    let upgrades = head.lines().any(|line| is_header(line, "Upgrade"));
    for line in head.lines().skip(1) {
        if !is_header(line, "Host") && (upgrades || !is_header(line, "Connection")) {
            passed.push_str("\r\n");
            passed.push_str(line);
        }
    }
    if !upgrades {
        passed.push_str("\r\nConnection: close");
    }
    passed
}

fn is_header(line: &str, name: &str) -> bool {
    line.split_once(':').is_some_and(|(header, _)| header.eq_ignore_ascii_case(name))
}

/// The answer to a request for a file.
async fn file(folder: &Path, path: &str) -> Vec<u8> {
    let name = path.split('?').next().unwrap_or_default().trim_start_matches('/');
    let name = PathBuf::from(if name.is_empty() { "index.html" } else { name });
    let inside = name.components().all(|part| matches!(part, Component::Normal(_)));
    let Some(content) = (if inside { tokio::fs::read(folder.join(&name)).await.ok() } else { None }) else {
        return b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\nConnection: close\r\n\r\n".to_vec();
    };
    let kind = match name.extension().and_then(|extension| extension.to_str()) {
        Some("html") => "text/html",
        _ => "text/javascript",
    };
    let length = content.len();
    let head = format!(
        "HTTP/1.1 200 OK\r\nContent-Type: {kind}\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n"
    );
    [head.into_bytes(), content].concat()
}

/// plus-ui's `VITE_APP_BASE_API` in development.
const PREFIX: &str = "/dev-api";
