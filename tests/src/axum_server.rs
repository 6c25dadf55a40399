//! [`AxumServer`]: axum's server on a runtime of its own.

use std::{net::SocketAddr, time::Duration};

use axum::{Router, serve::ListenerExt};
use realtime_axum::socket_options;
use socket2::SockRef;
use tokio::{
    net::TcpListener,
    runtime::{Builder, Runtime},
};

/// A server of a router, with two threads as the other servers have two workers. It is broken off when it is dropped.
#[derive(Debug)]
pub struct AxumServer {
    runtime: Option<Runtime>,
}

impl AxumServer {
    /// Starts a server. With `send_buffer`, its sockets hold about that many bytes.
    pub fn start(
        listener: std::net::TcpListener,
        router: Router,
        max_stall: Duration,
        send_buffer: Option<usize>,
    ) -> Self {
        let runtime = Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        listener.set_nonblocking(true).unwrap();
        runtime.spawn(async move {
            let listener = TcpListener::from_std(listener).unwrap().tap_io(move |tcp| {
                socket_options(tcp, max_stall);
                if let Some(bytes) = send_buffer {
                    SockRef::from(&*tcp).set_send_buffer_size(bytes).unwrap();
                }
            });
            axum::serve(listener, router.into_make_service_with_connect_info::<SocketAddr>()).await
        });
        Self { runtime: Some(runtime) }
    }
}

impl Drop for AxumServer {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            // A test's own runtime must not wait for another.
            runtime.shutdown_background();
        }
    }
}
