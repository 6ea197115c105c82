//! Instances from DNS.

use std::fmt;
use std::net::SocketAddr;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use futures_util::future::BoxFuture;
use futures_util::stream::{self, StreamExt as _};
use hickory_resolver::TokioResolver;
use hickory_resolver::config::{ConnectionConfig, NameServerConfig, ResolverConfig};
use hickory_resolver::net::NetError;
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::proto::rr::{RData, RecordType};
use throughline::{Code, Error};

use crate::NoSuchService;
use crate::resolver::{Instance, InstanceSets, Resolver};

/// The longest time that a name counts as unknown after DNS has said so.
const MAX_UNKNOWN: Duration = Duration::from_secs(5);

/// Finds the instances of a service by DNS: each address of its name is one.
///
/// A pattern makes the name: `{service}` stands for the service. In Kubernetes a headless service
/// (`clusterIP: None`) has one address for each pod.
///
/// The name is looked up at the first request, and again when its time to live has passed. When a
/// later lookup fails, the instances stay. When the name does not exist any more, there are none.
///
/// The name servers, the search list and `/etc/hosts` are those of the system.
///
/// # Examples
/// ```
/// use std::time::Duration;
/// use throughline_transport::{DnsResolver, Transport};
///
/// // A and AAAA records, with this port. The dot at the end: the search list is not used.
/// let addresses = DnsResolver::new("{service}.default.svc.cluster.local.:8080")?;
/// // SRV records, which have the port.
/// let ports = DnsResolver::srv("_http._tcp.{service}.default.svc.cluster.local.");
/// assert_eq!(ports.name_of("balance"), "_http._tcp.balance.default.svc.cluster.local.");
///
/// # tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(async {
/// let transport = Transport::http2().resolver(addresses.min_refresh(Duration::from_secs(1))).client();
/// assert_eq!(transport.sending(), 0);
/// # });
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone)]
pub struct DnsResolver {
    pattern: Arc<str>,
    /// `None`: the name has SRV records.
    port: Option<u16>,
    min_refresh: Duration,
    name_servers: Vec<SocketAddr>,
    /// Made at the first lookup, because it needs a runtime.
    resolver: Arc<OnceLock<Result<TokioResolver, Error>>>,
}

impl DnsResolver {
    /// Finds A and AAAA records. The pattern is `HOST:PORT`.
    ///
    /// # Errors
    /// `INVALID_ARGUMENT`: the pattern has no port.
    pub fn new(pattern: &str) -> Result<Self, Error> {
        let (host, port) = pattern.rsplit_once(':').unwrap_or((pattern, ""));
        match port.parse() {
            Ok(port) if port > 0 && !host.is_empty() => Ok(Self::with_pattern(host, Some(port))),
            _ => Err(Error::new(Code::InvalidArgument, format!("the pattern is not HOST:PORT: {pattern}"))),
        }
    }

    /// Finds SRV records. Those with the smallest number for their priority are used.
    pub fn srv(pattern: &str) -> Self {
        Self::with_pattern(pattern, None)
    }

    fn with_pattern(pattern: &str, port: Option<u16>) -> Self {
        DnsResolver {
            pattern: pattern.into(),
            port,
            min_refresh: Duration::from_secs(5),
            name_servers: Vec::new(),
            resolver: Arc::default(),
        }
    }

    /// Sets the shortest time between two lookups of a name; default: 5 s.
    #[must_use]
    pub fn min_refresh(mut self, pause: Duration) -> Self {
        self.min_refresh = pause;
        self
    }

    /// Sets the name servers to ask instead of those of the system.
    #[must_use]
    pub fn name_servers(mut self, addresses: impl IntoIterator<Item = SocketAddr>) -> Self {
        self.name_servers = addresses.into_iter().collect();
        self.resolver = Arc::default();
        self
    }

    /// Returns the name that is looked up for a service.
    pub fn name_of(&self, service: &str) -> String {
        self.pattern.replace("{service}", service)
    }

    fn resolver(&self) -> Result<&TokioResolver, Error> {
        self.resolver.get_or_init(|| self.build()).as_ref().map_err(Clone::clone)
    }

    fn build(&self) -> Result<TokioResolver, Error> {
        let failed = |e: NetError| {
            let message = format!("the DNS configuration of the system cannot be used: {e}");
            Error::wrap(Code::Unavailable, e).with_message(message)
        };
        let mut builder = if self.name_servers.is_empty() {
            TokioResolver::builder_tokio().map_err(failed)?
        } else {
            let servers = self.name_servers.iter().map(|address| {
                let (mut udp, mut tcp) = (ConnectionConfig::udp(), ConnectionConfig::tcp());
                (udp.port, tcp.port) = (address.port(), address.port());
                NameServerConfig::new(address.ip(), true, vec![udp, tcp])
            });
            let config = ResolverConfig::from_parts(None, Vec::new(), servers.collect());
            TokioResolver::builder_with_config(config, TokioRuntimeProvider::default())
        };
        builder.options_mut().negative_max_ttl = Some(MAX_UNKNOWN);
        builder.build().map_err(failed)
    }

    /// Returns the instances of now, and how long they are valid.
    async fn look_up(&self, service: &str) -> Result<(Vec<Instance>, Duration), Error> {
        // Other characters could make another name of the pattern.
        let is_valid = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
        if service.is_empty() || !service.bytes().all(is_valid) {
            return Err(NoSuchService::new(service).into());
        }
        let name = self.name_of(service);
        let found = match self.port {
            Some(port) => self.addresses(&name, port).await,
            None => self.services(&name).await,
        };
        let (mut instances, valid_until) = found.map_err(|failure| match failure {
            Failure::Dns(error) if error.is_no_records_found() => NoSuchService::new(service).into(),
            Failure::Dns(error) => {
                let message = format!("{service} cannot be resolved: {name}: {error}");
                Error::wrap(Code::Unavailable, error).with_message(message).with_retryable(true)
            }
            Failure::Other(error) => error,
        })?;
        // The order of records is different each time.
        instances.sort_by(|a, b| a.address().cmp(b.address()));
        instances.dedup();
        let valid = valid_until.saturating_duration_since(std::time::Instant::now());
        Ok((instances, valid.max(self.min_refresh)))
    }

    async fn addresses(&self, name: &str, port: u16) -> Result<Found, Failure> {
        let found = self.resolver()?.lookup_ip(name).await?;
        let host: Arc<str> = name.trim_end_matches('.').into();
        let instance = |ip| Instance::new(SocketAddr::new(ip, port).to_string()).with_host(Arc::clone(&host));
        Ok((found.iter().map(instance).collect(), found.valid_until()))
    }

    async fn services(&self, name: &str) -> Result<Found, Failure> {
        let found = self.resolver()?.lookup(name, RecordType::SRV).await?;
        let records = || {
            found.answers().iter().filter_map(|record| match &record.data {
                RData::SRV(srv) => Some(srv),
                _ => None,
            })
        };
        let first = records().map(|srv| srv.priority).min();
        let (mut instances, mut valid_until) = (Vec::new(), found.valid_until());
        for srv in records().filter(|srv| Some(srv.priority) == first) {
            let (of_target, valid) = self.addresses(&srv.target.to_ascii(), srv.port).await?;
            instances.extend(of_target);
            valid_until = valid_until.min(valid);
        }
        Ok((instances, valid_until))
    }
}

type Found = (Vec<Instance>, std::time::Instant);

enum Failure {
    Dns(NetError),
    Other(Error),
}

impl From<NetError> for Failure {
    fn from(error: NetError) -> Self {
        Failure::Dns(error)
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Failure::Other(error)
    }
}

impl Resolver for DnsResolver {
    fn resolve<'a>(&'a self, service: &'a str) -> BoxFuture<'a, Result<InstanceSets, Error>> {
        Box::pin(async move {
            let (first, valid) = self.look_up(service).await?;
            let state = (self.clone(), Arc::<str>::from(service), first.clone(), valid);
            let changes = stream::unfold(state, async |(resolver, service, known, mut valid)| {
                loop {
                    tokio::time::sleep(valid).await;
                    let result = resolver.look_up(&service).await;
                    let now = match result {
                        Ok((now, next)) => {
                            valid = next;
                            now
                        }
                        Err(error) if NoSuchService::find_in(&error).is_some() => {
                            valid = resolver.min_refresh;
                            Vec::new()
                        }
                        Err(error) => {
                            tracing::warn!(%error, %service, "the known instances stay");
                            valid = resolver.min_refresh;
                            continue;
                        }
                    };
                    if now != known {
                        return Some((now.clone(), (resolver, service, now, valid)));
                    }
                }
            });
            Ok(stream::iter([first]).chain(changes).boxed())
        })
    }
}

impl fmt::Debug for DnsResolver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DnsResolver").field("pattern", &self.pattern).field("port", &self.port).finish_non_exhaustive()
    }
}
