//! [`ServerConnection`]: a connection that knows which server it leads to.

use std::{fmt, sync::Arc, time::Duration};

use redis::{ConnectionAddr, RedisResult, aio::MultiplexedConnection};

use crate::{
    liveness::{Link, Liveness},
    master::{MasterLookup, open},
    shared_connection::SharedConnection,
};

/// A connection to the server that was the master of a key when it was opened.
pub(crate) struct ServerConnection {
    pub(crate) connection: MultiplexedConnection,
    addr: ConnectionAddr,
    liveness: Liveness,
}

impl ServerConnection {
    /// Looks up the master of `key` and connects to it; each command may take `timeout`.
    pub(crate) async fn open(lookup: &Arc<MasterLookup>, key: &str, timeout: Duration) -> RedisResult<Self> {
        let server = lookup.master(key).await?;
        let addr = server.addr().clone();
        Ok(Self { connection: open(server, timeout).await?, addr, liveness: Liveness::new() })
    }
}

impl Link for ServerConnection {
    fn is_closed(&self) -> bool {
        self.liveness.is_closed(&self.connection)
    }
}

impl SharedConnection<ServerConnection> {
    /// Discards the connection if it leads to another server than the current master. A server that is cut off from the
    /// others doesn't notice that it was replaced.
    pub(crate) fn discard_unless_to(&self, master: &ConnectionAddr) {
        if let Some(connection) = self.current()
            && connection.addr != *master
        {
            self.discard(&connection);
        }
    }
}

impl fmt::Debug for ServerConnection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ServerConnection").field("addr", &self.addr).finish_non_exhaustive()
    }
}
