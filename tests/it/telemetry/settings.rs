//! The `OTEL_*` variables.

use throughline::Context;
use throughline::telemetry::{self, MemoryExporter, TelemetryGuard};
use throughline::trace::{SpanLimits, Value};

use crate::support::collector::Collector;
use crate::support::{PATIENCE, output_of_own_process};

fn with(variables: &[(&str, &str)], memory: &MemoryExporter) -> TelemetryGuard {
    let get = |name: &str| variables.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned());
    telemetry::builder("cards").exporter(memory.clone()).from_variables(&get).build().unwrap()
}

async fn record(variables: &[(&str, &str)]) -> MemoryExporter {
    let memory = MemoryExporter::default();
    let telemetry = with(variables, &memory);
    let ctx = Context::background().with_tracer(telemetry.tracer());
    ctx.span("work").attribute("a", 1).attribute("b", "long text").start().end();
    telemetry.shutdown(PATIENCE).await.unwrap();
    memory
}

#[tokio::test]
async fn a_disabled_sdk_propagates_and_records_nothing() {
    let memory = MemoryExporter::default();
    let telemetry = with(&[("OTEL_SDK_DISABLED", "TRUE")], &memory);
    let span = Context::background().with_tracer(telemetry.tracer()).span("work").start();
    assert!(span.span_context().is_some() && !span.is_recording());
    span.end();
    telemetry.shutdown(PATIENCE).await.unwrap();
    assert_eq!(memory.spans().len(), 0);
}

#[test]
fn a_disabled_sdk_ignores_an_invalid_endpoint() {
    for endpoint in ["https://collector:4318", "localhost:4318"] {
        let variables = [("OTEL_SDK_DISABLED", "true"), ("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint)];
        let telemetry = with(&variables, &MemoryExporter::default());
        let span = Context::background().with_tracer(telemetry.tracer()).span("work").start();
        assert!(!span.is_recording(), "{endpoint}");
    }
}

#[tokio::test]
async fn resource_attributes_are_decoded() {
    let memory = record(&[("OTEL_RESOURCE_ATTRIBUTES", " zone = eu%2Dwest ,odd,=x")]).await;
    let resource = &memory.batches()[0].resource;
    assert_eq!(resource.service_name(), Some("cards"));
    assert_eq!(resource.attributes.get("zone"), Some(&Value::from("eu-west")));
    assert!(resource.attributes.get("host.name").is_some() && resource.attributes.get("telemetry.sdk.name").is_some());
}

#[tokio::test]
async fn a_service_is_named_by_its_variable_or_its_resource_attribute_or_the_code() {
    for (variable, attributes, name) in [
        ("", "", "cards"),
        ("", "zone=a", "cards"),
        ("", "zone=a,service.name=pay%20ments", "pay ments"),
        ("", "service.name=", "cards"),
        ("ledger", "service.name=payments", "ledger"),
        ("ledger", "", "ledger"),
    ] {
        let variables = [("OTEL_SERVICE_NAME", variable), ("OTEL_RESOURCE_ATTRIBUTES", attributes)];
        let memory = record(&variables).await;
        assert_eq!(memory.batches()[0].resource.service_name(), Some(name), "{variables:?}");
    }
}

#[tokio::test]
async fn the_service_instance_id_is_a_random_uuid() {
    let id = async || {
        let memory = record(&[]).await;
        memory.batches()[0].resource.attributes.get("service.instance.id").unwrap().as_str().unwrap().to_owned()
    };
    let (first, second) = (id().await, id().await);
    assert_ne!(first, second);
    for id in [first, second] {
        let lengths: Vec<_> = id.split('-').map(str::len).collect();
        assert_eq!(lengths, [8, 4, 4, 4, 12], "{id}");
        assert!(id.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f' | b'-')), "{id}");
        assert!(id[14..].starts_with('4') && id[19..].starts_with(['8', '9', 'a', 'b']), "version 4: {id}");
    }
}

#[tokio::test]
async fn samplers_are_chosen_by_name() {
    let count = async |sampler: &[(&str, &str)]| record(sampler).await.spans().len();
    assert_eq!(count(&[("OTEL_TRACES_SAMPLER", "always_off")]).await, 0);
    assert_eq!(count(&[("OTEL_TRACES_SAMPLER", "always_on")]).await, 1);
    assert_eq!(count(&[("OTEL_TRACES_SAMPLER", "traceidratio"), ("OTEL_TRACES_SAMPLER_ARG", "0")]).await, 0);
    assert_eq!(
        count(&[("OTEL_TRACES_SAMPLER", "parentbased_traceidratio"), ("OTEL_TRACES_SAMPLER_ARG", "1.0")]).await,
        1
    );
    assert_eq!(count(&[("OTEL_TRACES_SAMPLER", "nonsense")]).await, 1, "an invalid value is ignored");
    assert_eq!(count(&[("OTEL_TRACES_SAMPLER", "traceidratio"), ("OTEL_TRACES_SAMPLER_ARG", "7")]).await, 1);
    assert_eq!(count(&[("OTEL_TRACES_SAMPLER", "")]).await, 1, "an empty value counts as not set");
}

#[tokio::test]
async fn span_limits_are_read() {
    let memory = record(&[("OTEL_SPAN_ATTRIBUTE_COUNT_LIMIT", "1")]).await;
    assert_eq!((memory.spans()[0].attributes.len(), memory.spans()[0].dropped_attributes_count), (1, 1));
    let memory = record(&[("OTEL_ATTRIBUTE_VALUE_LENGTH_LIMIT", "4"), ("OTEL_SPAN_EVENT_COUNT_LIMIT", "-1")]).await;
    assert_eq!(memory.spans()[0].attributes.get("b"), Some(&Value::from("long")));
}

#[tokio::test]
async fn limits_without_a_variable_keep_the_value_of_the_builder() {
    let memory = MemoryExporter::default();
    let limits = SpanLimits { attributes: 1, value_length: 4, ..SpanLimits::DEFAULT };
    let get = |name: &str| (name == "OTEL_SPAN_ATTRIBUTE_VALUE_LENGTH_LIMIT").then(|| "2".to_owned());
    let builder = telemetry::builder("cards").exporter(memory.clone()).limits(limits);
    let telemetry = builder.from_variables(&get).build().unwrap();
    let ctx = Context::background().with_tracer(telemetry.tracer());
    ctx.span("work").attribute("a", "long text").attribute("b", 2).start().end();
    telemetry.shutdown(PATIENCE).await.unwrap();
    let span = &memory.spans()[0];
    assert_eq!((span.attributes.len(), span.dropped_attributes_count), (1, 1));
    assert_eq!(span.attributes.get("a"), Some(&Value::from("lo")), "the variable replaces the value of the builder");
}

#[tokio::test]
async fn a_timeout_of_0_is_no_limit() {
    for name in ["OTEL_EXPORTER_OTLP_TIMEOUT", "OTEL_EXPORTER_OTLP_TRACES_TIMEOUT", "OTEL_BSP_EXPORT_TIMEOUT"] {
        let collector = Collector::default();
        let endpoint = format!("http://{}", collector.http().await);
        record(&[("OTEL_EXPORTER_OTLP_ENDPOINT", &endpoint), (name, "0")]).await;
        assert_eq!(collector.received().len(), 1, "{name}");
    }
}

#[tokio::test]
async fn an_endpoint_adds_an_exporter_of_the_configured_protocol() {
    for (protocol, address) in [("http/protobuf", true), ("grpc", false), ("", true), ("http/json", true)] {
        let collector = Collector::default();
        let address = if address { collector.http().await } else { collector.grpc().await };
        let endpoint = format!("http://{address}/");
        record(&[
            ("OTEL_EXPORTER_OTLP_ENDPOINT", &endpoint),
            ("OTEL_EXPORTER_OTLP_PROTOCOL", protocol),
            ("OTEL_EXPORTER_OTLP_HEADERS", "x-tenant=a%20b"),
            ("OTEL_EXPORTER_OTLP_TRACES_TIMEOUT", "5000"),
        ])
        .await;
        assert_eq!(collector.received().len(), 1, "{protocol}");
        assert_eq!(collector.headers.lock().unwrap()[0]["x-tenant"], "a b");
    }
}

#[test]
fn an_invalid_endpoint_is_an_error_that_names_it() {
    let get = |name: &str| (name == "OTEL_EXPORTER_OTLP_ENDPOINT").then(|| "localhost:4318".to_owned());
    let error = telemetry::builder("cards").from_variables(&get).build().unwrap_err();
    assert!(error.to_string().contains("localhost:4318") && error.to_string().contains("http://"), "{error}");
}

#[tokio::test]
async fn unknown_exporters_in_the_list_are_ignored() {
    for (list, count) in [("otlp", 1), ("none", 0), ("console, otlp", 1), ("none,console", 0), ("console", 1), ("", 1)]
    {
        let collector = Collector::default();
        let endpoint = format!("http://{}", collector.http().await);
        record(&[("OTEL_EXPORTER_OTLP_ENDPOINT", &endpoint), ("OTEL_TRACES_EXPORTER", list)]).await;
        assert_eq!(collector.received().len(), count, "{list:?}");
    }
}

#[tokio::test]
async fn a_grpc_endpoint_needs_no_scheme_when_insecure_is_set() {
    let collector = Collector::default();
    let endpoint = collector.grpc().await.to_string();
    let mut variables = vec![
        ("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint.as_str()),
        ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc"),
        ("OTEL_EXPORTER_OTLP_INSECURE", "true"),
    ];
    record(&variables).await;
    assert_eq!(collector.received().len(), 1);
    variables.pop();
    let get = |name: &str| variables.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned());
    assert!(telemetry::builder("cards").from_variables(&get).build().is_err(), "TLS is the default");
}

/// It checks the stderr of a process, so it runs in its own process.
#[test]
fn unsupported_and_invalid_variables_are_reported_on_stderr() {
    const CASES: [(&str, &str, &str); 15] = [
        ("OTEL_EXPORTER_OTLP_COMPRESSION", "gzip", "compression is not supported"),
        ("OTEL_EXPORTER_OTLP_TRACES_COMPRESSION", "zstd", "neither gzip nor none"),
        ("OTEL_EXPORTER_OTLP_CERTIFICATE", "/ca.pem", "TLS is not supported"),
        ("OTEL_EXPORTER_OTLP_CLIENT_KEY", "/key.pem", "TLS is not supported"),
        ("OTEL_EXPORTER_OTLP_TRACES_CLIENT_CERTIFICATE", "/client.pem", "TLS is not supported"),
        ("OTEL_EXPORTER_OTLP_INSECURE", "yes", "neither true nor false"),
        ("OTEL_EXPORTER_OTLP_PROTOCOL", "http/json", "neither grpc nor http/protobuf"),
        ("OTEL_EXPORTER_OTLP_TIMEOUT", "10s", "invalid digit"),
        ("OTEL_TRACES_EXPORTER", "console", "unknown exporter"),
        ("OTEL_TRACES_SAMPLER", "sometimes", "unknown sampler"),
        ("OTEL_BSP_MAX_QUEUE_SIZE", "0", "more than 0"),
        ("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "0", "more than 0"),
        ("OTEL_BSP_SCHEDULE_DELAY", "-1", "invalid digit"),
        ("OTEL_SPAN_LINK_COUNT_LIMIT", "many", "invalid digit"),
        ("OTEL_SDK_DISABLED", "1", "neither true nor false"),
    ];
    let test = "telemetry::settings::unsupported_and_invalid_variables_are_reported_on_stderr";
    let Some(output) = output_of_own_process(test, |_| {}) else {
        for (name, value, _) in CASES {
            let variables = [(name, value), ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://localhost:4318")];
            drop(with(&variables, &MemoryExporter::default()));
        }
        drop(with(&[("OTEL_EXPORTER_OTLP_COMPRESSION", "none")], &MemoryExporter::default()));
        return;
    };
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{stderr}");
    let warnings: Vec<_> = stderr.lines().filter(|line| line.starts_with("throughline: ")).collect();
    assert_eq!(warnings.len(), CASES.len(), "{stderr}");
    for ((name, value, reason), warning) in CASES.iter().zip(warnings) {
        assert!(warning.starts_with(&format!("throughline: {name}={value:?} is ignored: ")), "{warning}");
        assert!(warning.contains(reason), "{warning}");
    }
}
