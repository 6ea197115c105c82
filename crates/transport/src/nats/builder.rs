//! The transport over NATS: its options.

use std::fmt;

use throughline::{Context, Error};

use super::link::{Link, Settings};
use super::medium::Nats;
use super::options::{Broker, NatsOptions, check_prefix, invalid};
use crate::Transport;

/// Connects a [`Transport`] to NATS. [`Transport::nats`] makes it.
#[derive(Clone)]
#[must_use = "it connects with `connect`"]
pub struct NatsBuilder {
    options: NatsOptions,
    settings: Settings,
}

impl NatsBuilder {
    /// Sets the first part of the subjects of services; default: `svc`.
    ///
    /// Transports with different prefixes do not see each other's services.
    pub fn subject_prefix(mut self, prefix: impl Into<String>) -> Self {
        self.settings.subject_prefix = prefix.into();
        self
    }

    /// Sets the version that listeners report to `nats micro`; default: `0.0.0`.
    pub fn version(mut self, semantic: impl Into<String>) -> Self {
        self.settings.version = semantic.into();
        self
    }

    /// Lets the broker choose the instance of each request.
    ///
    /// [`Transport::instances`] then returns one instance for all. The default is one for each
    /// listener, so that a balancer and a circuit breaker see the instances apart.
    pub fn balance_by_broker(mut self) -> Self {
        self.settings.is_balanced_by_broker = true;
        self
    }

    /// Makes [`connect`](Self::connect) return at once, and connects in the background.
    ///
    /// Until then, a request fails with `UNAVAILABLE`, and a listener waits for the connection.
    pub fn connect_in_background(mut self) -> Self {
        self.settings.in_background = true;
        self
    }

    /// Connects. Afterwards, a connection that is lost is made again without end.
    ///
    /// # Errors
    /// - `UNAVAILABLE`: no server can be reached. The message has the address and what to check.
    /// - `UNAUTHENTICATED`: the server does not accept the user.
    /// - `INVALID_ARGUMENT`: an address, a prefix, the version or the credentials are not valid.
    /// - `CANCELLED` or `DEADLINE_EXCEEDED`: `ctx` is done first. It has no effect afterwards.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    pub async fn connect(self, ctx: &Context) -> Result<Transport, Error> {
        let (broker, settings) = self.checked()?;
        let link = ctx.run(Link::connect(broker, settings)).await.map_err(|_| Error::from_context(ctx))??;
        Ok(Transport::new(Nats::new(link)))
    }

    fn checked(self) -> Result<(Broker, Settings), Error> {
        let NatsBuilder { options, settings } = self;
        check_prefix(&settings.subject_prefix)?;
        if !is_semantic(&settings.version) {
            return Err(invalid(format!("{:?} is not a semantic version, such as 1.2.3", settings.version)));
        }
        Ok((options.checked()?, settings))
    }
}

/// Whether `version` has the form `major.minor.patch`, with a suffix after `-` or `+`.
fn is_semantic(version: &str) -> bool {
    let (core, suffix) = match version.find(['-', '+']) {
        Some(at) => (&version[..at], Some(&version[at + 1..])),
        None => (version, None),
    };
    let is_number = |part: &str| {
        !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit()) && (part == "0" || !part.starts_with('0'))
    };
    let is_suffix = |suffix: &str| {
        let is_valid = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'+');
        !suffix.is_empty() && suffix.bytes().all(is_valid)
    };
    core.split('.').count() == 3 && core.split('.').all(is_number) && suffix.is_none_or(is_suffix)
}

impl fmt::Debug for NatsBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NatsBuilder").field("options", &self.options).field("settings", &self.settings).finish()
    }
}

impl Transport {
    /// Connects a transport over NATS to the server at `nats://127.0.0.1:4222`, for example.
    ///
    /// [`NatsOptions`] have the form of the addresses, the login and TLS.
    ///
    #[doc = include_str!("nats.md")]
    #[cfg_attr(docsrs, doc(cfg(feature = "nats")))]
    pub fn nats(server: impl Into<NatsOptions>) -> NatsBuilder {
        let settings = Settings {
            subject_prefix: "svc".to_owned(),
            in_background: false,
            is_balanced_by_broker: false,
            version: "0.0.0".to_owned(),
        };
        NatsBuilder { options: server.into(), settings }
    }
}

#[cfg(test)]
mod tests {
    use throughline::Code;

    use super::*;

    #[test]
    fn versions_are_semantic() {
        for version in ["0.0.0", "1.2.3", "10.20.30-rc.1+linux", "1.0.0+a"] {
            assert!(is_semantic(version), "{version}");
        }
        for version in ["", "1", "1.2", "1.2.3.4", "01.2.3", "1.2.x", "v1.2.3", "1.2.3-", "1.2.3-ä"] {
            assert!(!is_semantic(version), "{version}");
        }
    }

    #[test]
    fn a_prefix_or_a_version_that_is_not_valid_is_refused() {
        let refused = |builder: NatsBuilder| builder.checked().err().map(|e| e.code());
        for prefix in ["", "a b", "a.", "a.*", ">", "a\r\nb"] {
            assert_eq!(refused(Transport::nats("a").subject_prefix(prefix)), Some(Code::InvalidArgument), "{prefix:?}");
        }
        assert_eq!(refused(Transport::nats("a").version("1")), Some(Code::InvalidArgument));
        assert_eq!(refused(Transport::nats("a").subject_prefix("test.svc").version("1.2.3")), None);
    }
}
