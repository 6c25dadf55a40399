//! The suite for [`Presence`].

use std::time::{Duration, SystemTime};

use futures_core::stream::BoxStream;
use futures_util::StreamExt;
use tokio::time::timeout;

use super::{broken, check, until, within};
use crate::{
    Hub, UserId,
    presence::{OnlineCount, Presence, PresenceChange, PresenceEvent, PresenceState},
    testkit::TestSession,
};

const COUNT: &str = "`count` is that of online users and of sessions";
const ONLINE: &str = "`is_online` answers for each user in the order that was asked";
const USERS: &str = "`users` gives a page in ascending order";
const NODES: &str = "`nodes` lists each live node once, with the number of its sessions";
const SESSIONS: &str = "`sessions` gives a user's sessions, oldest first";
const ONCE: &str = "each listener is told of each change once, in order, and all of the same";
const SINCE: &str = "a change says since when";
const GRACE: &str =
    "a user goes offline `presence.grace` after its last session, and a return within it is no change";
const LEAVE: &str = "a node that left has no sessions, and the others go on";

/// Tests the presence of one or several hubs that are one cluster, against [its contract](Presence). Nobody may be online
/// on them; afterwards nobody is. Their `presence.grace` should be short: the suite waits for it three times.
///
/// The last of several hubs is drained at the end.
///
/// # Panics
/// With the clause that is broken, and without a hub.
pub async fn presence_conforms(hubs: &[Hub]) {
    let hub = |n: usize| &hubs[n % hubs.len()];
    let connect = async |n: usize, user: &UserId| TestSession::connect(hub(n), user.clone()).await;
    let mut events: Vec<Changes> = hubs.iter().map(|hub| Changes(hub.presence().changes())).collect();
    let began = SystemTime::now() - Duration::from_millis(1);
    until_count(hubs, 0, 0).await;

    let text: UserId = "u-7".parse().expect("it is an id");
    let [minus, five, big]: [UserId; 3] = [(-3).into(), 5.into(), 1_925_000_000_000_000_001.into()];
    let mut sessions = Vec::new();
    for (n, user) in [(0, &five), (1, &five), (0, &big), (1, &text), (1, &minus)] {
        sessions.push(connect(n, user).await);
    }
    until_count(hubs, 4, 5).await;
    let users = [minus.clone(), five.clone(), big.clone(), text.clone()];
    for hub in hubs {
        queries(hub.presence(), &users).await;
        nodes(hub.presence(), hubs.len(), 5).await;
    }

    // One of two sessions is not the last one.
    drop(sessions.remove(0));
    until_count(hubs, 4, 4).await;
    check(ONLINE, online(hub(0), &five).await, || "one of two sessions was the last one".into());
    let left = SystemTime::now() - Duration::from_millis(1);
    drop(sessions);
    until_count(hubs, 0, 0).await;

    let mut told = Vec::new();
    for events in &mut events {
        let (came, went) = (events.of_users(4).await, events.of_users(4).await);
        for (changes, state, after) in
            [(&came, PresenceState::Online, began), (&went, PresenceState::Offline, left)]
        {
            let of: Vec<_> = changes.iter().map(|change| change.user_id.clone()).collect();
            check(ONCE, of == users, || format!("{of:?} were told of as {state:?} and not {users:?}"));
            for change in changes {
                check(ONCE, change.state == state, || format!("{change:?} is not {state:?}"));
                let in_time = change.since >= after && change.since <= SystemTime::now();
                check(SINCE, in_time, || format!("{change:?}, later than {after:?}"));
            }
        }
        told.push((came, went));
    }
    told.dedup();
    check(ONCE, told.len() == 1, || format!("the listeners were told {told:?}"));

    // A reload, on any node.
    let first = connect(0, &five).await;
    for events in &mut events {
        events.of_users(1).await;
    }
    drop(first);
    until_count(hubs, 1, 0).await;
    let second = connect(1, &five).await;
    for events in &mut events {
        events.none(hub(0).settings().presence.grace).await;
    }
    check(GRACE, online(hub(1), &five).await, || "who came back is offline".into());
    drop(second);
    for events in &mut events {
        let change = events.of_users(1).await.remove(0);
        check(GRACE, change.state == PresenceState::Offline, || format!("{change:?} after the last session"));
    }

    if let [others @ .., last] = hubs
        && !others.is_empty()
    {
        let stays = connect(0, &five).await;
        within(LEAVE, "the end of a drain", last.drain()).await;
        until_count(others, 1, 1).await;
        drop(stays);
        until_count(others, 0, 0).await;
    }
}

async fn queries(presence: &dyn Presence, users: &[UserId; 4]) {
    let [minus, five, big, text] = users;
    let asked = [five.clone(), 6.into(), text.clone(), big.clone()];
    let answer = presence.is_online(&asked).await;
    check(ONLINE, answer == Ok(vec![true, false, true, true]), || format!("{answer:?} for {asked:?}"));
    let answer = presence.is_online(&[]).await;
    check(ONLINE, answer == Ok(Vec::new()), || format!("{answer:?} for nobody"));

    let page = async |skip, take| match presence.users(skip, take).await {
        Ok(page) => page.into_iter().map(|user| (user.user_id, user.sessions)).collect::<Vec<_>>(),
        Err(error) => broken(USERS, error),
    };
    let all = [(minus.clone(), 1), (five.clone(), 2), (big.clone(), 1), (text.clone(), 1)];
    for (skip, take) in [(0, 10), (1, 2), (3, 1), (9, 5), (0, 0)] {
        let expected: Vec<_> = all.iter().skip(skip).take(take).cloned().collect();
        let seen = page(skip, take).await;
        check(USERS, seen == expected, || format!("{take} behind {skip} are {seen:?} and not {expected:?}"));
    }

    let sessions = async |user: &UserId| match presence.sessions(user).await {
        Ok(sessions) => sessions,
        Err(error) => broken(SESSIONS, error),
    };
    let of_five = sessions(five).await;
    check(SESSIONS, of_five.len() == 2 && of_five[0].since <= of_five[1].since, || format!("{of_five:?}"));
    for session in &of_five {
        let described = session.transport == "websocket" && !session.node.is_empty();
        check(SESSIONS, described && !session.session_id.is_empty(), || format!("{session:?}"));
    }
    let of_nobody = sessions(&6.into()).await;
    check(SESSIONS, of_nobody.is_empty(), || format!("{of_nobody:?} of somebody who never came"));
}

/// Checks the list of nodes, of a presence that has one.
async fn nodes(presence: &dyn Presence, nodes: usize, sessions: usize) {
    let Ok(listed) = presence.nodes().await else { return };
    let all: usize = listed.iter().map(|node| node.sessions).sum();
    check(NODES, (listed.len(), all) == (nodes, sessions), || format!("{listed:?}"));
    check(NODES, listed.iter().all(|node| !node.node.is_empty()), || format!("{listed:?} without a name"));
}

async fn online(hub: &Hub, user: &UserId) -> bool {
    match hub.presence().is_online(std::slice::from_ref(user)).await {
        Ok(online) => online == [true],
        Err(error) => broken(ONLINE, error),
    }
}

/// Waits until every hub counts so many.
async fn until_count(hubs: &[Hub], users: usize, sessions: usize) {
    for hub in hubs {
        let what = format!("a count of {users} users with {sessions} sessions");
        until(COUNT, &what, async || hub.presence().count().await == Ok(OnlineCount { users, sessions }))
            .await;
    }
}

/// A listener.
struct Changes(BoxStream<'static, PresenceEvent>);

impl Changes {
    /// The next changes, in the order of users.
    async fn of_users(&mut self, count: usize) -> Vec<PresenceChange> {
        let mut changes = Vec::new();
        for _ in 0..count {
            match within(ONCE, "a change", self.0.next()).await {
                Some(PresenceEvent::Changed(change)) => changes.push(change),
                other => broken(ONCE, format_args!("{other:?} came, and nothing was broken")),
            }
        }
        changes.sort_by(|a, b| a.user_id.cmp(&b.user_id));
        changes
    }

    /// Nothing comes for longer than a user takes to go offline.
    async fn none(&mut self, grace: Duration) {
        if let Ok(event) = timeout(grace + Duration::from_millis(500), self.0.next()).await {
            broken(GRACE, format_args!("{event:?} came"));
        }
    }
}
