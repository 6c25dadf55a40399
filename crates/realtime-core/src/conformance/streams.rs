//! The suite for [`StreamStore`].

use std::{slice, sync::Arc, time::Duration};

use futures_util::future::join_all;
use tokio::time::sleep;

use super::{Subscriber, check, within};
use crate::{
    EventName, Position, Topic,
    bus::{Bus, StreamHead, StreamStore, StreamWrite, StreamWritten, WriteCondition},
    streams::{StreamChange, StreamEnd, StreamEntry, StreamId, StreamKey},
};

const BEGIN: &str = "a higher run begins with a text at 0, and of several writers one begins it";
const CONTINUES: &str =
    "an entry continues its stream if it comes from the current writer, at the end of the text";
const REPEATED: &str = "the last entry of a writer may be written again, and is published once";
const ENDED: &str = "nothing follows the end of a run";
const LEASE: &str = "another node may end a stream once its writer has no lease, and one of them does";
const STATE: &str = "the store knows each stream's run, writer, length and end";
const PUBLISHED: &str =
    "each entry that was added is emitted once, in order, at its position, and nothing else";

/// Tests a bus's [store of text streams](StreamStore). `make` gives another node's handle of the same bus each time. It takes
/// about ten seconds, since a lease has to end.
///
/// # Panics
/// With the clause that is broken, or if the bus has no store.
pub async fn streams_conform<B: Bus>(make: impl Fn() -> B) {
    let (a, b) = (make(), make());
    let mut subscriber = Subscriber::up(&b).await;
    let stores = [&a, &b].map(|bus| bus.streams().expect("the bus carries text streams"));
    let id = StreamId::new(&format!("{:016x}", rand::random::<u64>())).expect("it is an id");
    let mut suite = Suite { stores, key: StreamKey { topic: Topic::all(), id }, added: Vec::new() };
    suite.one_run().await;
    suite.a_second_run().await;
    suite.leases().await;
    for (position, text) in suite.added {
        let (at, emitted) = within(PUBLISHED, "an entry", subscriber.message()).await;
        check(PUBLISHED, at == Some(position) && emitted == text, || {
            format!("{emitted} is emitted at {at:?}, {text} was added at {position}")
        });
    }
}

struct Suite {
    stores: [Arc<dyn StreamStore>; 2],
    key: StreamKey,
    /// What was added, in order.
    added: Vec<(Position, String)>,
}

impl Suite {
    async fn one_run(&mut self) {
        let lost = self.write(0, "first", self.text(1, 5, "x")).await;
        check(CONTINUES, lost == StreamWritten::Lost, || format!("{lost:?} to a text of an unknown stream"));
        self.add(BEGIN, 0, "first", self.text(1, 0, "")).await;
        self.add(CONTINUES, 1, "first", self.text(1, 0, "Grö")).await;
        let again = self.write(0, "first", self.text(1, 0, "Grö")).await;
        let last = self.added.last().map(|(position, _)| StreamWritten::Added(*position));
        check(REPEATED, Some(again) == last, || format!("{again:?} instead of {last:?}"));
        self.add(CONTINUES, 0, "first", self.text(1, 4, "ße 😀")).await;
        self.refuse(CONTINUES, "another", self.text(1, 12, "x"), 1).await;
        self.refuse(CONTINUES, "first", self.text(1, 4, "x"), 1).await;
        let lost = self.write(0, "first", self.text(1, 13, "x")).await;
        check(CONTINUES, lost == StreamWritten::Lost, || format!("{lost:?} to a text behind a hole"));
        self.state(StreamHead { key: self.key.clone(), run: 1, writer: "first".into(), len: 12, end: None })
            .await;
        let early = self.interrupt(0, "first", 1, 12).await;
        check(LEASE, early == StreamWritten::Fenced { run: 1 }, || {
            format!("{early:?} while there is a lease")
        });
        self.add(CONTINUES, 0, "first", self.end(1, 12, StreamEnd::Done)).await;
        let again = self.write(1, "first", self.end(1, 12, StreamEnd::Done)).await;
        let last = self.added.last().map(|(position, _)| StreamWritten::Added(*position));
        check(REPEATED, Some(again) == last, || format!("{again:?} instead of {last:?}"));
        self.refuse(ENDED, "first", self.text(1, 12, "x"), 1).await;
        self.refuse(ENDED, "first", self.end(1, 12, StreamEnd::Failed), 1).await;
        let end = Some(StreamEnd::Done);
        self.state(StreamHead { key: self.key.clone(), run: 1, writer: "first".into(), len: 12, end }).await;
    }

    async fn a_second_run(&mut self) {
        let begin = self.text(2, 0, "");
        let names = ["second", "third", "fourth", "fifth"];
        let answers =
            join_all(names.iter().enumerate().map(|(n, name)| self.write(n % 2, name, begin.clone()))).await;
        let begun: Vec<_> = names
            .iter()
            .zip(&answers)
            .filter(|(_, answer)| matches!(answer, StreamWritten::Added(_)))
            .collect();
        let fenced = answers.iter().filter(|answer| **answer == StreamWritten::Fenced { run: 2 }).count();
        check(BEGIN, begun.len() == 1 && fenced == names.len() - 1, || format!("{answers:?}"));
        let (writer, StreamWritten::Added(position)) = begun[0] else { unreachable!("it was added") };
        self.added.push((*position, text_of(&begin)));
        self.refuse(CONTINUES, "first", self.text(1, 12, "x"), 2).await;
        self.add(CONTINUES, 0, writer, self.text(2, 0, "anew")).await;
        let head = StreamHead { key: self.key.clone(), run: 2, writer: (*writer).into(), len: 4, end: None };
        self.state(head).await;
    }

    async fn leases(&mut self) {
        let unknown = StreamKey { id: StreamId::new("unknown").expect("it is an id"), ..self.key.clone() };
        let lost = self.stores[0].renew(&[self.key.clone(), unknown.clone()]).await;
        check(LEASE, lost == Ok(vec![unknown]), || format!("renewing has lost {lost:?}"));
        let key = self.key.clone();
        let listed = async |store: &Arc<dyn StreamStore>| {
            let abandoned = store.abandoned().await.unwrap_or_default();
            abandoned.into_iter().find(|head| head.key == key)
        };
        check(LEASE, listed(&self.stores[1]).await.is_none(), || "a renewed lease has ended".into());
        let head = within(LEASE, "the end of a lease", async {
            loop {
                if let Some(head) = listed(&self.stores[1]).await {
                    return head;
                }
                sleep(Duration::from_millis(500)).await;
            }
        })
        .await;
        let answers = join_all([0, 1].map(|n| self.interrupt(n, &head.writer, head.run, head.len))).await;
        let StreamWritten::Added(position) = answers[0] else { panic!("{LEASE}: {answers:?}") };
        check(LEASE, answers[1] == answers[0], || format!("{answers:?}"));
        self.added.push((position, text_of(&self.end(head.run, head.len, StreamEnd::Interrupted))));
        self.refuse(ENDED, &head.writer, self.text(head.run, head.len, "x"), head.run).await;
        let lost = self.stores[0].renew(slice::from_ref(&self.key)).await;
        check(LEASE, lost == Ok(vec![self.key.clone()]), || format!("renewing has lost {lost:?}"));
    }

    fn text(&self, run: u64, at: u64, text: &str) -> StreamEntry {
        StreamEntry { key: self.key.clone(), run, at, change: StreamChange::Text(text.to_owned().into()) }
    }

    fn end(&self, run: u64, at: u64, end: StreamEnd) -> StreamEntry {
        StreamEntry { key: self.key.clone(), run, at, change: StreamChange::End(end) }
    }

    async fn write(&self, store: usize, writer: &str, entry: StreamEntry) -> StreamWritten {
        self.write_if(store, writer, entry, WriteCondition::Always).await
    }

    async fn interrupt(&self, store: usize, writer: &str, run: u64, at: u64) -> StreamWritten {
        let entry = self.end(run, at, StreamEnd::Interrupted);
        self.write_if(store, writer, entry, WriteCondition::IfAbandoned).await
    }

    async fn write_if(
        &self,
        store: usize,
        writer: &str,
        entry: StreamEntry,
        condition: WriteCondition,
    ) -> StreamWritten {
        let write = StreamWrite { entry: &entry, writer, condition, keep: Duration::from_secs(60) };
        let written = within("every method returns", "an answer", self.stores[store].write(&write)).await;
        written.unwrap_or_else(|error| panic!("{entry:?} was not written: {error}"))
    }

    /// Writes an entry that is to be added.
    async fn add(&mut self, clause: &str, store: usize, writer: &str, entry: StreamEntry) {
        let text = text_of(&entry);
        match self.write(store, writer, entry).await {
            StreamWritten::Added(position) => self.added.push((position, text)),
            other => check(clause, false, || format!("{other:?} to {text}")),
        }
    }

    /// Writes an entry that is to be refused.
    async fn refuse(&self, clause: &str, writer: &str, entry: StreamEntry, run: u64) {
        for store in 0..self.stores.len() {
            let answer = self.write(store, writer, entry.clone()).await;
            check(clause, answer == StreamWritten::Fenced { run }, || format!("{answer:?} to {entry:?}"));
        }
    }

    /// Checks what the stores know of the stream. A store may keep no texts.
    async fn state(&self, expected: StreamHead) {
        for store in &self.stores {
            let heads = within("every method returns", "the heads", store.heads()).await;
            let head = heads.unwrap_or_default().into_iter().find(|head| head.key == self.key);
            check(STATE, head.as_ref() == Some(&expected), || format!("{head:?} instead of {expected:?}"));
            let read = within("every method returns", "a text", store.read(&self.key)).await;
            let read = read.unwrap_or_else(|error| panic!("a text was not read: {error}"));
            let text = if expected.run == 1 { "Größe 😀" } else { "anew" };
            let holds = read.as_ref().is_none_or(|(head, read)| *head == expected && read == text);
            check(STATE, holds, || format!("{read:?} instead of {text}"));
        }
    }
}

/// The text of an entry's message.
fn text_of(entry: &StreamEntry) -> String {
    let envelope = entry.envelope();
    assert_eq!(envelope.message().event.as_str(), EventName::STREAM);
    envelope.message().data.to_string()
}
