//! [`Proxy`]: the network between a node and Redis, or between a replica and its master.

use std::{
    net::{Ipv4Addr, SocketAddr},
    time::Duration,
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream, tcp},
    sync::{mpsc, watch},
    task::{JoinHandle, JoinSet},
    time::{Instant, sleep_until, timeout},
};

/// Forwards TCP connections; it can delay, block, cut or redirect them.
#[derive(Debug)]
pub(crate) struct Proxy {
    pub(crate) port: u16,
    state: watch::Sender<State>,
    task: JoinHandle<()>,
}

#[derive(Debug, Clone, Copy)]
struct State {
    target: u16,
    delay: Duration,
    /// Nothing passes, in neither direction; connections stay.
    blocked: bool,
    /// Connections of an older generation end.
    generation: u64,
}

/// Maximum number of delayed reads.
const QUEUE: usize = 1024;

impl Proxy {
    /// Listens on a free port and passes everything on to `target`.
    pub(crate) async fn start(target: u16) -> std::io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let port = listener.local_addr()?.port();
        let (state, watching) =
            watch::channel(State { target, delay: Duration::ZERO, blocked: false, generation: 0 });
        let task = tokio::spawn(accept(listener, watching));
        Ok(Self { port, state, task })
    }

    /// Delays all further data, in both directions.
    pub(crate) fn delay(&self, delay: Duration) {
        self.state.send_modify(|state| state.delay = delay);
    }

    /// Holds all data and new connections back; connections stay open.
    pub(crate) fn block(&self) {
        self.state.send_modify(|state| state.blocked = true);
    }

    /// Forwards data again, starting with what was held back.
    pub(crate) fn unblock(&self) {
        self.state.send_modify(|state| state.blocked = false);
    }

    /// Ends all connections; data in flight is lost.
    pub(crate) fn cut(&self) {
        self.state.send_modify(|state| state.generation += 1);
    }

    /// Passes new connections on to another server, and ends the old ones.
    pub(crate) fn switch(&self, target: u16) {
        self.state.send_modify(|state| {
            state.target = target;
            state.generation += 1;
        });
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn accept(listener: TcpListener, watching: watch::Receiver<State>) {
    // Connections end with the listener.
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => {
                if let Ok((near, _)) = accepted {
                    connections.spawn(pass(near, watching.clone()));
                }
            }
            Some(_) = connections.join_next() => {}
        }
    }
}

async fn pass(near: TcpStream, mut watching: watch::Receiver<State>) {
    let State { target, generation, .. } = *watching.borrow_and_update();
    let newer = |state: &State| state.generation != generation;
    let carry = async {
        // A partition also holds up who connects.
        opened(&mut watching.clone()).await;
        let far = timeout(
            Duration::from_secs(5),
            TcpStream::connect(SocketAddr::from((Ipv4Addr::LOCALHOST, target))),
        );
        let Ok(Ok(far)) = far.await else { return };
        if near.set_nodelay(true).is_err() || far.set_nodelay(true).is_err() {
            return;
        }
        let (near_in, near_out) = near.into_split();
        let (far_in, far_out) = far.into_split();
        // Either end ends both.
        tokio::select! {
            () = direction(near_in, far_out, watching.clone()) => {}
            () = direction(far_in, near_out, watching.clone()) => {}
        }
    };
    let mut ends = watching.clone();
    tokio::select! {
        () = carry => {}
        _ = ends.wait_for(newer) => {}
    }
}

async fn opened(watching: &mut watch::Receiver<State>) {
    // An error is the end of the proxy, which ends this task as well.
    let _ = watching.wait_for(|state| !state.blocked).await;
}

async fn direction(
    mut from: tcp::OwnedReadHalf,
    mut to: tcp::OwnedWriteHalf,
    mut watching: watch::Receiver<State>,
) {
    let (sender, mut receiver) = mpsc::channel::<(Instant, Vec<u8>)>(QUEUE);
    let delays = watching.clone();
    let read = async move {
        loop {
            let mut bytes = vec![0; 16 * 1024];
            match from.read(&mut bytes).await {
                Ok(0) | Err(_) => return,
                Ok(length) => bytes.truncate(length),
            }
            let due = Instant::now() + delays.borrow().delay;
            if sender.send((due, bytes)).await.is_err() {
                return;
            }
        }
    };
    let write = async move {
        while let Some((due, bytes)) = receiver.recv().await {
            sleep_until(due).await;
            opened(&mut watching).await;
            if to.write_all(&bytes).await.is_err() {
                return;
            }
        }
    };
    // The reader's end lets the writer finish what is in flight.
    tokio::join!(read, write);
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn echo() -> u16 {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        tokio::spawn(async move {
            loop {
                let (mut socket, _) = listener.accept().await.unwrap();
                tokio::spawn(async move {
                    let (mut read, mut write) = socket.split();
                    tokio::io::copy(&mut read, &mut write).await.ok();
                });
            }
        });
        port
    }

    async fn ask(socket: &mut TcpStream) -> std::io::Result<Duration> {
        let began = Instant::now();
        socket.write_all(b"x").await?;
        socket.read_exact(&mut [0]).await?;
        Ok(began.elapsed())
    }

    #[tokio::test]
    async fn it_delays_blocks_and_cuts() {
        let proxy = Proxy::start(echo().await).await.unwrap();
        let mut socket = TcpStream::connect((Ipv4Addr::LOCALHOST, proxy.port)).await.unwrap();
        ask(&mut socket).await.unwrap();
        proxy.delay(Duration::from_millis(60));
        let took = ask(&mut socket).await.unwrap();
        assert!(took >= Duration::from_millis(120), "{took:?}");
        proxy.delay(Duration::ZERO);
        proxy.block();
        socket.write_all(b"y").await.unwrap();
        let waited = timeout(Duration::from_millis(100), socket.read_exact(&mut [0])).await;
        assert!(waited.is_err(), "nothing passes a partition");
        proxy.unblock();
        timeout(Duration::from_secs(5), socket.read_exact(&mut [0])).await.unwrap().unwrap();
        proxy.cut();
        let ended = timeout(Duration::from_secs(5), socket.read(&mut [0])).await.unwrap();
        assert!(matches!(ended, Ok(0) | Err(_)));
    }
}
