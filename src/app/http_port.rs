//! Serving plain HTTP/1.1 beside the checks, within bounds: the admin port, and the back channel of issuers. Each has places of
//! its own, and they share the process's file descriptors with the listeners of checks: without bounds, whoever reaches one
//! could leave none for them.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::Router;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use prometheus::IntCounter;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::oneshot;
use tokio::time::Instant;
use tower_service::Service as _;

use super::StartError;
use super::accept::Outcomes;
use super::listen;

/// Most connections at once, at each port. Probes, scrapers and issuers need a few.
const CONNECTIONS: usize = 32;
/// Most of them from one peer, so that nobody takes all: behind a proxy that is everybody, so it is not few.
const OF_ONE_PEER: usize = 16;
/// How long a request may take until it is answered, from when its connection was accepted: head and body have to arrive.
const REQUEST_TIME: Duration = Duration::from_secs(2);
/// How long a connection may last in all, so that a peer that does not read its answer is not kept either.
const CONNECTION_TIME: Duration = Duration::from_secs(10);
/// A crowd is told of again only if nobody was displaced for so long: whoever makes it could fill the log as well.
const QUIET: Duration = Duration::from_secs(60);

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

    /// The future that serves it for ever; what is open ends with the runtime, within which this has to be called. `displaced`
    /// counts the connections that made room for others.
    ///
    /// # Errors
    /// If the runtime does not take the socket.
    pub(super) fn serve(
        self,
        routes: Router,
        displaced: IntCounter,
    ) -> std::io::Result<impl Future<Output = ()> + Send + use<>> {
        let listener = tokio::net::TcpListener::from_std(self.listener)?;
        let places = Arc::new(Places::default());
        let (mut outcomes, mut crowd) = (Outcomes::of(self.of), Crowd::default());
        Ok(async move {
            loop {
                let Some((stream, peer)) = outcomes.or_pause(listener.accept().await).await else { continue };
                let arrival = Places::take(&places, peer.ip());
                if arrival.displaces {
                    displaced.inc();
                    if crowd.is_news(Instant::now()) {
                        tracing::warn!(of = self.of, "so many connections that the oldest are closed for new ones");
                    }
                }
                tokio::spawn(serve_one(stream, routes.clone(), arrival));
                // What is there already is read before anybody else can displace it.
                tokio::task::yield_now().await;
            }
        })
    }
}

/// Serves a connection until it ends, or its time is over, or its place is another's.
async fn serve_one(stream: impl AsyncRead + AsyncWrite + Unpin, routes: Router, arrival: Arrival) {
    let Arrival { place, lost, .. } = arrival;
    let (place, begin) = (Arc::new(place), Instant::now());
    let service = service_fn(move |request| {
        let (place, mut routes) = (place.clone(), routes.clone());
        async move {
            let answer = tokio::time::timeout_at(begin + REQUEST_TIME, routes.call(request)).await;
            place.is_answered();
            answer.map(|Ok(answer)| answer)
        }
    });
    let mut http = http1::Builder::new();
    // One request for each connection: nobody holds a place between two.
    http.timer(TokioTimer::new()).header_read_timeout(REQUEST_TIME).keep_alive(false);
    let connection = http.serve_connection(TokioIo::new(stream), service);
    // In this order: a request that has just arrived is answered, whoever comes.
    tokio::select! {
        biased;
        // What a peer does wrong ends its own connection and nothing else.
        _peer_s_fault = tokio::time::timeout(CONNECTION_TIME, connection) => {}
        _displaced = lost => {}
    }
}

/// Connections that are open. Whoever comes gets a place: who comes last has most to say, and idle ones would keep others out.
#[derive(Default)]
struct Places(Mutex<Table>);

#[derive(Default)]
struct Table {
    /// How many came so far.
    came: u64,
    /// By when they came.
    open: BTreeMap<u64, Open>,
}

struct Open {
    peer: IpAddr,
    /// Whether its request was whole and handled, so that its answer is all that is left.
    is_answered: bool,
    /// Dropped with the entry, by which the connection learns that it lost its place.
    _keeps: oneshot::Sender<()>,
}

/// A connection that has a place.
struct Arrival {
    place: Place,
    /// Ready once another got it.
    lost: oneshot::Receiver<()>,
    /// Whether it is another's that had to go for it.
    displaces: bool,
}

/// The place of one connection, until it is dropped.
struct Place {
    places: Arc<Places>,
    number: u64,
}

impl Places {
    /// A place for a connection from this address.
    fn take(places: &Arc<Self>, address: IpAddr) -> Arrival {
        let peer = one_peer(address);
        let (keeps, lost) = oneshot::channel();
        let mut table = places.0.lock().unwrap_or_else(PoisonError::into_inner);
        let victim = table.victim(peer);
        if let Some(victim) = victim {
            table.open.remove(&victim);
        }
        let number = table.came;
        table.came += 1;
        table.open.insert(number, Open { peer, is_answered: false, _keeps: keeps });
        drop(table);
        Arrival { place: Place { places: places.clone(), number }, lost, displaces: victim.is_some() }
    }
}

impl Table {
    /// Which connection has to go for one more of a peer, if any: one of its own if it has its share, else of those who have
    /// most. The oldest whose request is not answered; if all are, the oldest, which does not read its answer.
    fn victim(&self, peer: IpAddr) -> Option<u64> {
        let mut held: BTreeMap<IpAddr, usize> = BTreeMap::new();
        for open in self.open.values() {
            *held.entry(open.peer).or_default() += 1;
        }
        let of = |peer: &IpAddr| held.get(peer).copied().unwrap_or_default();
        let has_its_share = of(&peer) >= OF_ONE_PEER;
        if !has_its_share && self.open.len() < CONNECTIONS {
            return None;
        }
        let most = held.values().copied().max().unwrap_or_default();
        let may_go = |open: &Open| if has_its_share { open.peer == peer } else { of(&open.peer) == most };
        let candidates = self.open.iter().filter(|(_, open)| may_go(open));
        candidates.min_by_key(|(number, open)| (open.is_answered, **number)).map(|(number, _)| *number)
    }
}

impl Place {
    fn is_answered(&self) {
        let mut table = self.places.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(open) = table.open.get_mut(&self.number) {
            open.is_answered = true;
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.places.0.lock().unwrap_or_else(PoisonError::into_inner).open.remove(&self.number);
    }
}

/// When somebody was displaced last.
#[derive(Default)]
struct Crowd(Option<Instant>);

impl Crowd {
    /// Whether somebody is displaced for the first time since it was quiet.
    fn is_news(&mut self, now: Instant) -> bool {
        self.0.replace(now).is_none_or(|last| now.duration_since(last) >= QUIET)
    }
}

/// What counts as one peer: this host, whichever of its addresses it takes; of IPv6 a network of 64 bits, which is what one host
/// gets and chooses its addresses from.
fn one_peer(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        address if address.is_loopback() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V4(address) => address.into(),
        IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() & !u128::from(u64::MAX)).into(),
    }
}

#[cfg(test)]
mod tests {
    use axum::http::StatusCode;
    use axum::routing::post;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;

    fn take(places: &Arc<Places>, address: &str, times: usize) -> Vec<Arrival> {
        (0..times).map(|_| Places::take(places, address.parse().unwrap())).collect()
    }

    /// Which of them still have their places.
    fn kept(arrivals: &mut [Arrival]) -> Vec<usize> {
        let has = |arrival: &mut Arrival| arrival.lost.try_recv() == Err(oneshot::error::TryRecvError::Empty);
        (0..arrivals.len()).filter(|at| has(&mut arrivals[*at])).collect()
    }

    fn open(places: &Places) -> usize {
        places.0.lock().unwrap().open.len()
    }

    #[test]
    fn whoever_has_its_share_displaces_its_own_oldest() {
        let places = Arc::new(Places::default());
        let mut other = take(&places, "192.0.2.9", 1);
        let mut first = take(&places, "192.0.2.1", OF_ONE_PEER);
        assert!(first.iter().all(|arrival| !arrival.displaces));
        let second = take(&places, "::ffff:192.0.2.1", 3);
        assert!(second.iter().all(|arrival| arrival.displaces), "the same, written otherwise");
        assert_eq!((kept(&mut first), kept(&mut other)), ((3..OF_ONE_PEER).collect(), vec![0]));
        assert_eq!(open(&places), OF_ONE_PEER + 1);
        drop((first, second, other));
        assert_eq!(open(&places), 0, "nothing is kept of who is gone");
    }

    #[test]
    fn whoever_comes_when_all_is_full_displaces_the_oldest_of_those_who_have_most() {
        let places = Arc::new(Places::default());
        let mut few = take(&places, "192.0.2.1", CONNECTIONS - OF_ONE_PEER - 1);
        let mut honest = take(&places, "192.0.2.2", 1);
        let mut most = take(&places, "192.0.2.3", OF_ONE_PEER);
        let mut late = take(&places, "192.0.2.4", 2);
        // Now two have as many, and the first of them came first.
        assert_eq!((kept(&mut few).len(), kept(&mut most)), (14, (1..OF_ONE_PEER).collect()));
        assert!(kept(&mut honest) == [0] && kept(&mut late) == [0, 1] && open(&places) == CONNECTIONS);
    }

    /// Their answers are on the way; only where nothing else is left the oldest of them has to go.
    #[test]
    fn who_is_answered_goes_last() {
        let places = Arc::new(Places::default());
        let mut held = take(&places, "192.0.2.1", OF_ONE_PEER);
        held.iter().take(OF_ONE_PEER - 1).for_each(|arrival| arrival.place.is_answered());
        let mut next = take(&places, "192.0.2.1", 1);
        assert_eq!(kept(&mut held), (0..OF_ONE_PEER - 1).collect::<Vec<_>>());
        next[0].place.is_answered();
        let last = take(&places, "192.0.2.1", 1);
        assert_eq!((kept(&mut held), kept(&mut next)), ((1..OF_ONE_PEER - 1).collect(), vec![0]));
        drop(last);
    }

    #[test]
    fn a_host_is_one_peer_however_many_addresses_it_has() {
        let of = |address: &str| one_peer(address.parse().unwrap());
        for loopback in ["127.0.0.2", "127.255.255.254", "::1", "::ffff:127.0.0.3"] {
            assert_eq!(of(loopback), of("127.0.0.1"), "{loopback}");
        }
        assert_eq!(of("2001:db8::1"), of("2001:db8::ffff:0:0:2"));
        for (one, other) in [("2001:db8::1", "2001:db8:0:1::1"), ("192.0.2.1", "192.0.2.2"), ("::2", "::1")] {
            assert_ne!(of(one), of(other), "{one} {other}");
        }
    }

    #[test]
    fn a_crowd_is_told_of_once() {
        let (begin, mut crowd) = (Instant::now(), Crowd::default());
        let told = [0, 1, 59, 118, 178, 179].map(|after| crowd.is_news(begin + Duration::from_secs(after)));
        assert_eq!(told, [true, false, false, false, true, false]);
    }

    /// By the clock of the tests, which goes on only when everybody waits.
    #[tokio::test(start_paused = true)]
    async fn a_request_has_little_time_in_all_however_it_trickles() {
        const HEAD: &str = "POST / HTTP/1.1\r\nhost: p\r\ncontent-length: 9999\r\n\r\n";
        const WHOLE: &str = "POST / HTTP/1.1\r\nhost: p\r\ncontent-length: 1\r\n\r\nx";
        let routes = Router::new().route("/", post(async |_: String| StatusCode::OK));
        let places = Arc::new(Places::default());
        // Nothing; a head that does not end; a body that does not end.
        for sent in ["", "POST / HTTP/1.1\r\nx: ", HEAD] {
            let (begin, arrival) = (Instant::now(), take(&places, "192.0.2.1", 1).remove(0));
            let (mut client, server) = tokio::io::duplex(64 * 1024);
            client.write_all(sent.as_bytes()).await.unwrap();
            let serving = tokio::spawn(serve_one(server, routes.clone(), arrival));
            while !serving.is_finished() {
                let _closed_already = if sent.is_empty() { Ok(()) } else { client.write_all(b"x").await };
                tokio::time::advance(Duration::from_millis(100)).await;
                tokio::task::yield_now().await;
            }
            assert!(begin.elapsed() < REQUEST_TIME + Duration::from_millis(500), "{sent:?}: {:?}", begin.elapsed());
            let mut said = String::new();
            client.read_to_string(&mut said).await.unwrap();
            assert!(!said.contains("200"), "{said}");
        }
        // What is answered is over, also if more of it was announced.
        let elsewhere = HEAD.replacen('/', "/elsewhere", 1);
        for (sent, status) in [(WHOLE, "200"), (&elsewhere, "404")] {
            let (begin, arrival) = (Instant::now(), take(&places, "192.0.2.1", 1).remove(0));
            let (mut client, server) = tokio::io::duplex(1024);
            client.write_all(sent.as_bytes()).await.unwrap();
            serve_one(server, routes.clone(), arrival).await;
            assert_eq!(begin.elapsed(), Duration::ZERO, "{sent}");
            let mut said = String::new();
            client.read_to_string(&mut said).await.unwrap();
            assert!(said.starts_with(&format!("HTTP/1.1 {status} ")), "{said}");
        }
        assert_eq!(open(&places), 0);
    }
}
