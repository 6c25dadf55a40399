//! [`Exporter`]: spans by OTLP to the address in the environment, for as long as it is kept.

use std::{env, pin::Pin, sync::Arc, time::Duration};

use actix_web::web::Bytes;
use anyhow::{Context, bail};
use opentelemetry::global;
use opentelemetry_http::{HttpClient, HttpError, Request, Response};
use opentelemetry_otlp::{Protocol, SpanExporter, WithExportConfig, WithHttpConfig};
use opentelemetry_sdk::{Resource, trace::SdkTracerProvider};
use ureq::{
    Agent,
    tls::{Certificate, RootCerts, TlsConfig},
};

/// Exporter of spans. Its drop waits until the last ones have been sent, for a bounded time.
#[derive(Debug)]
pub(crate) struct Exporter(SdkTracerProvider);

/// Addresses of a collector, the stronger first.
const ADDRESSES: [&str; 2] = ["OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT"];
/// Their protocols.
const PROTOCOLS: [&str; 2] = ["OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL"];
/// Name of the service, unless `OTEL_SERVICE_NAME` or `OTEL_RESOURCE_ATTRIBUTES` has one.
const SERVICE: &str = "realtime-demo";
/// Time for the last spans to be sent.
const LAST_SPANS: Duration = Duration::from_secs(3);
/// Maximum size of an answer in bytes.
const MAX_ANSWER: u64 = 1 << 20;

impl Exporter {
    /// Starts it if the environment has an address. Its other variables of OpenTelemetry count as well, except for the
    /// protocol, which is `http/protobuf`.
    ///
    /// # Errors
    /// When a variable is invalid, or there are no trusted authorities for `https`.
    pub(crate) fn start() -> anyhow::Result<Option<Self>> {
        let Some(exporter) = of_environment()? else { return Ok(None) };
        let mut resource = Resource::builder();
        let attributes = variable("OTEL_RESOURCE_ATTRIBUTES").unwrap_or_default();
        if variable("OTEL_SERVICE_NAME").is_none() && !attributes.contains("service.name=") {
            resource = resource.with_service_name(SERVICE);
        }
        let provider =
            SdkTracerProvider::builder().with_batch_exporter(exporter).with_resource(resource.build());
        let provider = provider.build();
        global::set_tracer_provider(provider.clone());
        tracing::info!("spans of published messages are exported by OTLP");
        Ok(Some(Self(provider)))
    }

    /// Checks the variables without starting anything.
    ///
    /// # Errors
    /// Those of [`start`](Self::start).
    pub(crate) fn check() -> anyhow::Result<()> {
        of_environment().map(drop)
    }
}

impl Drop for Exporter {
    fn drop(&mut self) {
        if let Err(error) = self.0.shutdown_with_timeout(LAST_SPANS) {
            tracing::warn!(%error, "the last spans may not have been exported");
        }
    }
}

/// What sends spans to the address of the environment, if it has one.
fn of_environment() -> anyhow::Result<Option<SpanExporter>> {
    let is_off = variable("OTEL_SDK_DISABLED").is_some_and(|it| it.eq_ignore_ascii_case("true"))
        || variable("OTEL_TRACES_EXPORTER").is_some_and(|it| it == "none");
    let Some(address) = ADDRESSES.into_iter().find_map(variable).filter(|_| !is_off) else {
        return Ok(None);
    };
    for name in PROTOCOLS {
        if let Some(protocol) = variable(name).filter(|protocol| protocol != "http/protobuf") {
            bail!("environment variable {name}: `{protocol}` is unsupported, expected http/protobuf");
        }
    }
    let exporter = SpanExporter::builder()
        .with_http()
        .with_protocol(Protocol::HttpBinary)
        .with_http_client(Client::new(address.starts_with("https:"))?)
        .build()
        .context("environment variables OTEL_EXPORTER_OTLP_*")?;
    Ok(Some(exporter))
}

/// The value of a variable that is set.
fn variable(name: &str) -> Option<String> {
    env::var(name).ok().map(|value| value.trim().to_owned()).filter(|value| !value.is_empty())
}

/// The client of the exporter, which waits for answers on a thread of its own.
#[derive(Debug)]
struct Client(Agent);

impl Client {
    fn new(is_https: bool) -> anyhow::Result<Self> {
        let mut config = Agent::config_builder()
            .timeout_global(Some(Duration::from_secs(10)))
            .max_redirects(0)
            .max_redirects_will_error(false)
            .http_status_as_error(false)
            .user_agent("realtime-demo");
        if is_https {
            let found = rustls_native_certs::load_native_certs();
            if found.certs.is_empty() {
                bail!("the exporter of spans: no trusted authorities found ({:?})", found.errors);
            }
            let certs = found.certs.iter().map(|cert| Certificate::from_der(cert).to_owned());
            let provider = Arc::new(rustls::crypto::ring::default_provider());
            let tls = TlsConfig::builder().root_certs(RootCerts::from(certs));
            config = config.tls_config(tls.unversioned_rustls_crypto_provider(provider).build());
        }
        Ok(Self(config.build().new_agent()))
    }
}

impl HttpClient for Client {
    fn send_bytes<'a, 'b>(
        &'a self,
        request: Request<Bytes>,
    ) -> Pin<Box<dyn Future<Output = Result<Response<Bytes>, HttpError>> + Send + 'b>>
    where
        'a: 'b,
        Self: 'b,
    {
        Box::pin(async move {
            let (head, mut body) = self.0.run(request.map(|body| body.to_vec()))?.into_parts();
            let body = body.with_config().limit(MAX_ANSWER).read_to_vec()?;
            Ok(Response::from_parts(head, body.into()))
        })
    }
}
