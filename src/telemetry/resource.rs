//! What is known about the process (OpenTelemetry semantic conventions 1.45, "Resource").

use std::net::{Ipv4Addr, UdpSocket};
use std::sync::OnceLock;

use throughline_core::TraceId;
use throughline_core::trace::{Attributes, Resource};

/// The resource of `service`; what `given` says comes first, except for the name.
pub(super) fn resource(service: &str, custom: impl IntoIterator<Item = (String, String)>) -> Resource {
    let mut attributes = Attributes::new();
    attributes.set("service.name", service.to_owned());
    attributes.set("service.instance.id", uuid(TraceId::random().to_bytes()));
    attributes.set("telemetry.sdk.name", "throughline");
    attributes.set("telemetry.sdk.language", "rust");
    attributes.set("telemetry.sdk.version", env!("CARGO_PKG_VERSION"));
    attributes.set("process.pid", i64::from(std::process::id()));
    attributes.set("host.name", host_name());
    attributes.set("ip", ip());
    for (key, value) in custom {
        if key != "service.name" {
            attributes.set(key, value);
        }
    }
    Resource::new(attributes)
}

/// A random UUID, version 4 (RFC 9562, 5.4), of so many random bytes.
fn uuid(mut bytes: [u8; 16]) -> String {
    bytes[6] = bytes[6] & 0x0F | 0x40;
    bytes[8] = bytes[8] & 0x3F | 0x80;
    let hex = format!("{:032x}", u128::from_be_bytes(bytes));
    [&hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..]].join("-")
}

/// Not one of OpenTelemetry's names, but the one by which Jaeger's query API tells hosts apart: without it, a message that was dealt with
/// after its sender's span had ended looks to it like one from a host whose clock is ahead.
fn ip() -> &'static str {
    static IP: OnceLock<String> = OnceLock::new();
    IP.get_or_init(|| {
        // To connect a socket of this kind sends nothing: it asks the routing table which of our addresses would be the sender's. The
        // other one is of those reserved for documentation (RFC 5737).
        let local = UdpSocket::bind("0.0.0.0:0").and_then(|socket| {
            socket.connect("192.0.2.1:9")?;
            socket.local_addr()
        });
        local.map_or(Ipv4Addr::LOCALHOST.into(), |address| address.ip()).to_string()
    })
}

/// One for the process, whatever happens to the host meanwhile: Jaeger takes a second one for a clock to be corrected.
fn host_name() -> &'static str {
    static NAME: OnceLock<String> = OnceLock::new();
    NAME.get_or_init(|| {
        let name = gethostname::gethostname().to_string_lossy().into_owned();
        if name.is_empty() { "unknown".to_owned() } else { name }
    })
}
