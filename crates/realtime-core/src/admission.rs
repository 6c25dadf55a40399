//! [`Admission`]: a connection's permission to begin, and its place among those of its client's address.

use std::{
    collections::{HashMap, hash_map::Entry},
    fmt,
    hash::Hash,
    net::{IpAddr, Ipv6Addr},
    num::NonZeroU32,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use arc_swap::ArcSwap;
use governor::{
    DefaultDirectRateLimiter, NotUntil, Quota, RateLimiter,
    clock::{Clock, DefaultClock},
    state::keyed::HashMapStateStore,
};

use crate::{error::ConnectError, line_limit::LineLimit, metrics::stopwatch::Stopwatch, settings::Limits};

/// Permission of one connection to begin, as [`Hub::admit`](crate::Hub::admit) gives it. While it is held, the connection
/// counts among those of its client's address; [`Hub::connect_admitted`](crate::Hub::connect_admitted) gives it to the
/// session, which holds it until it ends. The default one is counted nowhere.
#[derive(Debug, Default)]
pub struct Admission {
    /// Number of the user's sessions on other nodes, if that is limited and known.
    pub(crate) elsewhere: usize,
    /// The client's address, if it is known.
    pub(crate) client: Option<IpAddr>,
    /// `None` if connections of addresses are not counted.
    place: Option<Place>,
    /// Time since the request.
    pub(crate) watch: Option<Stopwatch>,
}

impl Admission {
    /// Returns `true` if nothing depends on how long it is held.
    pub(crate) fn is_free(&self) -> bool {
        self.place.is_none()
    }
}

/// A place among the connections of a network.
#[derive(Debug)]
struct Place {
    admissions: Arc<Admissions>,
    network: Network,
}

impl Drop for Place {
    fn drop(&mut self) {
        if let Entry::Occupied(mut count) = self.admissions.places().entry(self.network) {
            *count.get_mut() -= 1;
            if *count.get() == 0 {
                count.remove();
            }
        }
    }
}

/// The network that a client is counted by: an IPv4 address, or an IPv6 network of 64 bits, since a client has all
/// addresses of one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Network(IpAddr);

impl Network {
    fn of(address: IpAddr) -> Self {
        Self(match address.to_canonical() {
            IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() & !u128::from(u64::MAX)).into(),
            address @ IpAddr::V4(_) => address,
        })
    }
}

/// The connections of this node by address, and the rates at which they may begin.
pub(crate) struct Admissions {
    bounds: ArcSwap<Bounds>,
    places: Mutex<HashMap<Network, usize>>,
    /// Handshakes until addresses are forgotten that may begin as many as they like again.
    until_sweep: AtomicUsize,
    reports: LineLimit,
}

/// What may begin, and how fast.
struct Bounds {
    max_per_address: usize,
    rate: Rate<DefaultDirectRateLimiter>,
    rate_of_address: Rate<AddressRateLimiter>,
}

type AddressRateLimiter = RateLimiter<Network, HashMapStateStore<Network>, DefaultClock>;

/// A number per second, and what counts for it; none for 0.
struct Rate<L> {
    per_second: u32,
    limiter: Option<Arc<L>>,
}

impl<L> Rate<L> {
    /// The same one goes on with what it has counted.
    fn new(per_second: u32, before: Option<&Self>, make: impl FnOnce(Quota) -> L) -> Self {
        let same = before.filter(|before| before.per_second == per_second);
        let limiter = match same {
            Some(before) => before.limiter.clone(),
            None => quota(per_second).map(|quota| Arc::new(make(quota))),
        };
        Self { per_second, limiter }
    }
}

fn quota(per_second: u32) -> Option<Quota> {
    let rate = NonZeroU32::new(per_second)?;
    Some(Quota::per_second(rate).allow_burst(rate.saturating_mul(NonZeroU32::new(BURST)?)))
}

impl Bounds {
    fn new(limits: &Limits, before: Option<&Self>) -> Self {
        let (rate, of_address) = (limits.max_handshake_rate, limits.max_handshake_rate_per_address);
        Self {
            max_per_address: limits.max_connections_per_address,
            rate: Rate::new(rate, before.map(|before| &before.rate), RateLimiter::direct),
            rate_of_address: Rate::new(
                of_address,
                before.map(|before| &before.rate_of_address),
                RateLimiter::hashmap,
            ),
        }
    }
}

/// Seconds whose worth of handshakes may come at once.
const BURST: u32 = 10;

/// Minimum time between two lines in the log about connections that were refused.
const REPORT_EVERY: Duration = Duration::from_secs(10);

/// Minimum number of handshakes between two sweeps.
const SWEEP: usize = 1024;

impl Admissions {
    pub(crate) fn new(limits: &Limits) -> Self {
        Self {
            bounds: ArcSwap::from_pointee(Bounds::new(limits, None)),
            places: Mutex::default(),
            until_sweep: AtomicUsize::new(SWEEP),
            reports: LineLimit::new(1, REPORT_EVERY),
        }
    }

    /// Replaces the limits.
    pub(crate) fn set(&self, limits: &Limits) {
        let bounds = Bounds::new(limits, Some(&self.bounds.load()));
        self.bounds.store(Arc::new(bounds));
    }

    /// Admits a connection of a client. One whose address is not known counts in the node's rate only.
    ///
    /// An address that is above its own limits takes nothing from the node's.
    pub(crate) fn admit(self: &Arc<Self>, client: Option<IpAddr>) -> Result<Admission, ConnectError> {
        let network = client.map(Network::of);
        self.check_address(network)?;
        let most = self.bounds.load().max_per_address;
        let place = match network {
            Some(network) if most > 0 => Some(self.take_place(network, most)?),
            _ => None,
        };
        self.check_node()?;
        Ok(Admission { elsewhere: 0, client, place, watch: Some(Stopwatch::start()) })
    }

    /// Admits a request that is no connection: only the rates count.
    pub(crate) fn admit_request(&self, client: Option<IpAddr>) -> Result<(), ConnectError> {
        self.check_address(client.map(Network::of))?;
        self.check_node()
    }

    fn check_address(&self, network: Option<Network>) -> Result<(), ConnectError> {
        let bounds = self.bounds.load();
        let (Some(limiter), Some(network)) = (&bounds.rate_of_address.limiter, network) else {
            return Ok(());
        };
        self.sweep(limiter);
        let checked = limiter.check_key(&network);
        checked.map_err(|until| ConnectError::TooFastOfAddress { retry: wait(&until) })
    }

    fn check_node(&self) -> Result<(), ConnectError> {
        let bounds = self.bounds.load();
        let Some(limiter) = &bounds.rate.limiter else { return Ok(()) };
        limiter.check().map_err(|until| ConnectError::TooFast { retry: wait(&until) })
    }

    /// Logs that a limit refuses connections that another client would have got, now and then.
    pub(crate) fn report(&self, error: &ConnectError) {
        if error.is_shared_limit()
            && let Some(unlogged) = self.reports.next()
        {
            tracing::warn!(%error, unlogged, "connections are refused; further refusals are counted for 10 s");
        }
    }

    fn take_place(self: &Arc<Self>, network: Network, most: usize) -> Result<Place, ConnectError> {
        let mut places = self.places();
        let count = places.entry(network).or_default();
        if *count >= most {
            return Err(ConnectError::TooManyOfAddress(most));
        }
        *count += 1;
        Ok(Place { admissions: Arc::clone(self), network })
    }

    /// Forgets addresses now and then. A sweep looks at all of them, so the more there are, the rarer it is.
    fn sweep(&self, limiter: &AddressRateLimiter) {
        if self.until_sweep.fetch_sub(1, Ordering::Relaxed) == 1 {
            limiter.retain_recent();
            limiter.shrink_to_fit();
            self.until_sweep.store(limiter.len().max(SWEEP), Ordering::Relaxed);
        }
    }

    fn places(&self) -> MutexGuard<'_, HashMap<Network, usize>> {
        self.places.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn wait(until: &NotUntil<<DefaultClock as Clock>::Instant>) -> Duration {
    until.wait_time_from(DefaultClock::default().now())
}

impl fmt::Debug for Admissions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Admissions")
            .field("max_per_address", &self.bounds.load().max_per_address)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn admissions(limits: &Limits) -> Arc<Admissions> {
        Arc::new(Admissions::new(limits))
    }

    fn address(text: &str) -> Option<IpAddr> {
        Some(text.parse().unwrap())
    }

    #[test]
    fn addresses_of_one_network_share_their_places_until_these_are_left() {
        let admissions = admissions(&Limits { max_connections_per_address: 2, ..Limits::default() });
        let mut kept = vec![
            admissions.admit(address("2001:db8::1")).unwrap(),
            admissions.admit(address("2001:db8::ffff:0:0:2")).unwrap(),
        ];
        let third = admissions.admit(address("2001:db8::3"));
        assert_eq!(third.unwrap_err(), ConnectError::TooManyOfAddress(2));
        // Others are not concerned, and neither is a client without an address.
        kept.push(admissions.admit(address("2001:db8:0:1::1")).unwrap());
        kept.push(admissions.admit(address("192.0.2.1")).unwrap());
        kept.push(admissions.admit(address("::ffff:192.0.2.1")).unwrap());
        assert!(admissions.admit(address("192.0.2.1")).is_err());
        kept.extend((0..3).map(|_| admissions.admit(None).unwrap()));
        drop(kept.remove(0));
        kept.push(admissions.admit(address("2001:db8::3")).unwrap());
        drop(kept);
        assert!(admissions.places().is_empty(), "nothing is kept of addresses that have left");
    }

    #[test]
    fn ten_seconds_worth_of_handshakes_may_come_at_once_and_the_next_are_told_when() {
        let limits = Limits { max_handshake_rate: 3, max_handshake_rate_per_address: 2, ..Limits::default() };
        let admissions = admissions(&limits);
        for _ in 0..20 {
            admissions.admit(address("192.0.2.1")).unwrap();
        }
        match admissions.admit(address("192.0.2.1")).unwrap_err() {
            ConnectError::TooFastOfAddress { retry } => {
                assert!(retry > Duration::ZERO && retry <= Duration::from_millis(500), "{retry:?}");
            }
            other => panic!("{other}"),
        }
        // What an address was refused is not taken from the node's.
        for _ in 0..10 {
            admissions.admit(address("192.0.2.2")).unwrap();
        }
        for client in [address("192.0.2.2"), None] {
            let error = admissions.admit(client).unwrap_err();
            assert!(matches!(error, ConnectError::TooFast { .. }), "{error}");
        }
    }

    #[test]
    fn addresses_are_forgotten_that_may_begin_as_many_as_they_like_again() {
        let limits = Limits { max_handshake_rate_per_address: 100_000, ..Limits::default() };
        let admissions = admissions(&limits);
        for bits in 0..u32::try_from(20 * SWEEP).unwrap() {
            admissions.admit(Some(std::net::Ipv4Addr::from_bits(bits).into())).unwrap();
        }
        let known = admissions.bounds.load().rate_of_address.limiter.as_ref().unwrap().len();
        assert!(known <= 2 * SWEEP, "{known} addresses are known");
    }
}
