//! Event streams over TLS, where browsers use HTTP/2: all pages of a browser share one connection, and the limit of six
//! streams per server is gone. `cargo run -p realtime-examples --bin tls -- cert.pem key.pem`.
//!
//! For a certificate to try it with:
//! `openssl req -x509 -newkey rsa:2048 -nodes -subj /CN=localhost -keyout key.pem -out cert.pem`

use std::{env, error::Error, sync::Arc, time::SystemTime};

use actix_web::App;
use realtime_server::HttpServer;
use realtime_sse::{
    Hub, SseConfig,
    auth::{Claims, JwtAlgorithm, JwtAuthenticator},
    routes,
};
use rustls::{
    ServerConfig,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
};

#[actix_web::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let [certificate, key, rest @ ..] = arguments.as_slice() else {
        return Err("usage: tls <certificate chain, PEM> <private key, PEM> [address]".into());
    };
    rustls::crypto::ring::default_provider().install_default().map_err(|_| "there is a provider already")?;
    let chain = CertificateDer::pem_file_iter(certificate)?.collect::<Result<_, _>>()?;
    let key = PrivateKeyDer::from_pem_file(key)?;
    let tls = ServerConfig::builder().with_no_client_auth().with_single_cert(chain, key)?;

    let hub = Hub::builder().start()?;
    let jwt = Arc::new(JwtAuthenticator::new(JwtAlgorithm::Hs256, "a secret of at least 32 bytes ....")?);
    let exp = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH)?.as_secs() + 3600;
    let token = jwt.sign(&Claims::new(42, exp))?;

    // The connections stay with the HTTP server: it encrypts them, and HTTP/2 has many streams in one.
    let published = hub.clone();
    let server =
        HttpServer::new(move || App::new().configure(routes(hub.clone(), jwt.clone(), SseConfig::default())))
            .bind_rustls_0_23(rest.first().map_or("127.0.0.1:8443", String::as_str), tls)?;

    let address = server.addrs()[0];
    eprintln!("listening on {address}");
    eprintln!("open the stream: curl -kN 'https://{address}/resource/sse?Authorization={token}'");
    actix_web::rt::spawn(async move {
        loop {
            actix_web::rt::time::sleep(std::time::Duration::from_secs(1)).await;
            if let Err(error) = published.publish_to_user(42, "a second has passed").await {
                eprintln!("{error}");
            }
        }
    });
    server.run().await?;
    Ok(())
}
