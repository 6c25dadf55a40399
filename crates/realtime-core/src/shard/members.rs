//! [`Members`]: the sessions of a shard by slot and by topic, and how an entry of the log gets to them.

use std::{
    collections::HashMap,
    mem,
    sync::{Arc, atomic::Ordering},
};

use slab::Slab;
use smallvec::SmallVec;

use crate::{
    Envelope, GapReason, Position, Topic, Transport,
    direct::Gather,
    log::{Content, Entry},
    outbox::{Offer, Then},
    registry::Registry,
    session::SessionState,
};

#[derive(Debug, Default)]
pub(super) struct Members {
    /// The place in the log up to which live sessions have been served.
    pub(super) place: u64,
    pub(super) sessions: Slab<Member>,
    /// The slots of the sessions in each topic but `all`, ascending.
    pub(super) topics: HashMap<Topic, Slots>,
    /// What was last written over a direct lane.
    pub(super) gather: Gather,
}

/// A user has few sessions, and most topics are users.
type Slots = SmallVec<[u32; 4]>;

#[derive(Debug)]
pub(super) struct Member {
    pub(super) session: Arc<SessionState>,
    /// Served by the pass; otherwise it reads the log by itself.
    pub(super) live: bool,
    /// The first place that it still has to get.
    pub(super) next: u64,
}

/// What one pass did, added to the metrics at its end.
#[derive(Debug, Default)]
pub(super) struct Tally {
    pub(super) delivered: u64,
    pub(super) catch_ups: u64,
    pub(super) gaps: u64,
    pub(super) untold_gaps: u64,
    pub(super) local_lost: u64,
    /// Connections whose bodies were woken: they write after the pass.
    pub(super) woken: u32,
    /// The slots of sessions whose direct lane has not been flushed.
    unflushed: Vec<u32>,
}

impl Members {
    pub(super) fn index(&mut self, topic: Topic, slot: u32) {
        let slots = self.topics.entry(topic).or_default();
        if let Err(index) = slots.binary_search(&slot) {
            slots.insert(index, slot);
        }
    }

    pub(super) fn unindex(&mut self, topic: &Topic, slot: u32) {
        if let Some(slots) = self.topics.get_mut(topic) {
            if let Ok(index) = slots.binary_search(&slot) {
                slots.remove(index);
            }
            if slots.is_empty() {
                self.topics.remove(topic);
            }
        }
    }

    /// A catching-up session has reached the shard's place: the pass serves it from here.
    pub(super) fn join(&mut self, session: &SessionState, place: u64) {
        if session.registered.load(Ordering::Acquire) {
            let member = &mut self.sessions[session.slot.load(Ordering::Relaxed) as usize];
            member.live = true;
            member.next = place;
        }
        session.outbox.join();
    }

    /// Runs `offer` on every member that is in one of the envelope's topics and of its scope.
    pub(super) fn each(&mut self, envelope: &Envelope, mut offer: impl FnMut(&mut Member)) {
        let Self { sessions, topics, .. } = self;
        let scope = envelope.scope();
        let mut offer = |member: &mut Member| {
            if scope.covers(member.session.transport) {
                offer(member);
            }
        };
        for topic in envelope.topics() {
            if topic.is_all() {
                sessions.iter_mut().for_each(|(_, member)| offer(member));
            } else if let Some(slots) = topics.get(topic) {
                slots.iter().for_each(|slot| offer(&mut sessions[*slot as usize]));
            }
        }
    }

    /// Hands an entry to everybody who is to get it. The last one of a pass need not wait for others: to meet a session
    /// in memory costs about as much as all else that is done for it.
    pub(super) fn deliver(&mut self, place: u64, entry: &Entry, is_last: bool, tally: &mut Tally) {
        let mut gather = mem::take(&mut self.gather);
        let offer = |member: &mut Member| {
            // A session in two of the topics has `next` past this place the second time.
            if !member.live || member.next > place {
                return;
            }
            member.next = place + 1;
            let gap = u64::from(matches!(entry.content, Content::Gap(_)));
            let Some(frame) = entry.encode(&member.session.wire) else {
                tally.untold_gaps += gap;
                return;
            };
            let outbox = &member.session.outbox;
            let offer = if is_last {
                outbox.send_or_catch_up(frame, place, &mut gather)
            } else {
                outbox.queue_or_catch_up(frame, place)
            };
            match offer {
                Offer::Taken(then) => {
                    tally.gaps += gap;
                    tally.delivered += 1 - gap;
                    tally.see_to(then, &member.session);
                }
                Offer::Full => {
                    member.live = false;
                    tally.catch_ups += 1;
                }
                Offer::Closed => {}
            }
        };
        match &entry.content {
            Content::Envelope(envelope) => self.each(envelope, offer),
            Content::Marker => {}
            Content::Gap(_) => self.sessions.iter_mut().map(|(_, member)| member).for_each(offer),
        }
        self.gather = gather;
    }

    /// Writes what was delivered over direct lanes: everything of one session at once.
    pub(super) fn flush(&mut self, tally: &mut Tally) {
        for slot in tally.unflushed.drain(..) {
            self.sessions[slot as usize].session.outbox.flush(&mut self.gather);
        }
        self.gather.clear();
    }

    pub(super) fn deliver_local(&mut self, entry: &Entry, tally: &mut Tally) {
        let Content::Envelope(envelope) = &entry.content else {
            return;
        };
        let mut served: Vec<u32> = Vec::new();
        let several = envelope.topics().len() > 1;
        self.each(envelope, |member| {
            let session = &member.session;
            if several {
                let slot = session.slot.load(Ordering::Relaxed);
                match served.binary_search(&slot) {
                    Ok(_) => return,
                    Err(index) => served.insert(index, slot),
                }
            }
            let Some(frame) = entry.encode(&session.wire) else {
                return;
            };
            let notice = || session.wire.wire.gap(GapReason::Overflow, None);
            match session.outbox.queue_or_notice(frame, notice) {
                Offer::Taken(then) => {
                    tally.delivered += 1;
                    tally.see_to(then, session);
                }
                Offer::Full => tally.local_lost += 1,
                Offer::Closed => {}
            }
        });
    }
}

impl Tally {
    fn see_to(&mut self, then: Then, session: &SessionState) {
        match then {
            Then::Nothing => {}
            Then::Woken => self.woken += 1,
            Then::Flush => self.unflushed.push(session.slot.load(Ordering::Relaxed)),
        }
    }

    /// Tells a session that something is missing, or counts that it can't be told.
    pub(super) fn announce(&mut self, session: &SessionState, reason: GapReason, cursor: Option<Position>) {
        match session.wire.wire.gap(reason, cursor) {
            Some(frame) => {
                session.outbox.force(frame);
                self.gaps += 1;
            }
            None => self.untold_gaps += 1,
        }
    }

    pub(super) fn record(self, registry: &Registry) {
        let metrics = &registry.metrics;
        metrics.delivered.add(self.delivered);
        metrics.catch_ups.add(self.catch_ups);
        metrics.gaps.add(self.gaps);
        metrics.untold_gaps.add(self.untold_gaps);
        metrics.local_lost.add(self.local_lost);
    }
}

/// Whether a session of this transport and these topics is meant.
pub(super) fn wants(envelope: &Envelope, transport: Transport, topics: &[Topic]) -> bool {
    envelope.scope().covers(transport)
        && envelope.topics().iter().any(|topic| topic.is_all() || topics.contains(topic))
}
