//! [`Api`]: the HTTP interface of a node, over a connection that is kept.

use std::{net::SocketAddr, time::Duration};

use anyhow::{Context, bail, ensure};
use serde_json::Value;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};

use crate::head::{Body, Head};

/// A caller of the nodes' HTTP interface.
#[derive(Debug)]
pub(crate) struct Api {
    key: String,
    connection: Option<(SocketAddr, TcpStream)>,
}

/// Time limit of a request; longer than a node waits for Redis.
const LIMIT: Duration = Duration::from_secs(4);

impl Api {
    /// A caller with this key.
    pub(crate) fn new(key: &str) -> Self {
        Self { key: key.to_owned(), connection: None }
    }

    /// A request and its answer.
    ///
    /// # Errors
    /// When there is no response; the request may or may not have been executed.
    pub(crate) async fn call(
        &mut self,
        node: SocketAddr,
        method: &str,
        path: &str,
        body: &str,
    ) -> anyhow::Result<(u16, Value)> {
        let kept = self.connection.take().filter(|(address, _)| *address == node);
        let call = async {
            let mut socket = match kept {
                Some((_, socket)) => socket,
                None => {
                    let socket = TcpStream::connect(node).await?;
                    socket.set_nodelay(true)?;
                    socket
                }
            };
            let request = format!(
                "{method} {path} HTTP/1.1\r\nHost: {node}\r\nX-API-Key: {}\r\nContent-Type: application/json\r\n\
                 Content-Length: {}\r\n\r\n{body}",
                self.key,
                body.len()
            );
            socket.write_all(request.as_bytes()).await?;
            let mut bytes = Vec::new();
            let (head, begin) = loop {
                if let Some(found) = Head::first(&bytes)? {
                    break found;
                }
                ensure!(socket.read_buf(&mut bytes).await? > 0, "the connection ended before an answer");
            };
            let Body::Length(length) = head.body else { bail!("an answer without a length") };
            let end = begin + usize::try_from(length)?;
            while bytes.len() < end {
                ensure!(socket.read_buf(&mut bytes).await? > 0, "the connection ended within an answer");
            }
            let answer = serde_json::from_slice(&bytes[begin..end]).unwrap_or(Value::Null);
            Ok((head.status, answer, socket))
        };
        let (status, answer, socket) = timeout(LIMIT, call).await.context("no answer within 4 s")??;
        self.connection = Some((node, socket));
        Ok((status, answer))
    }

    /// Returns true if the node's readiness check succeeds.
    pub(crate) async fn ready(&mut self, node: SocketAddr) -> bool {
        matches!(self.call(node, "GET", "/health/ready", "").await, Ok((200, _)))
    }
}
