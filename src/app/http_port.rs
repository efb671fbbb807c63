//! Serving plain HTTP/1.1 beside the checks, within bounds: the admin port, and the back channel of issuers. Each has places of
//! its own, and they share the process's file descriptors with the listeners of checks: without bounds, whoever reaches one
//! could leave none for them.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::Router;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use prometheus::IntCounter;
use tower_service::Service as _;

use super::StartError;
use super::accept::Outcomes;
use super::listen;

/// Most connections at once, at each port. Probes, scrapers and issuers need a few.
const CONNECTIONS: usize = 32;
/// Most of them from one address, so that nobody takes all: behind a proxy that is everybody, so it is not few.
const OF_ONE_ADDRESS: usize = 16;
/// How long a request's head may take to arrive.
const HEAD_TIME: Duration = Duration::from_secs(5);
/// How long a connection may last in all, so that a peer that does not read its answer is not kept either.
const CONNECTION_TIME: Duration = Duration::from_secs(10);

/// A port that is bound.
pub(super) struct Port {
    listener: std::net::TcpListener,
    /// Where it really is.
    pub(super) address: SocketAddr,
    /// What it is called in the log.
    of: &'static str,
}

impl Port {
    /// Binds it.
    ///
    /// # Errors
    /// [`StartError::Listen`] naming the address.
    pub(super) fn bind(address: SocketAddr, of: &'static str) -> Result<Self, StartError> {
        let listener = listen::bind_tcp(address)?;
        let address = listener.local_addr()?;
        Ok(Self { listener, address, of })
    }

    /// The future that serves it for ever; what is open ends with the runtime, within which this has to be called. `refused`
    /// counts the connections that found no place.
    ///
    /// # Errors
    /// If the runtime does not take the socket.
    pub(super) fn serve(
        self,
        routes: Router,
        refused: IntCounter,
    ) -> std::io::Result<impl Future<Output = ()> + Send + use<>> {
        let listener = tokio::net::TcpListener::from_std(self.listener)?;
        let places = Arc::new(Places::default());
        let mut http = http1::Builder::new();
        // One request for each connection: nobody holds a place between two.
        http.timer(TokioTimer::new()).header_read_timeout(HEAD_TIME).keep_alive(false);
        let mut outcomes = Outcomes::of(self.of);
        Ok(async move {
            loop {
                let Some((stream, peer)) = outcomes.or_pause(listener.accept().await).await else { continue };
                let Some(place) = Places::take(&places, peer.ip()) else {
                    refused.inc();
                    continue;
                };
                let routes = routes.clone();
                let service = service_fn(move |request| routes.clone().call(request));
                let connection = http.serve_connection(TokioIo::new(stream), service);
                tokio::spawn(async move {
                    // What a peer does wrong ends its own connection and nothing else.
                    let _peer_s_fault = tokio::time::timeout(CONNECTION_TIME, connection).await;
                    drop::<Place>(place);
                });
            }
        })
    }
}

/// Connections that are open, by the address that they come from.
#[derive(Default)]
struct Places(Mutex<HashMap<IpAddr, usize>>);

/// The place of one connection, until it is dropped.
struct Place {
    places: Arc<Places>,
    address: IpAddr,
}

impl Places {
    /// A place for a connection from this address, if there is one.
    fn take(places: &Arc<Self>, address: IpAddr) -> Option<Place> {
        let address = one_peer(address);
        let mut open = places.0.lock().unwrap_or_else(PoisonError::into_inner);
        let of_all: usize = open.values().sum();
        let of_one = open.get(&address).copied().unwrap_or_default();
        if of_all >= CONNECTIONS || of_one >= OF_ONE_ADDRESS {
            return None;
        }
        open.insert(address, of_one + 1);
        drop(open);
        Some(Place { places: places.clone(), address })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut open = self.places.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Entry::Occupied(mut of_one) = open.entry(self.address) {
            *of_one.get_mut() -= 1;
            if *of_one.get() == 0 {
                of_one.remove();
            }
        }
    }
}

/// What counts as one address: of IPv6 a network of 64 bits, which is what one host gets and chooses its addresses from.
fn one_peer(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V4(address) => address.into(),
        IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() & !u128::from(u64::MAX)).into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn take(places: &Arc<Places>, address: &str, times: usize) -> Vec<Place> {
        (0..times).filter_map(|_| Places::take(places, address.parse().unwrap())).collect()
    }

    #[test]
    fn nobody_takes_all_places_and_all_come_back() {
        let places = Arc::new(Places::default());
        let first = take(&places, "192.0.2.1", 100);
        assert_eq!(first.len(), OF_ONE_ADDRESS);
        assert!(take(&places, "::ffff:192.0.2.1", 1).is_empty(), "the same written otherwise");
        let second = take(&places, "192.0.2.2", 100);
        assert_eq!(first.len() + second.len(), CONNECTIONS);
        assert!(take(&places, "192.0.2.3", 1).is_empty(), "no place is left");
        drop(first);
        assert_eq!(take(&places, "192.0.2.3", 1).len(), 1);
        drop(second);
        assert!(places.0.lock().unwrap().is_empty(), "and nothing is kept of who is gone");
    }

    #[test]
    fn a_host_has_one_share_however_many_addresses_of_ipv6_it_has() {
        let places = Arc::new(Places::default());
        let held: Vec<Place> = (0..100).flat_map(|n| take(&places, &format!("2001:db8::{n:x}:1"), 1)).collect();
        assert_eq!(held.len(), OF_ONE_ADDRESS);
        assert_eq!(take(&places, "2001:db8:0:1::1", 1).len(), 1);
    }
}
