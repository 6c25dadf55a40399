//! [`TempDir`]: a folder for a run's files, and a port for a server.

use std::{
    net::{Ipv4Addr, TcpListener},
    path::{Path, PathBuf},
    sync::atomic::{AtomicU16, AtomicU32, Ordering},
};

use anyhow::Context;

/// A folder that is removed when it is dropped.
#[derive(Debug)]
pub(crate) struct TempDir(PathBuf);

impl TempDir {
    /// A new one under the system's folder for such.
    pub(crate) fn new() -> anyhow::Result<Self> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let name = format!("realtime-audit-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let path = std::env::temp_dir().join(name);
        std::fs::create_dir(&path).with_context(|| format!("failed to create {}", path.display()))?;
        Ok(Self(path))
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }

    /// Removes what is in it.
    pub(crate) fn empty(&self) -> anyhow::Result<()> {
        std::fs::remove_dir_all(&self.0)?;
        Ok(std::fs::create_dir(&self.0)?)
    }
}

impl Drop for TempDir {
    fn drop(&mut self) {
        std::fs::remove_dir_all(&self.0).ok();
    }
}

/// A port on 127.0.0.1 that is free, and that no outgoing connection takes while its server is down: it is below the
/// range that Linux gives to those.
pub(crate) fn port() -> anyhow::Result<u16> {
    const RANGE: u16 = 12_000;
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let begin = (std::process::id() % u32::from(RANGE)) as u16;
    for _ in 0..RANGE {
        let port = 15_000 + (begin + NEXT.fetch_add(1, Ordering::Relaxed) % RANGE) % RANGE;
        if TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok() {
            return Ok(port);
        }
    }
    anyhow::bail!("no port is free between 15000 and 27000")
}
