//! A client that was let into a topic late reads nothing of it from before, whatever cursor it brings.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex},
};

use realtime_core::{
    Authenticator, BoxFuture, Hub, Position, Principal, Topic, UserId,
    auth::{AuthError, Handshake, TopicGrant, TopicPolicy, TopicRefusal},
};
use realtime_tests::{Embedded, EventStream, Socket, session};
use serde_json::{Value, json};

/// Members of rooms, and the position at which each of them was let in.
#[derive(Clone, Default)]
struct Members(Arc<Mutex<HashMap<Member, Option<Position>>>>);

type Member = (UserId, String);

impl Members {
    fn let_in(&self, user: i64, room: &str, hub: &Hub) {
        self.0.lock().unwrap().insert((user.into(), room.to_owned()), hub.cursor());
    }

    fn always(&self, user: i64, room: &str) {
        self.0.lock().unwrap().insert((user.into(), room.to_owned()), None);
    }
}

impl TopicPolicy for Members {
    fn may_subscribe<'a>(
        &'a self,
        principal: &'a Principal,
        topic: &'a Topic,
    ) -> BoxFuture<'a, Result<TopicGrant, TopicRefusal>> {
        Box::pin(async move {
            tokio::task::yield_now().await;
            let member = (principal.user.clone(), topic.to_string());
            let joined = self.0.lock().unwrap().get(&member).copied();
            joined.map(TopicGrant::after).ok_or_else(TopicRefusal::default)
        })
    }
}

/// Takes the user's number for a token; the history of user 3 begins where the application says.
struct Numbers(Arc<Mutex<Option<Position>>>);

impl Authenticator for Numbers {
    fn authenticate<'a>(&'a self, handshake: &'a Handshake) -> BoxFuture<'a, Result<Principal, AuthError>> {
        Box::pin(async move {
            let token = handshake.token().unwrap_or_default();
            let user: i64 = token.parse().map_err(|_| AuthError::Unauthorized("no number".to_owned()))?;
            let mut principal = Principal::new(user.into(), token);
            if user == 3 {
                principal.history_after = *self.0.lock().unwrap();
            }
            Ok(principal)
        })
    }
}

struct Chat {
    server: Embedded,
    members: Members,
    history: Arc<Mutex<Option<Position>>>,
    start: Position,
}

impl Chat {
    async fn start() -> Self {
        let members = Members::default();
        let hub = Hub::builder().topic_policy(members.clone()).start().unwrap();
        let history = Arc::<Mutex<Option<Position>>>::default();
        let server = Embedded::start_with(hub, Arc::new(Numbers(Arc::clone(&history))));
        server.hub.publish_to_topic("elsewhere", "the first").await.unwrap();
        realtime_tests::until("the hub to be up", || server.hub.cursor().is_some()).await;
        let start = server.hub.cursor().unwrap();
        Self { server, members, history, start }
    }

    async fn say(&self, room: &str, text: &str) {
        self.server.hub.publish_to_topic(room, text.to_owned()).await.unwrap();
    }

    /// Returns with a cursor, in a room. The texts that come up to and with `last`, on both transports.
    async fn replayed(&self, user: i64, room: &str, last: &str) -> [Vec<String>; 2] {
        let cursor = self.start.to_string();
        let path = format!("/resource/websocket?Authorization={user}&topics={room}&cursor={cursor}");
        let v1 = [("Sec-WebSocket-Protocol", "realtime.v1")];
        let mut socket = Socket::open_at(&self.server, &path, &v1).await.unwrap();
        let hello = socket.json().await;
        assert_eq!((&hello["recovered"], &hello["subscribed"]), (&json!(true), &json!([room])), "{hello}");
        let (mut by_socket, mut by_stream) = (Vec::new(), Vec::new());
        while by_socket.last().is_none_or(|text| text != last) {
            let message = socket.message().await;
            assert_eq!(message["type"], "message", "no gap: {message}");
            by_socket.push(message["data"].as_str().unwrap().to_owned());
        }
        let query = format!("&topics={room}");
        let mut stream =
            EventStream::open_query(&self.server, &user.to_string(), &query, Some(&cursor)).await.unwrap();
        while by_stream.last().is_none_or(|text| text != last) {
            let event = stream.next().await.unwrap();
            assert_eq!(event.event, "message", "no gap: {event:?}");
            by_stream.push(event.data);
        }
        [by_socket, by_stream]
    }
}

#[actix_web::test]
async fn an_old_cursor_reads_a_room_from_its_grant_on_over_both_transports_and_again_after_each_return() {
    let chat = Chat::start().await;
    chat.members.always(1, "room");
    chat.say("room", "secret").await;
    chat.server.hub.publish_to_user(2, "yours").await.unwrap();
    chat.members.let_in(2, "room", &chat.server.hub);
    chat.say("room", "welcome").await;
    chat.say("room", "last").await;
    for _ in 0..2 {
        assert_eq!(chat.replayed(1, "room", "last").await, [["secret", "welcome", "last"]; 2]);
        assert_eq!(chat.replayed(2, "room", "last").await, [["yours", "welcome", "last"]; 2]);
    }
}

#[actix_web::test]
async fn a_history_of_the_login_begins_where_the_application_says_in_all_topics() {
    let chat = Chat::start().await;
    chat.members.always(3, "room");
    chat.say("room", "secret").await;
    chat.server.hub.publish_to_user(3, "of the former owner").await.unwrap();
    chat.server.hub.publish_all("an old notice").await.unwrap();
    *chat.history.lock().unwrap() = chat.server.hub.cursor();
    chat.server.hub.publish_to_user(3, "yours").await.unwrap();
    chat.say("room", "last").await;
    assert_eq!(chat.replayed(3, "room", "last").await, [["yours", "last"]; 2]);
}

#[actix_web::test]
async fn a_subscription_begins_with_what_follows_it_and_a_session_may_be_let_into_a_room_while_it_is_open() {
    let chat = Chat::start().await;
    chat.say("room", "secret").await;
    let path = "/resource/websocket?Authorization=2";
    let v1 = [("Sec-WebSocket-Protocol", "realtime.v1")];
    let mut socket = Socket::open_at(&chat.server, path, &v1).await.unwrap();
    assert_eq!(socket.json().await["type"], "hello");
    session(&chat.server.hub, 2).await;
    let subscribe = json!({ "type": "subscribe", "topics": ["room"] }).to_string();
    socket.send(&subscribe).await;
    assert_eq!(socket.message().await["topics"], json!([]), "it is not a member yet");
    chat.members.let_in(2, "room", &chat.server.hub);
    socket.send(&subscribe).await;
    let answer: Value = socket.message().await;
    assert_eq!(answer["topics"], json!(["room"]), "{answer}");
    chat.say("room", "welcome").await;
    assert_eq!(socket.message().await["data"], "welcome");
}
