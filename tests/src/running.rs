//! [`Running`]: a server of any application, within the test.

use actix_web::dev::ServerHandle;

use crate::Server;

/// A server that was started by [`start_server`](crate::start_server). It is stopped when it is dropped.
#[derive(Debug)]
pub struct Running {
    /// Its port on 127.0.0.1.
    pub port: u16,
    /// Its handle.
    pub handle: ServerHandle,
}

impl Server for Running {
    fn port(&self) -> u16 {
        self.port
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        drop(self.handle.stop(false));
    }
}

/// Starts an application on a server of a [`ServerKind`](crate::ServerKind): `start_server!(kind, app, workers(1), ..)`,
/// with calls of methods that both kinds have.
#[macro_export]
macro_rules! start_server {
    ($kind:expr, $app:expr $(, $method:ident($($argument:expr),*))*) => {{
        let listener = ::std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let server = match $kind {
            $crate::ServerKind::Realtime => {
                ::realtime_server::HttpServer::new($app)
                    .disable_signals()
                    $(.$method($($argument),*))*
                    .listen(listener)
                    .unwrap()
                    .run()
            }
            $crate::ServerKind::Actix => {
                ::actix_web::HttpServer::new($app)
                    .disable_signals()
                    $(.$method($($argument),*))*
                    .listen(listener)
                    .unwrap()
                    .run()
            }
            $crate::ServerKind::Axum => panic!("this test has an application of actix-web"),
        };
        let handle = server.handle();
        ::actix_web::rt::spawn(server);
        $crate::Running { port, handle }
    }};
}
