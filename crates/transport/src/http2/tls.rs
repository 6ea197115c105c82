//! TLS of both sides.

use std::fmt;
use std::sync::Arc;

use rustls::crypto::{CryptoProvider, ring};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::server::WebPkiClientVerifier;
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use throughline::{Code, Error};
use tokio::net::TcpStream;
use tokio_rustls::{TlsAcceptor, TlsConnector, client, server};

/// Certificates for [`Http2::tls`](crate::Http2::tls): those that are trusted, and its own.
///
/// Certificates and keys are PEM. They are read once: a renewed certificate needs a new transport.
///
/// # Examples
/// ```
/// use throughline_transport::{Tls, Transport};
///
/// # tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(async {
/// let key = rcgen::generate_simple_self_signed(["localhost".to_owned()])?;
/// let (certificate, private_key) = (key.cert.pem(), key.signing_key.serialize_pem());
///
/// let tls = Tls::new().identity(&certificate, &private_key)?;
/// let server = Transport::http2().tls(tls)?.bind("127.0.0.1:0").await?;
/// assert!(server.local_addr().is_some());
///
/// let client = Transport::http2().tls(Tls::new().ca(&certificate)?)?.client();
/// assert_eq!(client.sending(), 0);
/// # Ok::<(), Box<dyn std::error::Error>>(()) })?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Default)]
#[must_use]
pub struct Tls {
    roots: Option<RootCertStore>,
    identity: Option<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>)>,
    requires_client: bool,
}

impl Tls {
    /// Trusts the certificate authorities of the platform, and has no certificate of its own.
    pub fn new() -> Self {
        Self::default()
    }

    /// Trusts the certificates of `pem` instead of the platform's. Call it again to trust more.
    ///
    /// # Errors
    /// `INVALID_ARGUMENT`: `pem` has no certificate, or one that is not valid.
    pub fn ca(mut self, pem: impl AsRef<[u8]>) -> Result<Self, Error> {
        let mut roots = self.roots.take().unwrap_or_else(RootCertStore::empty);
        for certificate in certificates(pem.as_ref())? {
            roots.add(certificate).map_err(|e| Error::wrap(Code::InvalidArgument, e))?;
        }
        self.roots = Some(roots);
        Ok(self)
    }

    /// Sets the certificate chain, own certificate first, and its private key.
    ///
    /// A server needs them. A client that has them sends them when the server asks.
    ///
    /// # Errors
    /// `INVALID_ARGUMENT`: there is no certificate or no key in the PEM.
    pub fn identity(mut self, chain_pem: impl AsRef<[u8]>, key_pem: impl AsRef<[u8]>) -> Result<Self, Error> {
        let key = PrivateKeyDer::from_pem_slice(key_pem.as_ref()).map_err(|e| invalid("private key", &e))?;
        self.identity = Some((certificates(chain_pem.as_ref())?, key));
        Ok(self)
    }

    /// Makes the server refuse clients without a certificate that it trusts.
    pub fn require_client_certificates(mut self) -> Self {
        self.requires_client = true;
        self
    }

    /// # Errors
    /// `INVALID_ARGUMENT`: the key does not fit the certificate.
    pub(super) fn build(self) -> Result<Configs, Error> {
        let wrap = |e: rustls::Error| Error::wrap(Code::InvalidArgument, e);
        let provider = Arc::new(ring::default_provider());
        let requires_client = self.requires_client;
        let roots = Arc::new(match self.roots {
            Some(roots) => roots,
            None => platform_roots(),
        });
        let server = match &self.identity {
            Some(identity) => Some(server_config(&provider, &roots, identity, requires_client)?),
            None => None,
        };
        let client = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(wrap)?
            .with_root_certificates(roots);
        let mut client = match self.identity {
            Some((chain, key)) => client.with_client_auth_cert(chain, key).map_err(wrap)?,
            None => client.with_no_client_auth(),
        };
        client.alpn_protocols = vec![b"h2".to_vec()];
        Ok(Configs { client: TlsConnector::from(Arc::new(client)), server: server.map(TlsAcceptor::from) })
    }
}

/// Both sides of a transport.
#[derive(Clone)]
pub(super) struct Configs {
    client: TlsConnector,
    /// `None`: there is no certificate.
    server: Option<TlsAcceptor>,
}

impl Configs {
    pub(super) fn is_server(&self) -> bool {
        self.server.is_some()
    }

    /// # Errors
    /// The reason for the log.
    pub(super) async fn accept(&self, stream: TcpStream) -> Result<server::TlsStream<TcpStream>, String> {
        let acceptor = self.server.as_ref().ok_or("there is no certificate")?;
        acceptor.accept(stream).await.map_err(|e| e.to_string())
    }

    /// # Errors
    /// The reason, and whether another attempt may succeed.
    pub(super) async fn connect(
        &self,
        host: &str,
        stream: TcpStream,
    ) -> Result<client::TlsStream<TcpStream>, (String, bool)> {
        let name = ServerName::try_from(host.to_owned()).map_err(|e| (format!("{host}: {e}"), false))?;
        let stream = self.client.connect(name, stream).await.map_err(|error| {
            let is_tls = error.get_ref().is_some_and(|error| error.is::<rustls::Error>());
            (format!("TLS with {host}: {error}"), !is_tls)
        })?;
        if stream.get_ref().1.alpn_protocol() != Some(b"h2") {
            return Err((format!("{host} has TLS and does not offer HTTP/2"), false));
        }
        Ok(stream)
    }
}

fn server_config(
    provider: &Arc<CryptoProvider>,
    roots: &Arc<RootCertStore>,
    (chain, key): &(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>),
    requires_client: bool,
) -> Result<Arc<ServerConfig>, Error> {
    let wrap = |e: rustls::Error| Error::wrap(Code::InvalidArgument, e);
    let server = ServerConfig::builder_with_provider(Arc::clone(provider))
        .with_safe_default_protocol_versions()
        .map_err(wrap)?;
    let server = if requires_client {
        let verifier = WebPkiClientVerifier::builder_with_provider(Arc::clone(roots), Arc::clone(provider)).build();
        server.with_client_cert_verifier(verifier.map_err(|e| Error::wrap(Code::InvalidArgument, e))?)
    } else {
        server.with_no_client_auth()
    };
    let mut server = server.with_single_cert(chain.clone(), key.clone_key()).map_err(wrap)?;
    server.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(Arc::new(server))
}

/// The platform's authorities. An empty store is not an error here: a server needs none.
fn platform_roots() -> RootCertStore {
    let mut roots = RootCertStore::empty();
    let found = rustls_native_certs::load_native_certs();
    roots.add_parsable_certificates(found.certs);
    if roots.is_empty() {
        let reasons: Vec<_> = found.errors.iter().map(ToString::to_string).collect();
        tracing::warn!(
            errors = reasons.join("; "),
            "the platform has no certificate authorities: set one with `Tls::ca`"
        );
    }
    roots
}

fn certificates(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, Error> {
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    let found = found.map_err(|e| invalid("certificate", &e))?;
    if found.is_empty() {
        return Err(Error::new(Code::InvalidArgument, "the PEM has no certificate"));
    }
    Ok(found)
}

fn invalid(what: &str, error: &rustls::pki_types::pem::Error) -> Error {
    Error::new(Code::InvalidArgument, format!("the {what} cannot be read: {error}"))
}

impl fmt::Debug for Configs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tls").field("is_server", &self.is_server()).finish_non_exhaustive()
    }
}
