//! State that a page loads with a cursor, and the messages behind that cursor, together miss no update and repeat none.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
};

use actix_web::{
    App, Responder,
    web::{self, Data, Json},
};
use futures_util::{
    future::{BoxFuture, join_all},
    stream::BoxStream,
};
use realtime_core::{
    Envelope, Hub, MemoryBus, Position,
    auth::{JwtAlgorithm, JwtAuthenticator},
    bus::{Bus, BusError, BusEvent, Published},
};
use realtime_tests::{Running, SECRET, Server, ServerKind, Socket, start_server, token, within};
use realtime_websocket::{WebSocketConfig, cursor_header};
use serde_json::{Value, json};
use tokio::{sync::Mutex as AsyncMutex, task::yield_now};

/// The application's database: objects with their versions.
#[derive(Default)]
struct Store(Mutex<BTreeMap<String, u64>>);

impl Store {
    /// Commits one update of an object and returns the object's new version.
    fn commit(&self, object: &str) -> u64 {
        let mut objects = self.0.lock().unwrap();
        let version = objects.entry(object.to_owned()).or_default();
        *version += 1;
        *version
    }

    fn load(&self) -> BTreeMap<String, u64> {
        self.0.lock().unwrap().clone()
    }
}

/// A node of the application; its page loads `/state` and then opens a WebSocket.
fn node(hub: Hub, store: &Arc<Store>, lock: Option<&Arc<AsyncMutex<()>>>) -> Running {
    async fn state(
        hub: Data<Hub>,
        store: Data<Store>,
        lock: Data<Option<Arc<AsyncMutex<()>>>>,
    ) -> impl Responder {
        let _lock = match &**lock {
            Some(lock) => Some(lock.lock().await),
            None => None,
        };
        let cursor = cursor_header(&hub);
        // A query takes its time.
        yield_now().await;
        cursor.on(Json(store.load()))
    }
    let (store, lock) = (Arc::clone(store), Data::new(lock.cloned()));
    let jwt = Arc::new(JwtAuthenticator::new(JwtAlgorithm::Hs256, SECRET).unwrap());
    let app = move || {
        let routes = realtime_websocket::routes(hub.clone(), jwt.clone(), WebSocketConfig::default());
        App::new()
            .app_data(Data::new(hub.clone()))
            .app_data(Data::from(Arc::clone(&store)))
            .app_data(lock.clone())
            .route("/state", web::get().to(state))
            .configure(routes)
    };
    start_server!(ServerKind::of_run(), app, workers(1))
}

/// Loads the state, with the cursor if the answer has one.
async fn load(server: &Running) -> (BTreeMap<String, u64>, Option<String>) {
    let response = reqwest::get(format!("http://127.0.0.1:{}/state", server.port())).await.unwrap();
    let cursor =
        response.headers().get("x-realtime-cursor").map(|cursor| cursor.to_str().unwrap().to_owned());
    (response.json().await.unwrap(), cursor)
}

/// The page: state, and what it has seen of the messages.
struct Page {
    state: BTreeMap<String, u64>,
    socket: Socket,
}

impl Page {
    /// Loads the state from one node and subscribes at another one.
    async fn open(loads: &Running, subscribes: &Running) -> Self {
        let (state, cursor) = load(loads).await;
        let cursor = cursor.expect("the bus has positions");
        let mut socket = Socket::open(subscribes, &token(1), &["realtime.v1"], Some(&cursor)).await.unwrap();
        let hello = socket.json().await;
        assert_eq!(hello["recovered"], true, "{cursor}");
        Self { state, socket }
    }

    /// Applies the next message. Returns `false` if the state contained it already.
    async fn apply(&mut self) -> bool {
        let message = self.socket.message().await;
        assert_eq!(message["type"], "message", "{message}");
        let update: Value = serde_json::from_str(message["data"].as_str().unwrap()).unwrap();
        let (object, version) = (update["object"].as_str().unwrap(), update["version"].as_u64().unwrap());
        let own = self.state.entry(object.to_owned()).or_default();
        assert!(version <= *own + 1, "{object} jumps from {own} to {version}");
        let is_new = version == *own + 1;
        if is_new {
            *own = version;
        }
        is_new
    }
}

const WRITERS: usize = 5;
const UPDATES: usize = 2_000;
const PAGES: usize = 8;

/// Each writer has objects of its own, so that the messages of an object are in the order of its versions.
async fn write(writer: usize, hub: &Hub, store: &Store, lock: Option<&AsyncMutex<()>>) {
    for n in 0..UPDATES {
        let _lock = match lock {
            Some(lock) => Some(lock.lock().await),
            None => None,
        };
        let object = format!("{writer}:{}", n % 3);
        let version = store.commit(&object);
        if n % 7 == 0 {
            // Loads in between find the update in the state, and its message behind the cursor.
            yield_now().await;
        }
        let update = json!({ "object": object, "version": version }).to_string();
        hub.publish_all(update).await.unwrap();
    }
}

/// Races all updates against the loads of pages, and returns the numbers of loads, of applied messages and of those that
/// a loaded state contained already.
async fn race(nodes: &[(Hub, Running)], store: &Store, lock: Option<&AsyncMutex<()>>) -> [usize; 3] {
    let written = AtomicBool::default();
    let counts: [AtomicUsize; 3] = Default::default();
    let writers = async {
        join_all((0..WRITERS).map(|writer| write(writer, &nodes[writer % nodes.len()].0, store, lock))).await;
        written.store(true, Ordering::SeqCst);
    };
    let (written, counts_of) = (&written, &counts);
    let pages = (0..PAGES).map(|page| async move {
        for round in page.. {
            let last = written.load(Ordering::SeqCst);
            let (loads, subscribes) = (&nodes[round % nodes.len()].1, &nodes[round / 2 % nodes.len()].1);
            let mut page = Page::open(loads, subscribes).await;
            counts_of[0].fetch_add(1, Ordering::Relaxed);
            // The last page of each stays open until it has everything.
            for _ in 0..if last { usize::MAX } else { 50 + 10 * round } {
                if page.state.values().sum::<u64>() == (WRITERS * UPDATES) as u64 {
                    break;
                }
                let count = if page.apply().await { 1 } else { 2 };
                counts_of[count].fetch_add(1, Ordering::Relaxed);
            }
            if last {
                assert_eq!(page.state, store.load());
                return;
            }
        }
    });
    within("all updates", futures_util::future::join(writers, join_all(pages))).await;
    counts.map(AtomicUsize::into_inner)
}

#[actix_web::test]
async fn ten_thousand_updates_and_loads_at_two_nodes_miss_nothing_and_apply_nothing_twice() {
    let (bus, store) = (MemoryBus::new(), Arc::<Store>::default());
    let node = || {
        let hub = Hub::builder().bus(bus.clone()).start().unwrap();
        (hub.clone(), node(hub, &store, None))
    };
    let nodes = [node(), node()];
    let [loads, applied, contained] = race(&nodes, &store, None).await;
    println!("{loads} loads, {applied} messages applied, {contained} contained in the state already");
    assert!(applied > 0);
}

#[actix_web::test]
async fn a_state_that_is_loaded_under_its_writers_lock_contains_nothing_that_lies_behind_its_cursor() {
    let (store, lock) = (Arc::<Store>::default(), Arc::<AsyncMutex<()>>::default());
    let hub = Hub::builder().start().unwrap();
    let nodes = [(hub.clone(), node(hub, &store, Some(&lock)))];
    let [loads, applied, contained] = race(&nodes, &store, Some(&lock)).await;
    println!("{loads} loads, {applied} messages applied");
    assert_eq!(contained, 0, "of {applied} messages");
}

#[actix_web::test]
async fn without_positions_a_response_has_no_cursor() {
    struct NoPositions;

    impl Bus for NoPositions {
        fn publish<'a>(&'a self, _: &'a Arc<Envelope>) -> BoxFuture<'a, Result<Published, BusError>> {
            Box::pin(async { Ok(Published { position: None::<Position> }) })
        }

        fn subscribe(&self) -> BoxStream<'static, BusEvent> {
            let up = futures_util::stream::once(async { BusEvent::Up(None) });
            Box::pin(futures_util::StreamExt::chain(up, futures_util::stream::pending()))
        }
    }

    let hub = Hub::builder().bus(NoPositions).start().unwrap();
    within("a start", async {
        while hub.ready().is_err() {
            yield_now().await;
        }
    })
    .await;
    assert_eq!(hub.cursor(), None);
    let server = node(hub, &Arc::default(), None);
    assert_eq!(load(&server).await, (BTreeMap::new(), None));
}
