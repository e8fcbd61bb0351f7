//! How an origin is connected to: straight, or through a proxy, which has to prove itself by itself.
//!
//! A proxy that is spoken to by TLS is another server than the registry behind it: what the registry need not prove, since it was listed
//! as insecure, the proxy must, and the client certificate is not for its eyes. The library has one TLS setting for both.

use ureq::Error;
use ureq::config::Config;
use ureq::unversioned::transport::{
    ConnectProxyConnector, ConnectionDetails, Connector, Either, RustlsConnector, TcpConnector,
    Transport,
};

use super::cut::Cutter;

/// The chain of connectors. `to_proxy` has the TLS settings that count for the proxy alone; `None`: there is no proxy by TLS.
pub fn connector(to_proxy: Option<Config>, cutter: Cutter) -> impl Connector<()> {
    ConnectProxyConnector::default()
        .chain(TcpConnector::default())
        .chain(ToProxy {
            config: to_proxy,
            tls: RustlsConnector::default(),
        })
        .chain(RustlsConnector::default())
        .chain(cutter)
}

/// TLS to the proxy; the next connector leaves alone what is encrypted already.
#[derive(Debug)]
struct ToProxy {
    config: Option<Config>,
    tls: RustlsConnector,
}

impl<In: Transport> Connector<In> for ToProxy {
    type Out = Either<In, <RustlsConnector as Connector<In>>::Out>;

    fn connect(
        &self,
        details: &ConnectionDetails<'_>,
        chained: Option<In>,
    ) -> Result<Option<Self::Out>, Error> {
        // The library takes the proxy out of the settings with which it connects to the proxy itself.
        let Some(config) = self
            .config
            .as_ref()
            .filter(|_| details.config.proxy().is_none())
        else {
            return Ok(chained.map(Either::A));
        };
        let details = ConnectionDetails {
            uri: details.uri,
            addrs: details.addrs.clone(),
            config,
            request_level: details.request_level,
            resolver: details.resolver,
            now: details.now,
            timeout: details.timeout,
            current_time: details.current_time.clone(),
            run_connector: details.run_connector.clone(),
            register_shutdown: details.register_shutdown.clone(),
        };
        Ok(self.tls.connect(&details, chained)?.map(Either::B))
    }
}
