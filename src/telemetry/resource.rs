//! What is known about the process (OpenTelemetry semantic conventions 1.45, "Resource").

use std::sync::OnceLock;

use throughline_core::TraceId;
use throughline_core::trace::{Attributes, Resource};

/// The resource of `service`; what `given` says comes first, except for the name.
pub(super) fn resource(service: &str, given: impl IntoIterator<Item = (String, String)>) -> Resource {
    let mut attributes = Attributes::new();
    attributes.set("service.name", service.to_owned());
    attributes.set("service.instance.id", TraceId::random().to_string());
    attributes.set("telemetry.sdk.name", "throughline");
    attributes.set("telemetry.sdk.language", "rust");
    attributes.set("telemetry.sdk.version", env!("CARGO_PKG_VERSION"));
    attributes.set("process.pid", i64::from(std::process::id()));
    attributes.set("host.name", host_name());
    for (key, value) in given {
        if key != "service.name" {
            attributes.set(key, value);
        }
    }
    Resource::new(attributes)
}

/// One for the process, whatever happens to the host meanwhile: Jaeger takes a second one for a clock to be corrected.
fn host_name() -> &'static str {
    static NAME: OnceLock<String> = OnceLock::new();
    NAME.get_or_init(|| {
        let name = gethostname::gethostname().to_string_lossy().into_owned();
        if name.is_empty() { "unknown".to_owned() } else { name }
    })
}
