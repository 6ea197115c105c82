//! How to connect to NATS.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use async_nats::{ConnectErrorKind, ConnectOptions, ServerAddr};
use throughline::{Code, Error};

use super::link::Link;
use super::medium::Nats;
use super::options::{Login, Options};
use crate::Transport;

/// Connects a [`Transport`] to NATS. [`Transport::nats`] makes it.
#[derive(Clone)]
#[must_use = "it connects with `connect`"]
pub struct NatsBuilder {
    servers: String,
    options: Options,
}

impl NatsBuilder {
    /// The default of [`connect_timeout`](Self::connect_timeout): 5 s.
    pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

    pub(crate) fn new(servers: String) -> Self {
        let options = Options {
            servers: Vec::new(),
            subject_prefix: "svc".to_owned(),
            inbox_prefix: "_INBOX".to_owned(),
            in_background: false,
            is_balanced_by_broker: false,
            version: "0.0.0".to_owned(),
            name: None,
            login: Login::Url,
            root_certificates: None,
            client_certificate: None,
            is_tls_required: false,
            connect_timeout: Self::CONNECT_TIMEOUT,
        };
        NatsBuilder { servers, options }
    }

    /// Sets the name of the connection, which the tools of NATS show.
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.options.name = Some(name.into());
        self
    }

    /// Authenticates with a user and a password.
    pub fn user_and_password(mut self, user: impl Into<String>, password: impl Into<String>) -> Self {
        self.options.login = Login::Password(user.into(), password.into());
        self
    }

    /// Authenticates with a token.
    pub fn token(mut self, token: impl Into<String>) -> Self {
        self.options.login = Login::Token(token.into());
        self
    }

    /// Authenticates with the seed of an NKey.
    pub fn nkey(mut self, seed: impl Into<String>) -> Self {
        self.options.login = Login::Nkey(seed.into());
        self
    }

    /// Authenticates with the text of a `.creds` file: a JWT and its seed.
    pub fn credentials(mut self, creds: impl Into<String>) -> Self {
        self.options.login = Login::Credentials(creds.into());
        self
    }

    /// Trusts the certificates of a PEM file instead of those of the operating system.
    pub fn root_certificates(mut self, pem: impl Into<PathBuf>) -> Self {
        self.options.root_certificates = Some(pem.into());
        self
    }

    /// Shows a client certificate: the PEM files of the certificate and of its key.
    pub fn client_certificate(mut self, certificate: impl Into<PathBuf>, key: impl Into<PathBuf>) -> Self {
        self.options.client_certificate = Some((certificate.into(), key.into()));
        self
    }

    /// Refuses a connection without TLS. An address `tls://…` does the same.
    pub fn require_tls(mut self) -> Self {
        self.options.is_tls_required = true;
        self
    }

    /// Sets how long an attempt to connect may take; default: 5 s.
    pub fn connect_timeout(mut self, timeout: Duration) -> Self {
        self.options.connect_timeout = timeout;
        self
    }

    /// Sets the first part of the subjects of services; default: `svc`.
    ///
    /// Transports with different prefixes do not see each other's services.
    pub fn subject_prefix(mut self, prefix: impl Into<String>) -> Self {
        self.options.subject_prefix = prefix.into();
        self
    }

    /// Sets the first part of the subjects for responses; default: `_INBOX`.
    ///
    /// With a prefix for each user, the permissions of one user do not let it read the responses to
    /// another.
    pub fn inbox_prefix(mut self, prefix: impl Into<String>) -> Self {
        self.options.inbox_prefix = prefix.into();
        self
    }

    /// Sets the version that listeners report to `nats micro`; default: `0.0.0`.
    pub fn version(mut self, semantic: impl Into<String>) -> Self {
        self.options.version = semantic.into();
        self
    }

    /// Lets the broker choose the instance of each request.
    ///
    /// [`Transport::instances`] then returns one instance for all. The default is one for each
    /// listener, so that a balancer and a circuit breaker see the instances apart.
    pub fn balance_by_broker(mut self) -> Self {
        self.options.is_balanced_by_broker = true;
        self
    }

    /// Makes [`connect`](Self::connect) return at once, and connects in the background.
    ///
    /// Until then, a request fails with `UNAVAILABLE`, and a listener waits for the connection.
    pub fn connect_in_background(mut self) -> Self {
        self.options.in_background = true;
        self
    }

    /// Connects. Afterwards, a connection that is lost is made again without end.
    ///
    /// # Errors
    /// - `UNAVAILABLE`: no server can be reached. The message has the address and what to check.
    /// - `UNAUTHENTICATED`: the server does not accept the user.
    /// - `INVALID_ARGUMENT`: an address, a prefix, the version or the credentials are not valid.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    pub async fn connect(self) -> Result<Transport, Error> {
        let options = self.checked()?;
        let addresses = options.addresses();
        let link = Link::connect(options).await.map_err(|error| {
            let (code, what) = match error.kind() {
                ConnectErrorKind::ServerParse => (Code::InvalidArgument, "is the address valid?"),
                ConnectErrorKind::Authentication | ConnectErrorKind::AuthorizationViolation => {
                    (Code::Unauthenticated, "are the user and its password or credentials right?")
                }
                ConnectErrorKind::Tls => (Code::Unavailable, "does the server use TLS with a trusted certificate?"),
                ConnectErrorKind::Dns => (Code::Unavailable, "is the name of the host right?"),
                ConnectErrorKind::TimedOut => {
                    (Code::Unavailable, "does it accept connections there, and does a firewall let them pass?")
                }
                _ => (Code::Unavailable, "is nats-server running, and is this its address?"),
            };
            Error::wrap(code, error).with_message(format!("cannot connect to the NATS server {addresses}: {what}"))
        })?;
        Ok(Transport::new(Nats::new(link)))
    }

    fn checked(self) -> Result<Options, Error> {
        let invalid = |message: String| Error::new(Code::InvalidArgument, message);
        let mut options = self.options;
        for server in self.servers.split(',').map(str::trim) {
            // The address may have a password: the message does not repeat it.
            let parsed = server.parse::<ServerAddr>();
            options.servers.push(parsed.map_err(|_| invalid("an address of a NATS server is not valid".to_owned()))?);
        }
        for prefix in [&options.subject_prefix, &options.inbox_prefix] {
            let is_token = |token: &str| !token.is_empty() && token.bytes().all(is_token_byte);
            if !prefix.split('.').all(is_token) {
                return Err(invalid(format!("{prefix:?} is not valid as the first part of a subject")));
            }
        }
        if !is_semantic(&options.version) {
            return Err(invalid(format!("{:?} is not a semantic version, such as 1.2.3", options.version)));
        }
        if let Login::Credentials(creds) = &options.login {
            let parsed = ConnectOptions::with_credentials(creds);
            parsed.map_err(|_| invalid("the credentials have no JWT with a seed".to_owned()))?;
        }
        Ok(options)
    }
}

fn is_token_byte(byte: u8) -> bool {
    byte.is_ascii_graphic() && !matches!(byte, b'*' | b'>' | b'.')
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
        f.debug_struct("NatsBuilder").field("subject_prefix", &self.options.subject_prefix).finish_non_exhaustive()
    }
}

impl Transport {
    /// Connects a transport over NATS to the server at `url`, such as `nats://127.0.0.1:4222`.
    ///
    /// Several addresses of one cluster are separated by commas. An address may have a user and a
    /// password: `nats://user:password@host`.
    ///
    #[doc = include_str!("nats.md")]
    #[cfg_attr(docsrs, doc(cfg(feature = "nats")))]
    pub fn nats(url: impl Into<String>) -> NatsBuilder {
        NatsBuilder::new(url.into())
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
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
    fn what_is_not_valid_is_refused_without_repeating_a_password() {
        let refused = |builder: NatsBuilder| builder.checked().err().map(|e| (e.code(), e.message().to_owned()));
        let (code, message) = refused(Transport::nats("nats://user:secret@:port")).unwrap();
        assert_eq!(code, Code::InvalidArgument);
        assert!(!message.contains("secret"), "{message}");
        for prefix in ["", "a b", "a.", "a.*", ">", "a\r\nb"] {
            assert!(refused(Transport::nats("a").subject_prefix(prefix)).is_some(), "{prefix:?}");
            assert!(refused(Transport::nats("a").inbox_prefix(prefix)).is_some(), "{prefix:?}");
        }
        assert!(refused(Transport::nats("a").credentials("no seed")).is_some());
        assert!(refused(Transport::nats("a").version("1")).is_some());
        assert_eq!(refused(Transport::nats("a, nats://b:1").subject_prefix("test.svc").version("1.2.3")), None);
        let debug = format!("{:?}", Transport::nats("nats://u:secret@a").token("secret"));
        assert!(!debug.contains("secret"), "{debug}");
    }
}
