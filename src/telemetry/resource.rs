//! The resource of the process (OpenTelemetry semantic conventions 1.45, "Resource").

use std::net::{Ipv4Addr, UdpSocket};
use std::sync::OnceLock;

use throughline_core::TraceId;
use throughline_core::trace::{Attributes, Resource};

/// Makes the resource of `service`. `custom` replaces all attributes except the name.
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

/// Makes a UUID, version 4 (RFC 9562, 5.4), from random bytes.
fn uuid(mut bytes: [u8; 16]) -> String {
    bytes[6] = bytes[6] & 0x0F | 0x40;
    bytes[8] = bytes[8] & 0x3F | 0x80;
    let hex = format!("{:032x}", u128::from_be_bytes(bytes));
    [&hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..]].join("-")
}

/// Returns the IP address of this host, for the attribute `ip`.
///
/// `ip` is not an OpenTelemetry name. Jaeger's query API uses it to distinguish hosts. Without it,
/// a message that is handled after the sender's span has ended looks to Jaeger as if it came from a
/// host whose clock is ahead.
fn ip() -> &'static str {
    static IP: OnceLock<String> = OnceLock::new();
    IP.get_or_init(|| {
        // Connecting a UDP socket sends nothing. It only looks up the local address in the routing
        // table. The remote address is reserved for documentation (RFC 5737).
        let local = UdpSocket::bind("0.0.0.0:0").and_then(|socket| {
            socket.connect("192.0.2.1:9")?;
            socket.local_addr()
        });
        local.map_or(Ipv4Addr::LOCALHOST.into(), |address| address.ip()).to_string()
    })
}

/// Returns the host name, which stays the same for the whole process.
///
/// If the name changed, Jaeger would take it for a second host and correct its clock.
fn host_name() -> &'static str {
    static NAME: OnceLock<String> = OnceLock::new();
    NAME.get_or_init(|| {
        let name = gethostname::gethostname().to_string_lossy().into_owned();
        if name.is_empty() { "unknown".to_owned() } else { name }
    })
}
