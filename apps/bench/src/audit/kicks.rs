//! Users that are sent a message and kicked at once; their tokens are tried on all nodes from then on.

use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use tokio::{
    sync::oneshot,
    task::JoinSet,
    time::{Instant, sleep, timeout, timeout_at},
};

use crate::audit::{
    api::Api,
    client::{
        ServerEvent,
        connection::{Connection, Request},
    },
    history::{Behaviour, End, Event, Target, Transport},
    message_text::{MessageText, Parsed},
    publisher::publish,
    rng::Rng,
    site::{Phase, Site},
    token::token,
};

/// The first of the users that are kicked, far from the others.
const FIRST: u32 = 1_000_000;

/// Number of users of which at least one has to be kicked.
const TRIES: u32 = 5;

/// Time limit for retrying a kick until it succeeds.
const PATIENCE: Duration = Duration::from_secs(15);

/// Maximum lifetime of a session accepted by a node that had not confirmed the kick.
const HOLD: Duration = Duration::from_secs(5);

/// The longest that a session of a kicked user is watched.
const WATCH: Duration = Duration::from_secs(40);

/// Kicks a user every other second, and tries tokens of those that were kicked, until the run becomes quiet.
pub(crate) async fn run(site: Arc<Site>, secret: String) {
    let mut rng = Rng::fork(site.seed, 4);
    let mut api = Api::new(&site.api_key);
    let mut phase = site.phase.subscribe();
    let (mut tried, mut kicked) = (0, Vec::<(u32, String)>::new());
    let mut probes = JoinSet::new();
    for user in FIRST.. {
        tokio::select! {
            () = sleep(rng.millis(500..1_500)) => {}
            _ = phase.wait_for(|phase| *phase != Phase::Running) => break,
        }
        let Ok(token) = token(&secret, user, &[]) else { return };
        tried += 1;
        if kick(&site, &mut api, &mut rng, user, &token).await {
            for node in 0..site.nodes.len() {
                let transport = if rng.one_in(2) { Transport::Sse } else { Transport::WebSocket };
                probes.spawn(probe(Arc::clone(&site), node, transport, user, token.clone()));
            }
            kicked.push((user, token));
        }
        if !kicked.is_empty() {
            let (user, token) = kicked[rng.index(kicked.len())].clone();
            let transport = if rng.one_in(2) { Transport::Sse } else { Transport::WebSocket };
            probes.spawn(probe(Arc::clone(&site), rng.index(site.nodes.len()), transport, user, token));
        }
        while probes.try_join_next().is_some() {}
    }
    if kicked.is_empty() && tried >= TRIES {
        site.history.push(Event::Problem { what: format!("none of {tried} users could be kicked") });
    }
    // Once more when everything runs again.
    for (user, token) in kicked {
        for node in 0..site.nodes.len() {
            probes.spawn(probe(Arc::clone(&site), node, Transport::WebSocket, user, token.clone()));
        }
        if probes.len() > 50 {
            probes.join_next().await;
        }
    }
    probes.join_all().await;
}

/// Opens a session on each transport, publishes to them and kicks the user at once. Answers whether that was done.
async fn kick(site: &Arc<Site>, api: &mut Api, rng: &mut Rng, user: u32, token: &str) -> bool {
    let mut chains = Vec::new();
    let mut greeted = Vec::new();
    let first = rng.index(site.nodes.len());
    for (turn, transport) in [Transport::Sse, Transport::WebSocket].into_iter().enumerate() {
        let chain = site.chains.fetch_add(1, Ordering::Relaxed);
        site.history.push(Event::ChainBegins {
            chain,
            user,
            topics: Vec::new(),
            behaviour: Behaviour::Kicked,
        });
        let (hello, heard) = oneshot::channel();
        let node = (first + turn) % site.nodes.len();
        tokio::spawn(watch(Arc::clone(site), chain, node, transport, token.to_owned(), hello));
        chains.push(chain);
        greeted.push(heard);
    }
    for greeted in greeted {
        if !matches!(timeout(Duration::from_secs(4), greeted).await, Ok(Ok(()))) {
            return false;
        }
    }
    let why = publish(site, api, rng.index(site.nodes.len()), Target::User(user), 100).await;
    let began = Instant::now();
    while began.elapsed() < PATIENCE {
        let node = site.nodes[rng.index(site.nodes.len())];
        if let Ok((200, answer)) = api.call(node, "DELETE", &format!("/api/online/{user}"), "").await {
            let missing = answer["unconfirmed"].as_array().into_iter().flatten();
            let missing = missing.filter_map(|name| name.as_str().map(str::to_owned)).collect();
            site.history.push(Event::Kicked { chains, user, missing, why });
            return true;
        }
        sleep(Duration::from_millis(100)).await;
    }
    false
}

/// Follows a session to its end.
async fn watch(
    site: Arc<Site>,
    chain: u32,
    node: usize,
    transport: Transport,
    token: String,
    hello: oneshot::Sender<()>,
) {
    let mut hello = Some(hello);
    let deadline = Instant::now() + WATCH;
    site.history.push(Event::Dial { chain, node: node as u32, transport, cursor: None });
    let request =
        Request { address: site.nodes[node], transport, token: &token, cursor: None, small_buffer: false };
    let end = match Connection::open(&request).await {
        Err(end) => end,
        Ok(mut connection) => {
            let mut events = Vec::new();
            let mut drained = false;
            loop {
                let read = timeout_at(deadline, connection.read(4096, &mut events)).await;
                let mut closed = None;
                for server_event in events.drain(..) {
                    let event = match server_event {
                        ServerEvent::Hello { recovered, cursor, .. } => {
                            if let Some(hello) = hello.take() {
                                hello.send(()).ok();
                            }
                            Event::Hello { chain, recovered, cursor }
                        }
                        ServerEvent::Beat { cursor } | ServerEvent::Other { cursor } => {
                            Event::Beat { chain, cursor }
                        }
                        ServerEvent::Gap { reason, cursor } => Event::Gap { chain, reason, cursor },
                        ServerEvent::Message { data, cursor, .. } => match MessageText::read(&data, site.run)
                        {
                            Parsed::Ours(MessageText { n, target, .. }) => {
                                Event::Message { chain, n, target, cursor }
                            }
                            Parsed::Foreign if site.shared => Event::Beat { chain, cursor },
                            _ => Event::Malformed { chain, text: data },
                        },
                        ServerEvent::Malformed(text) => Event::Malformed { chain, text },
                        // The first belongs to the hello; another one means that the node is draining.
                        ServerEvent::Retry(_) => {
                            drained = hello.is_none();
                            continue;
                        }
                        ServerEvent::Bye { .. } => continue,
                        ServerEvent::Close(code) => {
                            closed = Some(End::Closed(code.unwrap_or(1005)));
                            break;
                        }
                    };
                    site.history.push(event);
                }
                match (closed, read) {
                    (Some(end), _) => break end,
                    (None, Ok(Err(End::Ended))) if drained => break End::Later,
                    (None, Ok(Err(end))) => break end,
                    (None, Ok(Ok(_))) => {}
                    (None, Err(_)) => break End::Left,
                }
            }
        }
    };
    site.history.push(Event::End { chain, end });
    site.history.push(Event::ChainEnds { chain });
}

/// Tries a token that was kicked.
async fn probe(site: Arc<Site>, node: usize, transport: Transport, user: u32, token: String) {
    let began = site.history.now();
    let request =
        Request { address: site.nodes[node], transport, token: &token, cursor: None, small_buffer: false };
    let (mut let_in, mut kept) = (false, false);
    if let Ok(mut connection) = Connection::open(&request).await {
        let hold = Instant::now() + HOLD;
        let mut events = Vec::new();
        kept = loop {
            let read = timeout_at(hold, connection.read(4096, &mut events)).await;
            let_in |= events.drain(..).any(|event| matches!(event, ServerEvent::Hello { .. }));
            match read {
                Ok(Ok(_)) => {}
                Ok(Err(_)) => break false,
                Err(_) => break let_in,
            }
        };
    }
    site.history.push(Event::TokenProbed { user, node: node as u32, transport, began, let_in, kept });
}
