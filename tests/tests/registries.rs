//! How registries are reached: certificates, insecure ones, mirrors, tokens, proxies. Each against a real `docker-registry`, or a server of
//! the test's own where faults or answers of its own making are due.

#[path = "registries/authority.rs"]
mod authority;
#[path = "registries/certificates.rs"]
mod certificates;
#[path = "registries/front.rs"]
mod front;
#[path = "registries/insecure.rs"]
mod insecure;
#[path = "registries/mirrors.rs"]
mod mirrors;
#[path = "registries/proxies.rs"]
mod proxies;
#[path = "registries/tokens.rs"]
mod tokens;
#[path = "registries/world.rs"]
mod world;

/// Not on loopback: nothing is forgiven there.
const TLS: &str = "192.0.2.1:5443";
const IMAGE: &str = "192.0.2.1:5443/library/bb:1";
const LOCAL: &str = "127.0.0.1:5000/library/bb:1";
