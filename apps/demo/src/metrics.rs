//! `/metrics`: counters, gauges and timings for Prometheus, at `server.internal`.

use std::{sync::OnceLock, time::Duration};

use actix_web::{
    HttpResponse,
    web::{self, Data, ServiceConfig},
};
use anyhow::Context;
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};
use metrics_process::Collector;
use tokio::{
    task::JoinHandle,
    time::{MissedTickBehavior, interval},
};

use crate::state::State;

/// The recorder of the process.
static RECORDER: OnceLock<PrometheusHandle> = OnceLock::new();

/// Upper bounds of the timings, in seconds. Deliveries take microseconds, an outage of Redis takes seconds.
const SECONDS: [f64; 16] =
    [25e-6, 1e-4, 25e-5, 5e-4, 1e-3, 25e-4, 5e-3, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0];

/// Time after which timings that nobody has asked for are added up.
const UPKEEP: Duration = Duration::from_secs(5);

/// Recorder of the process's metrics; its timings are added up while it is kept.
pub(crate) struct Recorder(JoinHandle<()>);

impl Recorder {
    /// Installs the recorder. To be called before the hub starts.
    ///
    /// # Errors
    /// When the process has another recorder.
    pub(crate) fn install() -> anyhow::Result<Self> {
        if RECORDER.get().is_none() {
            let builder = PrometheusBuilder::new()
                .set_buckets_for_metric(Matcher::Suffix("_seconds".into()), &SECONDS)?;
            let handle = builder.install_recorder().context("failed to install the recorder of metrics")?;
            Collector::default().describe();
            RECORDER.set(handle).ok();
        }
        Ok(Self(tokio::spawn(async {
            let mut timer = interval(UPKEEP);
            timer.set_missed_tick_behavior(MissedTickBehavior::Delay);
            loop {
                timer.tick().await;
                RECORDER.get().inspect(|handle| handle.run_upkeep());
            }
        })))
    }
}

impl Drop for Recorder {
    fn drop(&mut self) {
        self.0.abort();
    }
}

pub(crate) fn routes(services: &mut ServiceConfig) {
    services.service(web::resource("/metrics").get(metrics));
}

/// Render the metrics for Prometheus.
///
/// Needs no key: it is at `server.internal` alone.
#[utoipa::path(
    get,
    path = "/metrics",
    operation_id = "getMetrics",
    tag = "health",
    responses((status = 200, description = "The text format of Prometheus.", body = String, content_type = "text/plain")),
    security(()),
)]
pub(crate) async fn metrics(state: Data<State>) -> HttpResponse {
    let Some(handle) = RECORDER.get() else { return HttpResponse::NotFound().finish() };
    state.hub.record_metrics_within(state.config.health.grace).await;
    Collector::default().collect();
    HttpResponse::Ok().content_type("text/plain; version=0.0.4; charset=utf-8").body(handle.render())
}
