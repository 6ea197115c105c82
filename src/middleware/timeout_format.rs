//! Headers of choice that carry a timeout.

use std::time::Duration;

use http::HeaderMap;
use http::header::HeaderName;
use throughline_core::Extractor;
use throughline_core::propagation::deadline::{self, Expired, ReplyReserve};

/// The format of a header of choice.
#[derive(Clone, Copy)]
pub(super) enum TimeoutFormat {
    /// That of `grpc-timeout`.
    Grpc,
    /// 1 to 10 digits, milliseconds.
    Millis,
}

impl TimeoutFormat {
    pub(super) fn extract(self, name: &HeaderName, carrier: &impl Extractor) -> Option<Duration> {
        match self {
            TimeoutFormat::Grpc => deadline::extract_from(name, carrier),
            TimeoutFormat::Millis => deadline::extract_millis_from(name, carrier),
        }
    }

    pub(super) fn inject(
        self,
        name: &HeaderName,
        remaining: Duration,
        reserve: &ReplyReserve,
        headers: &mut HeaderMap,
    ) -> Result<(), Expired> {
        match self {
            TimeoutFormat::Grpc => deadline::inject_as(name, remaining, reserve, headers),
            TimeoutFormat::Millis => deadline::inject_millis_as(name, remaining, reserve, headers),
        }
    }
}
