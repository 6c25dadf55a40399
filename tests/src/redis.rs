//! [`Redis`]: a real redis-server of the test's own, and faults of it.

use std::ops::{Deref, DerefMut};

use crate::redis_process::RedisProcess;

/// A redis-server on a free port of 127.0.0.1, without persistence. It is killed when it is dropped.
#[derive(Debug)]
pub struct Redis(RedisProcess);

impl Redis {
    /// Starts a server and waits until it answers.
    pub async fn start() -> Self {
        let process = RedisProcess::server(&[]);
        process.answers().await;
        Self(process)
    }

    /// Its URL.
    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}/", self.port())
    }

    /// Makes it one that has known all live nodes for long: what the nodes are asked does not wait for others. It has to hold
    /// the lease of a node.
    pub fn knows_all_nodes(&self) {
        self.cli(&["set", "{rt/control}:since", "1"]);
    }

    /// Starts it again, with nothing in it.
    pub async fn restart(&mut self) {
        self.0.restart(&[]).await;
    }
}

impl Deref for Redis {
    type Target = RedisProcess;

    fn deref(&self) -> &RedisProcess {
        &self.0
    }
}

impl DerefMut for Redis {
    fn deref_mut(&mut self) -> &mut RedisProcess {
        &mut self.0
    }
}
