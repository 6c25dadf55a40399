//! [`Hub::trace`]: what happens to a user or topic, as it happens.

use std::{collections::BTreeMap, future::pending, sync::atomic::Ordering, time::Duration};

use futures_core::stream::BoxStream;
use futures_util::{StreamExt, stream::unfold};
use tokio::{
    sync::mpsc::{Receiver, Sender, channel},
    task::JoinSet,
    time::{Instant, sleep, sleep_until, timeout},
};

use super::Hub;
use crate::{
    control::{Answer, Answers, Question},
    trace::{NodeTrace, Permit, TooManyTraces, TraceEvent, TraceKind, TraceTarget},
};

/// The longest time for which a trace runs.
const LONGEST: Duration = Duration::from_secs(600);
/// Interval at which this node's events are taken.
const OWN_EVERY: Duration = Duration::from_millis(50);
/// Interval at which the other nodes are asked.
const ASK_EVERY: Duration = Duration::from_millis(500);
/// Time that they have to answer.
const ANSWER_TIME: Duration = Duration::from_secs(1);
/// Time that the cluster's store has, beyond that.
const STORE_TIME: Duration = Duration::from_millis(500);
/// Time for which a trace goes on when this node drains.
const LAST_EVENTS: Duration = Duration::from_secs(2);
/// Events that wait for the reader.
const QUEUE: usize = 256;

impl Hub {
    /// Traces what happens to a user or topic on every node of the cluster: connections, refusals, topics, each message that
    /// is queued, written or left out and why, gaps and ends. The stream ends after `time`, at most 600 s, or when this node
    /// drains.
    ///
    /// The first event is [`Nodes`](TraceKind::Nodes): what happens afterwards is in the trace. Events of this node come
    /// within 50 ms, those of other nodes within a second. A node takes 200 events a second and counts the others as
    /// [`Lost`](TraceKind::Lost). While no trace is on, it costs nothing.
    ///
    /// ```no_run
    /// # async fn f(hub: realtime_core::Hub) -> Result<(), Box<dyn std::error::Error>> {
    /// use std::time::Duration;
    /// use futures_util::StreamExt;
    /// use realtime_core::trace::TraceTarget;
    ///
    /// let mut events = hub.trace(TraceTarget::User(42.into()), Duration::from_secs(60))?;
    /// while let Some(event) = events.next().await {
    ///     println!("{event:?}");
    /// }
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`TooManyTraces`] if four run from this node already, or 16 are on.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    pub fn trace(
        &self,
        target: TraceTarget,
        time: Duration,
    ) -> Result<BoxStream<'static, TraceEvent>, TooManyTraces> {
        let traces = &self.0.registry.node.traces;
        let id = format!("{:032x}", rand::random::<u128>());
        let permit = traces.permit(id.clone())?;
        // Begins it here.
        traces.read(&self.0.name, &id, &target, &BTreeMap::new())?;
        let (sender, events) = channel(QUEUE);
        let mut tasks = JoinSet::new();
        let asker = Asker { hub: self.clone(), id, target, sender };
        tasks.spawn(asker.clone().tell_own());
        tasks.spawn(asker.ask_others());
        let running = Running {
            hub: self.clone(),
            events,
            end: Instant::now() + time.min(LONGEST),
            drained: None,
            ended: false,
            _tasks: tasks,
            _permit: permit,
        };
        Ok(unfold(running, async |mut running| running.next().await.map(|event| (event, running))).boxed())
    }
}

/// A trace that is read. Its drop ends it.
struct Running {
    hub: Hub,
    events: Receiver<TraceEvent>,
    end: Instant,
    /// Time at which the drain of this node was noticed.
    drained: Option<Instant>,
    ended: bool,
    _tasks: JoinSet<()>,
    _permit: Permit,
}

impl Running {
    async fn next(&mut self) -> Option<TraceEvent> {
        if self.ended {
            return None;
        }
        let Self { hub, events, end, drained, .. } = self;
        let draining = async {
            while !hub.0.draining.load(Ordering::SeqCst) {
                sleep(OWN_EVERY).await;
            }
            // The ends of the sessions, but not for as long as other nodes have something to tell.
            let since = *drained.get_or_insert_with(Instant::now);
            sleep_until((since + LAST_EVENTS).min(Instant::now() + 2 * OWN_EVERY)).await;
        };
        let reason = tokio::select! {
            biased;
            () = sleep_until(*end) => "time",
            () = draining => "drain",
            Some(event) = events.recv() => return Some(event),
        };
        self.ended = true;
        let node = self.hub.0.name.to_string();
        Some(TraceEvent { node, ..TraceEvent::new(TraceKind::End).because(reason) })
    }
}

#[derive(Clone)]
struct Asker {
    hub: Hub,
    id: String,
    target: TraceTarget,
    sender: Sender<TraceEvent>,
}

impl Asker {
    /// Tells the events of this node.
    async fn tell_own(self) {
        let name = self.hub.0.name.to_string();
        let mut told = Told::default();
        loop {
            let question = self.question(told.next.iter().map(|next| (name.clone(), *next)).collect());
            self.tell(&name, self.hub.0.local.answer(&question), &mut told).await;
            sleep(OWN_EVERY).await;
        }
    }

    /// Tells which nodes trace, and the events of the others.
    async fn ask_others(self) {
        let own = self.hub.0.name.to_string();
        let mut others = BTreeMap::<String, Told>::new();
        let mut last = None;
        loop {
            let after = others.iter().filter_map(|(node, told)| Some((node.clone(), told.next?)));
            // Its own events are told already.
            let question = self.question(after.chain([(own.clone(), u64::MAX)]).collect());
            let asked = timeout(ANSWER_TIME + STORE_TIME, self.hub.0.control.ask(question, ANSWER_TIME));
            let (answers, problem) = match asked.await {
                Ok(Ok(answers)) => (answers, None),
                Ok(Err(error)) => (Answers::default(), Some(error.to_string())),
                Err(_) => (Answers::default(), Some("the nodes could not be asked in time".to_owned())),
            };
            let Answers { nodes, mut missing } = answers;
            let is_answer =
                |(node, answer): &&(String, Answer)| *node != own && matches!(answer, Answer::Trace(_));
            let mut answered: Vec<_> =
                nodes.iter().filter(is_answer).map(|(node, _)| node.clone()).chain([own.clone()]).collect();
            answered.sort();
            missing.retain(|node| *node != own);
            missing
                .extend(nodes.iter().map(|(node, _)| node).filter(|node| !answered.contains(node)).cloned());
            let state = Some((answered, missing, problem));
            if last != state {
                let (answered, missing, detail) = state.clone().unwrap_or_default();
                let event = TraceEvent { answered, missing, detail, ..TraceEvent::new(TraceKind::Nodes) };
                self.send(TraceEvent { node: own.clone(), ..event }).await;
                last = state;
            }
            for (node, answer) in nodes.into_iter().filter(|(node, _)| *node != own) {
                self.tell(&node, answer, others.entry(node.clone()).or_default()).await;
            }
            sleep(ASK_EVERY).await;
        }
    }

    fn question(&self, after: BTreeMap<String, u64>) -> Question {
        Question::Trace { id: self.id.clone(), target: self.target.clone(), after }
    }

    async fn tell(&self, node: &str, answer: Answer, told: &mut Told) {
        let Answer::Trace(NodeTrace { events, next, lost }) = answer else { return };
        for event in events {
            self.send(event).await;
        }
        // A node that has restarted counts anew.
        let news = if lost < told.lost { lost } else { lost - told.lost };
        if news > 0 {
            let event = TraceEvent { count: Some(news), ..TraceEvent::new(TraceKind::Lost) };
            self.send(TraceEvent { node: node.to_owned(), ..event }).await;
        }
        *told = Told { next: Some(next), lost };
    }

    async fn send(&self, event: TraceEvent) {
        if self.sender.send(event).await.is_err() {
            // Nobody reads it any more, and the tasks are about to be aborted.
            pending::<()>().await;
        }
    }
}

/// What has been told of a node.
#[derive(Debug, Default)]
struct Told {
    next: Option<u64>,
    lost: u64,
}

#[cfg(all(test, not(feature = "shuttle")))]
mod tests {
    use super::*;
    use crate::testkit::{TestSession, ready};

    async fn until(events: &mut BoxStream<'static, TraceEvent>, kind: TraceKind) -> TraceEvent {
        loop {
            let event = events.next().await.unwrap_or_else(|| panic!("the trace has no {kind:?}"));
            if event.kind == kind {
                return event;
            }
        }
    }

    #[tokio::test]
    async fn a_trace_costs_nothing_before_its_begin_and_after_its_end() {
        let hub = Hub::builder().node("a").start().unwrap();
        ready(&hub).await;
        let traces = &hub.0.registry.node.traces;
        assert!(traces.watch().is_none());
        let mut events = hub.trace(TraceTarget::User(1.into()), LONGEST).unwrap();
        let nodes = until(&mut events, TraceKind::Nodes).await;
        assert_eq!((nodes.answered, nodes.missing, nodes.detail), (vec!["a".to_owned()], Vec::new(), None));
        let mut session = TestSession::connect(&hub, 1.into()).await;
        let mut other = TestSession::connect(&hub, 2.into()).await;
        let position = hub.publish_all("x").await.unwrap().position.unwrap().to_string();
        assert_eq!((session.text().await, other.text().await), ("x".into(), "x".into()));
        let connect = until(&mut events, TraceKind::Connect).await;
        assert_eq!((connect.node.as_str(), connect.user_id), ("a", Some(1.into())));
        let written = until(&mut events, TraceKind::Written).await;
        assert_eq!((written.position, written.session_id), (Some(position), connect.session_id));
        hub.kick(&1.into()).await.unwrap();
        session.closed().await;
        drop(session);
        assert_eq!(until(&mut events, TraceKind::Close).await.reason.as_deref(), Some("kicked"));
        drop(events);
        assert!(traces.watch().is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn a_reader_that_lags_does_not_keep_a_trace_on() {
        let hub = Hub::builder().start().unwrap();
        ready(&hub).await;
        let mut events = hub.trace(TraceTarget::User(1.into()), Duration::from_secs(1)).unwrap();
        until(&mut events, TraceKind::Nodes).await;
        for _ in 0..100 {
            hub.publish_to_user(1, "x").await.unwrap();
        }
        sleep(Duration::from_secs(2)).await;
        let end = events.next().await.unwrap();
        assert_eq!((end.kind, end.reason.as_deref()), (TraceKind::End, Some("time")));
        assert_eq!(events.next().await, None);
    }

    #[tokio::test(start_paused = true)]
    async fn a_trace_that_another_node_runs_ends_when_nobody_asks() {
        let hub = Hub::builder().start().unwrap();
        let question = Question::Trace {
            id: "a trace".to_owned(),
            target: TraceTarget::User(1.into()),
            after: BTreeMap::new(),
        };
        assert!(matches!(hub.0.local.answer(&question), Answer::Trace(_)));
        let traces = &hub.0.registry.node.traces;
        assert!(traces.watch().is_some());
        sleep(Duration::from_secs(4)).await;
        assert!(traces.watch().is_some());
        sleep(Duration::from_secs(2)).await;
        assert!(traces.watch().is_none());
    }
}
