//! [`Rules`]: the decisions of the protocol, each with the wrong ones that the model has to find.

/// The decisions of the protocol. [`Rules::default`] is what realtime does.
#[derive(Debug, Clone, Copy, Default)]
pub struct Rules {
    /// A cursor that is ahead of the node's log.
    pub ahead: Ahead,
    /// The time for which a heartbeat of a node stands.
    pub heartbeat: Heartbeat,
    /// The time that a message of the node itself proves when it comes back.
    pub own_message: OwnMessage,
    /// A cursor of an epoch that this node has seen nothing of, between two that it has.
    pub unknown_epoch: UnknownEpoch,
    /// Entries that are too old when a node starts.
    pub skipped: Skipped,
    /// A session that comes before the node has read the stream.
    pub early: Early,
    /// The id of a session's first block.
    pub head: Head,
    /// The id of a heartbeat to a client.
    pub ping: Ping,
    /// A session whose place has left the window.
    pub trimmed: Trimmed,
    /// The position after which a session that is kicked ends.
    pub fence: Fence,
    /// The number of a new epoch.
    pub numbering: Numbering,
    /// Condition under which a claim begins a new epoch.
    pub claim: Claim,
    /// A publisher whose stream is gone or has a newer epoch.
    pub refused: Refused,
}

/// A cursor that is ahead of the node's log.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Ahead {
    /// It waits until the log reaches it, or until a heartbeat that this node wrote after the session came has come
    /// back through the stream.
    #[default]
    Wait,
    /// Wrong: it gets a gap at once and begins at the log's end.
    GapAtOnce,
    /// Wrong: any heartbeat of this node ends the wait, one from before the session came too.
    AnyHeartbeat,
}

/// The time for which a heartbeat of a node stands.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Heartbeat {
    /// The time before the master was looked up: it proves nothing to a session that came after.
    #[default]
    BeforeLookUp,
    /// Wrong: the time at which it was written, by then perhaps to a master that is none any more.
    AtWrite,
}

/// The time that a message of the node itself proves when it comes back.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum OwnMessage {
    /// As much as a heartbeat, if it was published after a look-up that confirmed the connection: the time before that.
    #[default]
    AfterLookUp,
    /// Wrong: the time at which it was published, perhaps to a master that is none any more.
    AtPublish,
}

/// A cursor of an epoch that this node has seen nothing of, between two that it has.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum UnknownEpoch {
    /// It continues at the gap that ends the older epoch.
    #[default]
    AtTheGap,
    /// Wrong: it begins at the log's end.
    AtTheEnd,
}

/// Entries that are too old when a node starts.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Skipped {
    /// The log begins after the last of them.
    #[default]
    BeginAfter,
    /// Wrong: they are in the log, as entries without messages.
    Markers,
}

/// A session that comes before the node has read the stream.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Early {
    /// It begins, or is resumed, where the log stands once the stream has been read.
    #[default]
    AtUp,
    /// Wrong: it is served from the empty log on.
    AtOnce,
}

/// The id of a session's first block.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Head {
    /// The client's own cursor, if it has one.
    #[default]
    Own,
    /// Wrong: the position at which the session continues, behind a gap that the next block announces.
    Place,
}

/// The id of a heartbeat to a client.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Ping {
    /// The position before what the session gets next, if that is still there, or the client's own cursor when that
    /// is later; none while a session waits.
    #[default]
    BeforeNext,
    /// Wrong: the position before what the session gets next, looked up in the runs that the log still has.
    OldestRun,
    /// Wrong: the position before what the session gets next, which may be before the client's own cursor.
    BehindCursor,
    /// Wrong: the log's end.
    End,
}

/// A session whose place has left the window.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Trimmed {
    /// It gets a gap, unless the client's cursor is at the window's beginning already: a gap before a new epoch ends
    /// at the claim that began it, so the claim that follows is nothing new.
    #[default]
    UnlessKnown,
    /// Wrong: it gets a gap.
    Always,
}

/// The position after which a session that is kicked ends.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Fence {
    /// The last one of the master, which is looked up first.
    #[default]
    Master,
    /// Wrong: the last one of the server that the node publishes to, be it the master or not.
    OwnLink,
    /// Wrong: the last one that the session's node has read.
    OwnLog,
}

/// The number of a new epoch.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Numbering {
    /// The clock: higher than any that was claimed before, on any server.
    #[default]
    Clock,
    /// Wrong: one more than what this server and this node know of.
    Counter,
}

/// Condition under which a claim begins a new epoch.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Claim {
    /// The replication id is not the one that was stored with the epoch.
    #[default]
    Replication,
    /// Wrong: a promotion is not noticed.
    Blind,
}

/// A publisher whose stream is gone or has a newer epoch.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Refused {
    /// It looks the master up before it claims.
    #[default]
    LookUp,
    /// Wrong: it claims the server that it is connected to, be it the master or not.
    ClaimOnTheSpot,
}
