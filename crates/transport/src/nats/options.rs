//! How to connect to NATS: the addresses, the login and TLS.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use async_nats::{Client, ConnectErrorKind, ConnectOptions, Event, ServerAddr};
use throughline::{Code, Error};

/// How to connect to NATS: the addresses, the login and TLS.
///
/// [`Transport::nats`](crate::Transport::nats) and [`Events::nats`](crate::Events::nats) take it.
/// They also take the addresses alone.
///
/// # Examples
/// ```no_run
/// use throughline::{Context, Error};
/// use throughline_transport::{Events, NatsOptions, Transport};
///
/// # async fn f(creds: String) -> Result<(), Error> {
/// let ctx = Context::background();
/// let nats = NatsOptions::new("tls://nats.example.com").name("cards").credentials(creds);
/// let transport = Transport::nats(nats.clone()).connect(&ctx).await?;
/// let events = Events::nats(nats).connect(&ctx).await?;
/// # let _ = (transport, events);
/// # Ok(()) }
/// ```
#[derive(Clone)]
#[must_use = "it connects nothing by itself"]
pub struct NatsOptions {
    servers: String,
    name: Option<String>,
    login: Login,
    root_certificates: Option<PathBuf>,
    client_certificate: Option<(PathBuf, PathBuf)>,
    is_tls_required: bool,
    connect_timeout: Duration,
    inbox_prefix: String,
}

#[derive(Clone)]
enum Login {
    /// That of the URL, if there is one.
    Url,
    Password(String, String),
    Token(String),
    Nkey(String),
    Credentials(String),
}

impl NatsOptions {
    /// The default of [`connect_timeout`](Self::connect_timeout): 5 s.
    pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

    /// Makes the options for the server at `servers`, such as `nats://127.0.0.1:4222`.
    ///
    /// Several addresses of one cluster are separated by commas. An address may have a user and a
    /// password or a token: `nats://user:password@host`. `tls://…` uses TLS.
    pub fn new(servers: impl Into<String>) -> Self {
        NatsOptions {
            servers: servers.into(),
            name: None,
            login: Login::Url,
            root_certificates: None,
            client_certificate: None,
            is_tls_required: false,
            connect_timeout: Self::CONNECT_TIMEOUT,
            inbox_prefix: "_INBOX".to_owned(),
        }
    }

    /// Sets the name of the connection, which the tools of NATS show.
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.name = Some(name.into());
        self
    }

    /// Authenticates with a user and a password.
    pub fn user_and_password(mut self, user: impl Into<String>, password: impl Into<String>) -> Self {
        self.login = Login::Password(user.into(), password.into());
        self
    }

    /// Authenticates with a token.
    pub fn token(mut self, token: impl Into<String>) -> Self {
        self.login = Login::Token(token.into());
        self
    }

    /// Authenticates with the seed of an NKey.
    pub fn nkey(mut self, seed: impl Into<String>) -> Self {
        self.login = Login::Nkey(seed.into());
        self
    }

    /// Authenticates with the text of a `.creds` file: a JWT and its seed.
    pub fn credentials(mut self, creds: impl Into<String>) -> Self {
        self.login = Login::Credentials(creds.into());
        self
    }

    /// Trusts the certificates of a PEM file instead of those of the operating system.
    pub fn root_certificates(mut self, pem: impl Into<PathBuf>) -> Self {
        self.root_certificates = Some(pem.into());
        self
    }

    /// Shows a client certificate: the PEM files of the certificate and of its key.
    pub fn client_certificate(mut self, certificate: impl Into<PathBuf>, key: impl Into<PathBuf>) -> Self {
        self.client_certificate = Some((certificate.into(), key.into()));
        self
    }

    /// Refuses a connection without TLS. An address `tls://…` does the same.
    pub fn require_tls(mut self) -> Self {
        self.is_tls_required = true;
        self
    }

    /// Sets how long an attempt to connect may take; default: 5 s.
    pub fn connect_timeout(mut self, timeout: Duration) -> Self {
        self.connect_timeout = timeout;
        self
    }

    /// Sets the first part of the subjects for responses; default: `_INBOX`.
    ///
    /// With a prefix for each user, the permissions of one user do not let it read the responses to
    /// another.
    pub fn inbox_prefix(mut self, prefix: impl Into<String>) -> Self {
        self.inbox_prefix = prefix.into();
        self
    }

    /// # Errors
    /// `INVALID_ARGUMENT`: an address, the prefix or the credentials are not valid.
    pub(crate) fn checked(self) -> Result<Broker, Error> {
        // An address may have a password: the message does not repeat it.
        let servers: Result<_, _> = self.servers.split(',').map(|server| server.trim().parse()).collect();
        let servers = servers.map_err(|_| invalid("an address of a NATS server is not valid".to_owned()))?;
        check_prefix(&self.inbox_prefix)?;
        if let Login::Credentials(creds) = &self.login {
            let parsed = ConnectOptions::with_credentials(creds);
            parsed.map_err(|_| invalid("the credentials have no JWT with a seed".to_owned()))?;
        }
        Ok(Broker { servers, options: self })
    }
}

impl<S: Into<String>> From<S> for NatsOptions {
    fn from(servers: S) -> Self {
        NatsOptions::new(servers)
    }
}

impl fmt::Debug for NatsOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NatsOptions").field("name", &self.name).finish_non_exhaustive()
    }
}

/// # Errors
/// `INVALID_ARGUMENT`: a subject cannot begin with `prefix`.
pub(super) fn check_prefix(prefix: &str) -> Result<(), Error> {
    let is_token_byte = |byte: u8| byte.is_ascii_graphic() && !matches!(byte, b'*' | b'>' | b'.');
    match prefix.split('.').all(|token| !token.is_empty() && token.bytes().all(is_token_byte)) {
        true => Ok(()),
        false => Err(invalid(format!("{prefix:?} is not valid as the first part of a subject"))),
    }
}

pub(super) fn invalid(message: String) -> Error {
    Error::new(Code::InvalidArgument, message).with_retryable(false)
}

/// Options that are valid.
#[derive(Clone)]
pub(crate) struct Broker {
    servers: Vec<ServerAddr>,
    options: NatsOptions,
}

impl Broker {
    /// The servers without their passwords.
    pub(crate) fn addresses(&self) -> String {
        let addresses: Vec<_> =
            self.servers.iter().map(|server| format!("{}:{}", server.host(), server.port())).collect();
        addresses.join(", ")
    }

    pub(super) fn inbox_prefix(&self) -> &str {
        &self.options.inbox_prefix
    }

    /// Connects, and calls `on_event` for each event of the connection.
    ///
    /// With `in_background`, it returns before there is a connection.
    ///
    /// # Errors
    /// `UNAVAILABLE` or `UNAUTHENTICATED`, with the addresses and what to check.
    pub(crate) async fn connect(
        &self,
        in_background: bool,
        on_event: impl Fn(Event) + Send + Sync + 'static,
    ) -> Result<Client, Error> {
        let mut options = self.connect_options().event_callback(move |event| {
            on_event(event);
            std::future::ready(())
        });
        if in_background {
            options = options.retry_on_initial_connect();
        }
        options.connect(self.servers.clone()).await.map_err(|error| {
            let (code, check) = match error.kind() {
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
            let text = format!("cannot connect to the NATS server {}: {check}", self.addresses());
            Error::wrap(code, error).with_message(text)
        })
    }

    fn connect_options(&self) -> ConnectOptions {
        let set = &self.options;
        let mut options = ConnectOptions::new()
            .connection_timeout(set.connect_timeout)
            // A peer that has vanished is noticed within three of these.
            .ping_interval(Duration::from_secs(10))
            .custom_inbox_prefix(&set.inbox_prefix)
            .require_tls(set.is_tls_required);
        if let Some(name) = &set.name {
            options = options.name(name);
        }
        if let Some(pem) = &set.root_certificates {
            options = options.add_root_certificates(pem.clone());
        }
        if let Some((certificate, key)) = &set.client_certificate {
            options = options.add_client_certificate(certificate.clone(), key.clone());
        }
        match &set.login {
            Login::Url => options,
            Login::Password(user, password) => options.user_and_password(user.clone(), password.clone()),
            Login::Token(token) => options.token(token.clone()),
            Login::Nkey(seed) => options.nkey(seed.clone()),
            Login::Credentials(creds) => options.credentials(creds).expect("they were parsed before"),
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_valid_is_refused_without_repeating_a_password() {
        let refused = |options: NatsOptions| options.checked().err().map(|e| (e.code(), e.message().to_owned()));
        let (code, message) = refused("nats://user:secret@:port".into()).unwrap();
        assert_eq!(code, Code::InvalidArgument);
        assert!(!message.contains("secret"), "{message}");
        for prefix in ["", "a b", "a.", "a.*", ">", "a\r\nb"] {
            assert!(refused(NatsOptions::new("a").inbox_prefix(prefix)).is_some(), "{prefix:?}");
        }
        assert!(refused(NatsOptions::new("a").credentials("no seed")).is_some());
        assert_eq!(refused(NatsOptions::new("a, nats://b:1").inbox_prefix("_INBOX.cards")), None);
        let debug = format!("{:?}", NatsOptions::new("nats://u:secret@a").token("secret"));
        assert!(!debug.contains("secret"), "{debug}");
    }
}
