//! [`Resp`]: the rawest client of a Redis stream, to measure others by.

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::TcpStream,
    time::Duration,
};

use anyhow::{Context, bail, ensure};

use crate::endpoint::{Endpoint, Reach};

/// The address of Redis, and the login.
#[derive(Debug, Clone)]
pub(crate) struct RedisUrl {
    endpoint: Endpoint,
    user: Option<(String, String)>,
    database: Option<String>,
}

/// A blocking connection that decodes no more than it must.
#[derive(Debug)]
pub(crate) struct Resp {
    socket: BufReader<TcpStream>,
    output: Vec<u8>,
    line: Vec<u8>,
}

impl RedisUrl {
    /// Reads `redis://[user:password@]host[:port][/db]`. The text is never shown: it may hold a password.
    pub(crate) fn parse(url: &str, reach: Reach) -> anyhow::Result<Self> {
        let rest =
            url.strip_prefix("redis://").context("--redis: expected redis://host:port, without TLS")?;
        let (login, rest) = match rest.rsplit_once('@') {
            Some((login, rest)) => (Some(login), rest),
            None => (None, rest),
        };
        let (host, database) = rest.split_once('/').unwrap_or((rest, ""));
        let port = if host.rfind(':') > host.rfind(']') { "" } else { ":6379" };
        let endpoint = Endpoint::parse(&format!("http://{host}{port}/"), reach).context("--redis")?;
        let user = login.map(|login| login.split_once(':').unwrap_or(("", login)));
        Ok(Self {
            endpoint,
            user: user.map(|(user, password)| (user.to_owned(), password.to_owned())),
            database: (!database.is_empty()).then(|| database.to_owned()),
        })
    }

    /// Opens a connection.
    pub(crate) fn open(&self) -> anyhow::Result<Resp> {
        let socket = TcpStream::connect(self.endpoint.address)
            .with_context(|| format!("failed to connect to Redis at {}", self.endpoint.host))?;
        socket.set_nodelay(true)?;
        socket.set_read_timeout(Some(Duration::from_secs(10)))?;
        let mut resp = Resp {
            socket: BufReader::with_capacity(256 * 1024, socket),
            output: Vec::new(),
            line: Vec::new(),
        };
        match &self.user {
            Some((user, password)) if user.is_empty() => resp.call(&[b"AUTH", password.as_bytes()])?,
            Some((user, password)) => resp.call(&[b"AUTH", user.as_bytes(), password.as_bytes()])?,
            None => {}
        }
        if let Some(database) = &self.database {
            resp.call(&[b"SELECT", database.as_bytes()])?;
        }
        Ok(resp)
    }
}

impl Resp {
    /// Puts a command into the output; [`Self::flush`] sends it.
    pub(crate) fn push(&mut self, words: &[&[u8]]) {
        write!(self.output, "*{}\r\n", words.len()).expect("a Vec takes everything");
        for word in words {
            write!(self.output, "${}\r\n", word.len()).expect("a Vec takes everything");
            self.output.extend_from_slice(word);
            self.output.extend_from_slice(b"\r\n");
        }
    }

    pub(crate) fn flush(&mut self) -> anyhow::Result<()> {
        self.socket.get_mut().write_all(&self.output)?;
        self.output.clear();
        Ok(())
    }

    /// Reads an answer of one line, or one text, and throws it away.
    pub(crate) fn answer(&mut self) -> anyhow::Result<()> {
        self.head()?;
        if self.line.first() == Some(&b'$') {
            let length = self.length(b'$')?;
            self.text(length)?;
        }
        Ok(())
    }

    /// Returns whether answers are buffered.
    pub(crate) fn has_more(&self) -> bool {
        !self.socket.buffer().is_empty()
    }

    /// A command and its answer.
    pub(crate) fn call(&mut self, words: &[&[u8]]) -> anyhow::Result<()> {
        self.push(words);
        self.flush()?;
        self.answer()
    }

    /// A command whose answer is a text.
    pub(crate) fn ask(&mut self, words: &[&[u8]]) -> anyhow::Result<String> {
        self.push(words);
        self.flush()?;
        self.bulk()?;
        Ok(String::from_utf8_lossy(&self.line).into_owned())
    }

    /// Reads a stream's entries after `last`, which moves on, and calls back with the last field of each. Waits for a
    /// second at most if `block`. Answers how many there were.
    pub(crate) fn xread(
        &mut self,
        key: &[u8],
        last: &mut Vec<u8>,
        block: bool,
        mut entry: impl FnMut(&[u8]),
    ) -> anyhow::Result<usize> {
        let mut words: Vec<&[u8]> = vec![b"XREAD", b"COUNT", b"1000"];
        if block {
            words.extend([&b"BLOCK"[..], b"1000"]);
        }
        words.extend([&b"STREAMS"[..], key, last.as_slice()]);
        self.push(&words);
        self.flush()?;
        self.head()?;
        if self.line == b"*-1" {
            return Ok(0);
        }
        ensure!(self.line == b"*1", "XREAD: {:?}", String::from_utf8_lossy(&self.line));
        self.array()?;
        self.bulk()?;
        let entries = self.array()?;
        for _ in 0..entries {
            self.array()?;
            self.bulk()?;
            last.clear();
            last.extend_from_slice(&self.line);
            for _ in 0..self.array()? {
                self.bulk()?;
            }
            entry(&self.line);
        }
        Ok(entries)
    }

    fn array(&mut self) -> anyhow::Result<usize> {
        self.head()?;
        self.length(b'*')
    }

    /// Reads a text into `line`.
    fn bulk(&mut self) -> anyhow::Result<()> {
        self.head()?;
        let length = self.length(b'$')?;
        self.text(length)
    }

    fn text(&mut self, length: usize) -> anyhow::Result<()> {
        self.line.resize(length + 2, 0);
        self.socket.read_exact(&mut self.line)?;
        self.line.truncate(length);
        Ok(())
    }

    /// Reads a line; an error if it is one.
    fn head(&mut self) -> anyhow::Result<()> {
        self.line.clear();
        self.socket.read_until(b'\n', &mut self.line)?;
        ensure!(self.line.ends_with(b"\r\n"), "Redis has closed the connection");
        self.line.truncate(self.line.len() - 2);
        if self.line.first() == Some(&b'-') {
            bail!("Redis: {}", String::from_utf8_lossy(&self.line[1..]));
        }
        Ok(())
    }

    fn length(&self, kind: u8) -> anyhow::Result<usize> {
        let length = self.line.strip_prefix(&[kind]).and_then(|digits| std::str::from_utf8(digits).ok());
        let length = length.and_then(|digits| digits.parse().ok());
        length.with_context(|| format!("Redis: unexpected {:?}", String::from_utf8_lossy(&self.line)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_is_taken_apart() {
        let url = RedisUrl::parse("redis://me:p@ss@127.0.0.1:7000/3", Reach::Loopback).unwrap();
        assert_eq!(url.endpoint.address, "127.0.0.1:7000".parse().unwrap());
        assert_eq!((url.user, url.database.as_deref()), (Some(("me".into(), "p@ss".into())), Some("3")));
        let url = RedisUrl::parse("redis://127.0.0.1", Reach::Loopback).unwrap();
        assert_eq!(url.endpoint.address, "127.0.0.1:6379".parse().unwrap());
        assert!(url.user.is_none() && url.database.is_none());
    }

    #[test]
    fn a_bad_url_is_not_shown() {
        for bad in ["rediss://:secret@127.0.0.1/", "redis://:secret@192.0.2.1/"] {
            let error = format!("{:#}", RedisUrl::parse(bad, Reach::Loopback).unwrap_err());
            assert!(!error.contains("secret"), "{error}");
        }
    }
}
