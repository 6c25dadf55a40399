//! [`RedisServer`]: a redis-server of the auditor's own, and what happens to it.

use std::{net::Ipv4Addr, path::PathBuf, time::Duration};

use anyhow::{Context, bail, ensure};
use rustix::process::Signal;
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    net::TcpStream,
    time::{Instant, sleep, timeout},
};

use crate::{
    audit::{
        history::Cursor,
        temp_dir::{TempDir, port},
    },
    child::Child,
};

/// A redis-server of the auditor's own, with an append-only file. It is killed when it is dropped.
#[derive(Debug)]
pub(crate) struct RedisServer {
    pub(crate) port: u16,
    folder: TempDir,
    child: Option<Child>,
}

/// The stream of the nodes, which have no `redis.keyPrefix`.
const LOG: &str = "{rt}:log";

/// Time limit for a server to respond.
const LIMIT: Duration = Duration::from_secs(10);

impl RedisServer {
    /// Starts a server on a free port and waits until it answers.
    pub(crate) async fn start() -> anyhow::Result<Self> {
        let mut store = Self { port: port()?, folder: TempDir::new()?, child: None };
        store.restart().await?;
        Ok(store)
    }

    /// kill -9.
    pub(crate) fn kill(&mut self) {
        self.child = None;
    }

    /// Asks it to end in order, and waits for that.
    pub(crate) async fn end(&mut self) -> anyhow::Result<()> {
        if let Some(mut child) = self.child.take() {
            child.signal(Signal::TERM)?;
            let began = Instant::now();
            while child.ended()?.is_none() && began.elapsed() < LIMIT {
                sleep(Duration::from_millis(10)).await;
            }
        }
        Ok(())
    }

    /// Forgets what was written to files.
    pub(crate) fn delete_files(&self) -> anyhow::Result<()> {
        self.folder.empty()
    }

    /// Starts it, with what its files have, and waits until it answers.
    pub(crate) async fn restart(&mut self) -> anyhow::Result<()> {
        let dir = self.folder.path().display().to_string();
        let port = self.port.to_string();
        let arguments = [
            "--port",
            &port,
            "--bind",
            "127.0.0.1",
            "--dir",
            &dir,
            "--save",
            "",
            "--appendonly",
            "yes",
            "--appendfsync",
            "everysec",
            "--repl-diskless-sync-delay",
            "0",
            "--repl-timeout",
            "600",
        ];
        let arguments = arguments.map(str::to_owned);
        self.child = Some(Child::start_quietly(&PathBuf::from("redis-server"), &arguments)?);
        self.until("PONG", &["PING"]).await.context("redis-server (is it installed?)")
    }

    /// Stops the process (SIGSTOP).
    pub(crate) fn pause(&mut self) -> anyhow::Result<()> {
        self.signal(Signal::STOP)
    }

    /// Resumes the process (SIGCONT).
    pub(crate) fn resume(&mut self) -> anyhow::Result<()> {
        self.signal(Signal::CONT)
    }

    fn signal(&mut self, signal: Signal) -> anyhow::Result<()> {
        self.child.as_mut().context("redis-server is not running")?.signal(signal)
    }

    /// Resumes the server, or starts it if it is not running.
    pub(crate) async fn recover(&mut self) -> anyhow::Result<()> {
        if self.child.is_none() {
            return self.restart().await;
        }
        self.resume()
    }

    /// Follows the master behind this port, and waits until it has all of it.
    pub(crate) async fn follow(&self, port: u16) -> anyhow::Result<()> {
        self.command(&["REPLICAOF", "127.0.0.1", &port.to_string()]).await?;
        self.until("master_link_status:up", &["INFO", "replication"]).await.context("a replica")
    }

    /// Becomes a master.
    pub(crate) async fn promote(&self) -> anyhow::Result<()> {
        self.command(&["REPLICAOF", "NO", "ONE"]).await.map(drop)
    }

    /// Forgets everything.
    pub(crate) async fn flush(&self) -> anyhow::Result<()> {
        self.command(&["FLUSHALL"]).await.map(drop)
    }

    /// Leaves a few entries of the stream; answers the last one that is gone, if any is.
    pub(crate) async fn trim(&self, keep: u32) -> anyhow::Result<Option<Cursor>> {
        self.command(&["XTRIM", LOG, "MAXLEN", &keep.to_string()]).await?;
        // The reply in Redis' own words: the first entry that is left.
        let first = self.command(&["XRANGE", LOG, "-", "+", "COUNT", "1"]).await?;
        let id = first.lines().find_map(|line| line.replacen('-', ".", 1).parse::<Cursor>().ok());
        Ok(id.map(|first| Cursor { offset: first.offset.saturating_sub(1), ..first }))
    }

    async fn until(&self, wanted: &str, words: &[&str]) -> anyhow::Result<()> {
        let began = Instant::now();
        loop {
            match self.command(words).await {
                Ok(answer) if answer.contains(wanted) => return Ok(()),
                answer if began.elapsed() > LIMIT => {
                    bail!("no `{wanted}` within {LIMIT:?}, but {answer:?}")
                }
                _ => sleep(Duration::from_millis(20)).await,
            }
        }
    }

    /// A command over a connection of its own; answers all texts and numbers of the reply, a line each.
    async fn command(&self, words: &[&str]) -> anyhow::Result<String> {
        let command = async {
            let mut socket = BufReader::new(TcpStream::connect((Ipv4Addr::LOCALHOST, self.port)).await?);
            let mut request = format!("*{}\r\n", words.len());
            for word in words {
                request += &format!("${}\r\n{word}\r\n", word.len());
            }
            socket.write_all(request.as_bytes()).await?;
            reply(&mut socket).await
        };
        timeout(Duration::from_secs(2), command).await.with_context(|| format!("{words:?}: no answer"))?
    }
}

async fn reply(socket: &mut BufReader<TcpStream>) -> anyhow::Result<String> {
    let (mut all, mut left) = (String::new(), 1_usize);
    while left > 0 {
        left -= 1;
        let mut line = String::new();
        socket.read_line(&mut line).await?;
        let line = line.trim_end();
        ensure!(!line.is_empty(), "the connection ended before an answer");
        let (kind, rest) = line.split_at(1);
        match kind {
            "+" | ":" => all += rest,
            "-" => bail!("{rest}"),
            "*" => left += usize::try_from(rest.parse::<i64>()?).unwrap_or(0),
            "$" => {
                if let Ok(length) = usize::try_from(rest.parse::<i64>()?) {
                    let mut bytes = vec![0; length + 2];
                    socket.read_exact(&mut bytes).await?;
                    all += String::from_utf8_lossy(&bytes[..length]).trim_end();
                }
            }
            _ => bail!("an answer that is none: {line:?}"),
        }
        all.push('\n');
    }
    Ok(all)
}
