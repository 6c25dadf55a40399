//! Metrics for Prometheus, at an address of their own: `cargo run -p realtime-examples --bin measured`.

use std::{
    env,
    error::Error,
    sync::Arc,
    time::{Duration, SystemTime},
};

use actix_web::{
    App,
    web::{self, Data},
};
use futures_util::try_join;
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};
use realtime_websocket::{
    HttpServer, Hub, WebSocketConfig,
    auth::{Claims, JwtAlgorithm, JwtAuthenticator},
    routes,
};

/// Upper bounds of the timings, in seconds.
const SECONDS: [f64; 9] = [0.0001, 0.0005, 0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 2.5];

#[actix_web::main]
async fn main() -> Result<(), Box<dyn Error>> {
    // Before the hub, which describes and records what it does from its start. Any exporter of the facade `metrics` will do.
    let builder =
        PrometheusBuilder::new().set_buckets_for_metric(Matcher::Suffix("_seconds".into()), &SECONDS)?;
    let prometheus = builder.install_recorder()?;
    let upkeep = prometheus.clone();
    actix_web::rt::spawn(async move {
        // Timings are added up now and then, also while nobody asks for them.
        loop {
            tokio::time::sleep(Duration::from_secs(5)).await;
            upkeep.run_upkeep();
        }
    });

    let hub = Hub::builder().start()?;
    let jwt = Arc::new(JwtAuthenticator::new(JwtAlgorithm::Hs256, "a secret of at least 32 bytes ....")?);
    let exp = SystemTime::UNIX_EPOCH.elapsed()?.as_secs() + 3600;
    let token = jwt.sign(&Claims::new(42, exp))?;
    let measured = hub.clone();
    let server = HttpServer::new(move || {
        App::new().configure(routes(hub.clone(), jwt.clone(), WebSocketConfig::default()))
    })
    .bind(env::args().nth(1).as_deref().unwrap_or("127.0.0.1:8080"))?;

    // For Prometheus and not for clients: in production, an address of the inner network.
    let internal = actix_web::HttpServer::new(move || {
        App::new()
            .app_data(Data::new(measured.clone()))
            .app_data(Data::new(prometheus.clone()))
            .route("/metrics", web::get().to(metrics))
    })
    .workers(1)
    .bind("127.0.0.1:0")?;

    let address = server.addrs()[0];
    eprintln!("listening on {address}");
    eprintln!("connect: ws://{address}/resource/websocket?Authorization={token}");
    eprintln!("metrics: http://{}/metrics", internal.addrs()[0]);
    try_join!(server.run(), internal.run())?;
    Ok(())
}

async fn metrics(hub: Data<Hub>, prometheus: Data<PrometheusHandle>) -> String {
    hub.record_metrics().await;
    prometheus.render()
}
