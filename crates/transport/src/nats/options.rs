//! What a [`NatsBuilder`](super::NatsBuilder) has set.

use std::path::PathBuf;
use std::time::Duration;

use async_nats::{ConnectOptions, ServerAddr};

#[derive(Clone)]
pub(super) struct Options {
    pub(super) servers: Vec<ServerAddr>,
    pub(super) subject_prefix: String,
    pub(super) inbox_prefix: String,
    pub(super) in_background: bool,
    pub(super) is_balanced_by_broker: bool,
    pub(super) version: String,
    pub(super) name: Option<String>,
    pub(super) login: Login,
    pub(super) root_certificates: Option<PathBuf>,
    pub(super) client_certificate: Option<(PathBuf, PathBuf)>,
    pub(super) is_tls_required: bool,
    pub(super) connect_timeout: Duration,
}

#[derive(Clone)]
pub(super) enum Login {
    /// That of the URL, if there is one.
    Url,
    Password(String, String),
    Token(String),
    Nkey(String),
    Credentials(String),
}

impl Options {
    /// The servers without their passwords.
    pub(super) fn addresses(&self) -> String {
        let addresses: Vec<_> =
            self.servers.iter().map(|server| format!("{}:{}", server.host(), server.port())).collect();
        addresses.join(", ")
    }

    pub(super) fn connect_options(&self) -> ConnectOptions {
        let mut options = ConnectOptions::new()
            .connection_timeout(self.connect_timeout)
            // A peer that has vanished is noticed within three of these.
            .ping_interval(Duration::from_secs(10))
            .custom_inbox_prefix(&self.inbox_prefix)
            .require_tls(self.is_tls_required);
        if let Some(name) = &self.name {
            options = options.name(name);
        }
        if let Some(pem) = &self.root_certificates {
            options = options.add_root_certificates(pem.clone());
        }
        if let Some((certificate, key)) = &self.client_certificate {
            options = options.add_client_certificate(certificate.clone(), key.clone());
        }
        match &self.login {
            Login::Url => options,
            Login::Password(user, password) => options.user_and_password(user.clone(), password.clone()),
            Login::Token(token) => options.token(token.clone()),
            Login::Nkey(seed) => options.nkey(seed.clone()),
            Login::Credentials(creds) => options.credentials(creds).expect("they were parsed before"),
        }
    }
}
