//! OpenTelemetry, enabled by OTEL_EXPORTER_OTLP_ENDPOINT or its variant for traces: each run is a span. The standard's own
//! variables set everything else (headers, timeouts, resource).

use std::time::Duration;

use opentelemetry::trace::TracerProvider as _;
use opentelemetry_otlp::{Protocol, SpanExporter, WithExportConfig as _, WithHttpConfig as _};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::SdkTracerProvider;
use reqwest::redirect::Policy;
use tracing::Subscriber;
use tracing_subscriber::Layer;
use tracing_subscriber::filter::filter_fn;
use tracing_subscriber::registry::LookupSpan;

/// The target of spans that are exported.
pub const TARGET: &str = "pgtend::telemetry";

/// The variables that enable it; each holds a URL.
pub const ASKED_FOR_BY: [&str; 2] = ["OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT"];

/// The timeouts are in milliseconds; the exporter leaves them to the client that it is given.
const TIMEOUTS: [&str; 2] = ["OTEL_EXPORTER_OTLP_TRACES_TIMEOUT", "OTEL_EXPORTER_OTLP_TIMEOUT"];

/// Keeps the export going; dropping it sends the rest, for some seconds at most.
pub struct Telemetry(SdkTracerProvider);

impl Drop for Telemetry {
    fn drop(&mut self) {
        // An unreachable collector is no reason to fail.
        let _ = self.0.shutdown_with_timeout(Duration::from_secs(5));
    }
}

/// Returns `None` when it is not enabled. It must be called before the runtime starts: the exporter has threads of its own.
pub fn start<S: Subscriber + for<'a> LookupSpan<'a>>() -> (Option<Telemetry>, Option<impl Layer<S>>) {
    if !ASKED_FOR_BY.iter().any(|name| std::env::var_os(name).is_some_and(|value| !value.is_empty())) {
        return (None, None);
    }
    let _ = rustls::crypto::ring::default_provider().install_default();
    // A span is for the named collector only, so redirects are not followed.
    let client = reqwest::blocking::Client::builder().redirect(Policy::none()).timeout(timeout()).build();
    let exporter = client.map_err(|error| error.to_string()).and_then(|client| {
        let builder = SpanExporter::builder().with_http().with_protocol(Protocol::HttpBinary).with_http_client(client);
        builder.build().map_err(|error| error.to_string())
    });
    let exporter = match exporter {
        Ok(exporter) => exporter,
        Err(error) => {
            crate::base::terminal::say(&format!("pgtend: OpenTelemetry is off: {error}"));
            return (None, None);
        }
    };
    // The builder reads OTEL_SERVICE_NAME.
    let resource = match std::env::var_os("OTEL_SERVICE_NAME") {
        Some(_) => Resource::builder().build(),
        None => Resource::builder().with_service_name("pgtend").build(),
    };
    let provider = SdkTracerProvider::builder().with_batch_exporter(exporter).with_resource(resource).build();
    let layer = tracing_opentelemetry::layer().with_tracer(provider.tracer("pgtend"));
    (Some(Telemetry(provider)), Some(layer.with_filter(filter_fn(|metadata| metadata.target() == TARGET))))
}

/// Returns the standard's timeout: 10 s unless a variable sets it.
fn timeout() -> Duration {
    let set = TIMEOUTS.iter().find_map(|name| std::env::var(name).ok()?.trim().parse().ok());
    Duration::from_millis(set.unwrap_or(10_000))
}
