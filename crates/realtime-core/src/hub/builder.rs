//! [`HubBuilder`]: configures and starts a hub.

use std::{
    fmt,
    sync::{Arc, Mutex, atomic::AtomicBool},
};

use futures_util::FutureExt;
use tokio::task::JoinSet;

use super::{
    Hub, Inner,
    announcer::announce,
    cluster_limit::{self, ClusterLimit},
    outage::{self, Outage},
    pump::{Health, pump},
    tasks::{essential, restarting},
};
use crate::{
    CloseReason, MemoryBus, SessionHandle, Settings,
    auth::{MemoryTickets, TicketRate, TicketStore, TopicPolicy},
    bus::Bus,
    control::{Control, LocalControl},
    interest::Interest,
    node::Node,
    presence::{LocalPresence, Presence},
    registry::Registry,
    revocation_list::RevocationList,
    session::hooks::Hooks,
    settings::SettingsError,
    streams::{keeper::keep, loader::Loader},
};

/// The parts that connect a node to the others: a bus, a presence and a control that agree, and the node's name.
///
/// ```
/// use realtime_core::{Cluster, Hub, HubBuilder, MemoryBus, presence::NoPresence};
///
/// /// Nodes of one process, for a test.
/// struct Threads {
///     bus: MemoryBus,
///     node: String,
/// }
///
/// impl Cluster for Threads {
///     fn install(self, hub: HubBuilder) -> HubBuilder {
///         hub.node(self.node).bus(self.bus).presence(|_| NoPresence)
///     }
/// }
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let bus = MemoryBus::new();
/// let one = Hub::builder().cluster(Threads { bus: bus.clone(), node: "one".into() }).start()?;
/// let two = Hub::builder().cluster(Threads { bus, node: "two".into() }).start()?;
/// assert_eq!((one.node(), two.node()), ("one", "two"));
/// # Ok(())
/// # }
/// ```
pub trait Cluster {
    /// Sets the parts.
    fn install(self, hub: HubBuilder) -> HubBuilder;
}

/// Builder of a [`Hub`]; see [`Hub::builder`].
pub struct HubBuilder {
    settings: Settings,
    bus: Arc<dyn Bus>,
    presence: Option<MakePresence>,
    control: Option<MakeControl>,
    node: String,
    hooks: Hooks,
    topic_policy: Option<Arc<dyn TopicPolicy>>,
    tickets: Option<MakeTickets>,
}

/// Creates the store of tickets.
type MakeTickets = Box<dyn FnOnce() -> Arc<dyn TicketStore> + Send>;

/// Creates the cluster's control from this node's.
type MakeControl = Box<dyn FnOnce(LocalControl) -> Arc<dyn Control> + Send>;

/// Creates the cluster's presence from this node's.
type MakePresence = Box<dyn FnOnce(LocalPresence) -> Arc<dyn Presence> + Send>;

impl Hub {
    /// Returns a builder with the defaults: an in-memory bus and a random node name.
    pub fn builder() -> HubBuilder {
        HubBuilder::new()
    }
}

impl HubBuilder {
    /// Creates a builder with the defaults: an in-memory bus and a random node name.
    fn new() -> Self {
        Self {
            settings: Settings::default(),
            bus: Arc::new(MemoryBus::new()),
            presence: None,
            control: None,
            node: format!("{:08x}", rand::random::<u32>()),
            hooks: Hooks::default(),
            topic_policy: None,
            tickets: None,
        }
    }

    /// Sets sizes, times and limits.
    #[must_use]
    pub fn settings(mut self, settings: Settings) -> Self {
        self.settings = settings;
        self
    }

    /// Sets what connects this node with the others, its name included. Each part can be replaced by setting it afterwards.
    #[must_use]
    pub fn cluster(self, cluster: impl Cluster) -> Self {
        cluster.install(self)
    }

    /// Sets the bus between nodes. One that is chosen at run time may be an `Arc<dyn Bus>`.
    #[must_use]
    pub fn bus(mut self, bus: impl Bus) -> Self {
        self.bus = Arc::new(bus);
        self
    }

    /// Sets the cluster's presence, created from this node's. Default: the presence of this node alone.
    #[must_use]
    pub fn presence<P: Presence>(mut self, make: impl FnOnce(LocalPresence) -> P + Send + 'static) -> Self {
        self.presence = Some(Box::new(|local| Arc::new(make(local))));
        self
    }

    /// Sets the cluster's control, created from this node's. Default: the control of this node alone. The hub refuses
    /// connections until it has started; see [`Hub::started`].
    #[must_use]
    pub fn control<C: Control>(mut self, make: impl FnOnce(LocalControl) -> C + Send + 'static) -> Self {
        self.control = Some(Box::new(|local| Arc::new(make(local))));
        self
    }

    /// Sets the node's name, as it appears in presence.
    #[must_use]
    pub fn node(mut self, name: impl Into<String>) -> Self {
        self.node = name.into();
        self
    }

    /// Sets a function that is called with every session of this node once it has opened, before its first frame is
    /// written. Messages that the function sends to the session precede all others.
    ///
    /// It runs on the session's worker, so it must not block; spawn a task for work that waits. A second call replaces
    /// the first function.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # use realtime_core::Hub;
    /// let hub = Hub::builder()
    ///     .on_open(|session| println!("{} opened a {}", session.user(), session.transport()))
    ///     .on_close(|session, reason| println!("{} ended: {}", session.user(), reason.name()))
    ///     .start()?;
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn on_open(mut self, hook: impl Fn(&SessionHandle) + Send + Sync + 'static) -> Self {
        self.hooks.on_open = Some(Box::new(hook));
        self
    }

    /// Sets a function that is called once with every session of this node that has ended, and with the reason. Like
    /// [`Self::on_open`], it must not block.
    #[must_use]
    pub fn on_close(mut self, hook: impl Fn(&SessionHandle, CloseReason) + Send + Sync + 'static) -> Self {
        self.hooks.on_close = Some(Box::new(hook));
        self
    }

    /// Sets the policy that decides which topics clients may subscribe to, beyond those that their logins name. Default:
    /// none of them.
    #[must_use]
    pub fn topic_policy(mut self, policy: impl TopicPolicy) -> Self {
        self.topic_policy = Some(Arc::new(policy));
        self
    }

    /// Sets the store of [tickets](Hub::issue_ticket), which is made when the hub starts. Default: [`MemoryTickets`], whose
    /// tickets are those of this node alone.
    #[must_use]
    pub fn tickets<S: TicketStore>(mut self, make: impl FnOnce() -> S + Send + 'static) -> Self {
        self.tickets = Some(Box::new(|| Arc::new(make())));
        self
    }

    /// Starts the hub on the current tokio runtime. On the bus in memory it is [ready](Hub::ready) at once; any other bus
    /// has to answer first.
    ///
    /// # Errors
    /// [`SettingsError`] when settings contradict each other.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    pub fn start(self) -> Result<Hub, SettingsError> {
        self.settings.check()?;
        let Self { settings, bus, presence, control, node: name, hooks, topic_policy, tickets } = self;
        let name: Arc<str> = name.into();
        let mut node = Node::new(settings);
        node.hooks = hooks;
        node.initial.push(Arc::clone(&node.streams) as _);
        let node = Arc::new(node);
        let registry = Arc::new(Registry::new(Arc::clone(&node)));
        node.set_bus_down(true);
        if bus.wants_interest() {
            node.interest.set(Interest::new(Arc::clone(&bus))).ok();
        }
        let health = Arc::new(Health::new("the bus has not answered yet"));
        let mut tasks = JoinSet::new();
        let store = bus.streams();
        let loader = Loader::new(store.clone());
        let pump = pump(bus.subscribe(), Arc::clone(&registry), loader, Arc::clone(&health));
        let mut pump = Box::pin(essential("pump", pump, Arc::clone(&health)));
        // What is there already is taken at once, so a hub whose bus needs nobody's answer starts ready.
        if pump.as_mut().now_or_never().is_none() {
            tasks.spawn(pump);
        }
        let local = LocalPresence::new(Arc::clone(&node), Arc::clone(&name));
        let presence: Arc<dyn Presence> = match presence {
            Some(make) => make(local),
            None => Arc::new(local),
        };
        node.presence.set(Arc::downgrade(&presence)).ok();
        let announcing = Arc::clone(&registry);
        tasks.spawn(restarting("announcer", move || announce(Arc::clone(&announcing))));
        let leaving = Arc::clone(&node);
        tasks.spawn(restarting("leavers", move || {
            let node = Arc::clone(&leaving);
            async move { node.directory.expire_offline(node.settings.presence.grace).await }
        }));
        if let Some(store) = &store {
            let (store, keeping) = (Arc::clone(store), Arc::clone(&node));
            tasks.spawn(restarting("text streams", move || keep(Arc::clone(&keeping), Arc::clone(&store))));
        }
        #[cfg(feature = "opentelemetry")]
        {
            node.write_spans.node.set(Arc::clone(&name)).ok();
            let writing = Arc::clone(&node);
            tasks.spawn(restarting("spans of writes", move || {
                let node = Arc::clone(&writing);
                async move { node.write_spans.run().await }
            }));
        }
        let outage = Arc::<Outage>::default();
        let (watched, watching) = (Arc::clone(&outage), Arc::clone(&node));
        tasks.spawn(restarting("bus outage", move || {
            outage::watch(Arc::clone(&watched), Arc::clone(&watching))
        }));
        let revoked = Arc::new(RevocationList::default());
        let local = LocalControl::new(Arc::clone(&registry), Arc::clone(&revoked), Arc::clone(&name));
        let control: Arc<dyn Control> = match control {
            Some(make) => make(local.clone()),
            None => Arc::new(local.clone()),
        };
        let cluster_limit = Arc::<ClusterLimit>::default();
        // It waits for sessions that are to be counted, of which there are none without the limit.
        let (limit, watched) = (Arc::clone(&cluster_limit), Arc::clone(&node));
        let (counted, commanded, own) = (Arc::clone(&presence), Arc::clone(&control), Arc::clone(&name));
        tasks.spawn(restarting("limit of the cluster", move || {
            cluster_limit::watch(
                Arc::clone(&limit),
                Arc::clone(&watched),
                Arc::clone(&counted),
                Arc::clone(&commanded),
                Arc::clone(&own),
            )
        }));
        let draining = AtomicBool::default();
        let inner = Inner {
            registry,
            bus,
            streams: store,
            writing: Mutex::default(),
            presence,
            cluster_limit,
            revoked,
            control,
            local,
            topic_policy,
            tickets: tickets.map_or_else(|| Arc::new(MemoryTickets::new()) as _, |make| make()),
            ticket_rate: TicketRate::default(),
            draining,
            outage,
            health,
            name,
            _tasks: tasks,
        };
        Ok(Hub(Arc::new(inner)))
    }
}

impl fmt::Debug for HubBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HubBuilder")
            .field("settings", &self.settings)
            .field("node", &self.node)
            .finish_non_exhaustive()
    }
}

#[cfg(all(test, not(feature = "shuttle")))]
mod tests {
    use super::*;
    use crate::testkit::{TestSession, ready};

    #[tokio::test]
    async fn what_is_sent_to_a_session_that_opens_precedes_all_else() {
        let hub = Hub::builder().on_open(|session| session.send_local("welcome").unwrap()).start().unwrap();
        ready(&hub).await;
        let prices = crate::Topic::new("prices").unwrap();
        let price = crate::Envelope::to_topic(prices.clone(), crate::Scope::Both, "42".into());
        hub.publish(price.retain()).await.unwrap();
        let mut principal = crate::Principal::new(1.into(), "t");
        principal.topics = vec![prices];
        let sse = crate::Transport::new("sse");
        let mut session = TestSession::open(&hub, principal, sse, Some("1.1")).await.unwrap();
        assert_eq!(session.text().await, "welcome");
        assert!(matches!(session.next().await, crate::testkit::TestEvent::Gap { .. }));
        assert_eq!(session.text().await, "42");
    }

    #[tokio::test]
    async fn all_parts_may_be_chosen_at_run_time() {
        let bus: Arc<dyn Bus> = Arc::new(MemoryBus::new());
        let hub = Hub::builder()
            .bus(Arc::clone(&bus))
            .presence(|local| Arc::new(local) as Arc<dyn Presence>)
            .control(|local| Arc::new(local) as Arc<dyn Control>)
            .start()
            .unwrap();
        ready(&hub).await;
        let mut session = TestSession::connect(&hub, 1.into()).await;
        let message = Arc::new(crate::Envelope::broadcast(crate::Scope::Both, "by the bus".into()));
        bus.publish(&message).await.unwrap();
        assert_eq!(session.text().await, "by the bus");
        assert_eq!(hub.presence().count().await.unwrap().sessions, 1);
        assert_eq!(hub.kick(&1.into()).await.unwrap().closed, 1);
    }
}
