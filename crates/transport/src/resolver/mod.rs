//! Where the instances of a service are.

#[cfg(feature = "dns")]
mod dns;
mod fixed;

use std::fmt;
use std::sync::Arc;

use futures_util::future::BoxFuture;
use futures_util::stream::BoxStream;
use throughline::Error;

#[cfg(feature = "dns")]
pub use dns::DnsResolver;
pub use fixed::StaticResolver;

/// Finds the instances of a service by its name.
///
/// [`StaticResolver`] has a list, and `DnsResolver` (feature `dns`) asks DNS. Implement it for a
/// registry of your own.
///
/// # Examples
/// ```
/// use futures_util::future::BoxFuture;
/// use futures_util::{FutureExt, StreamExt, stream};
/// use throughline::Error;
/// use throughline_transport::{Instance, InstanceSets, NoSuchService, Resolver, Transport};
///
/// /// Each service is at a fixed port of this machine.
/// #[derive(Debug)]
/// struct Ports;
///
/// impl Resolver for Ports {
///     fn resolve<'a>(&'a self, service: &'a str) -> BoxFuture<'a, Result<InstanceSets, Error>> {
///         let port = match service {
///             "balance" => 7001,
///             "cards" => 7002,
///             _ => return async move { Err(NoSuchService::new(service).into()) }.boxed(),
///         };
///         let set = vec![Instance::new(format!("127.0.0.1:{port}"))];
///         async { Ok(stream::iter([set]).boxed()) }.boxed()
///     }
/// }
///
/// # tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(async {
/// let transport = Transport::http2().resolver(Ports).client();
/// let mut instances = transport.instances("cards").await?;
/// let tower::discover::Change::Insert(name, _) = instances.next().await.expect("there is one")? else { panic!() };
/// assert_eq!(&*name, "127.0.0.1:7002");
/// # Ok::<(), Error>(()) })?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub trait Resolver: fmt::Debug + Send + Sync + 'static {
    /// Returns the instances of a service: the set of now, then each set that replaces it.
    ///
    /// A transport calls it once for each service, at the first request. It reads the stream as
    /// long as the transport exists. When the stream ends, the last set stays.
    ///
    /// # Errors
    /// - [`NoSuchService`](crate::NoSuchService): no service has this name.
    /// - `UNAVAILABLE`: the instances cannot be found at the moment. The next request tries again.
    fn resolve<'a>(&'a self, service: &'a str) -> BoxFuture<'a, Result<InstanceSets, Error>>;
}

impl<R: Resolver + ?Sized> Resolver for Arc<R> {
    fn resolve<'a>(&'a self, service: &'a str) -> BoxFuture<'a, Result<InstanceSets, Error>> {
        (**self).resolve(service)
    }
}

/// Sets of instances. Each replaces the one before.
pub type InstanceSets = BoxStream<'static, Vec<Instance>>;

/// One process that serves a service.
///
/// # Examples
/// ```
/// use throughline_transport::Instance;
///
/// let instance = Instance::new("10.0.0.7:8080").with_host("balance.internal");
/// assert_eq!((instance.address(), instance.host()), ("10.0.0.7:8080", "balance.internal"));
/// assert_eq!(Instance::new("[::1]:8080").host(), "::1");
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Instance {
    address: Arc<str>,
    host: Option<Arc<str>>,
}

impl Instance {
    /// Makes an instance from its address: `HOST:PORT`, where the host is a name or an IP address.
    pub fn new(address: impl Into<Arc<str>>) -> Self {
        Instance { address: address.into(), host: None }
    }

    /// Sets the host name that the certificate of the instance must have. It is used with TLS.
    ///
    /// Default: the host of the address.
    pub fn with_host(mut self, host: impl Into<Arc<str>>) -> Self {
        self.host = Some(host.into());
        self
    }

    /// Returns the address: `HOST:PORT`. It is also the name of the instance.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// Returns the host name, without a port and brackets.
    pub fn host(&self) -> &str {
        let of_address = || self.address.rsplit_once(':').map_or(&*self.address, |(host, _)| host);
        let host = self.host.as_deref().unwrap_or_else(of_address);
        host.trim_start_matches('[').trim_end_matches(']')
    }

    pub(crate) fn name(&self) -> Arc<str> {
        Arc::clone(&self.address)
    }
}
