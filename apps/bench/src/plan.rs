//! [`LoadPlan`]: the connections and messages of one run of a load.

use std::sync::Arc;

use crate::{
    audience::Audience,
    clock::Clock,
    target::{Target, Transport},
    tokens::Tokens,
};

/// The connections and messages of one run of a load, as clients and publisher share them.
#[derive(Debug, Clone)]
pub(crate) struct LoadPlan {
    pub(crate) target: Target,
    pub(crate) tokens: Arc<Tokens>,
    pub(crate) audience: Audience,
    /// Number of WebSocket connections.
    pub(crate) websockets: usize,
    /// Number of event streams.
    pub(crate) streams: usize,
    /// Number of this run, which its messages carry.
    pub(crate) run: u32,
    /// Number of callers that publish.
    pub(crate) callers: u32,
    pub(crate) messages: u32,
    /// Size of a message in bytes.
    pub(crate) size: usize,
    pub(crate) clock: Clock,
}

impl LoadPlan {
    /// Returns transport and user of a connection: WebSockets come first, and on both transports users take turns.
    pub(crate) fn slot(&self, number: usize) -> (Transport, u32) {
        let users = self.tokens.users() as usize;
        let (transport, number) = match number.checked_sub(self.websockets) {
            None => (Transport::WebSocket, number),
            Some(number) => (Transport::Sse, number),
        };
        (transport, (number % users) as u32)
    }

    /// Returns the number of deliveries that are due after the messages in `sent`, `group * callers + caller`.
    pub(crate) fn expected(&self, sent: &[u32]) -> u64 {
        let callers = self.callers as usize;
        let groups: Vec<u64> =
            sent.chunks(callers).map(|sent| sent.iter().map(|&sent| u64::from(sent)).sum()).collect();
        let slots = 0..self.websockets + self.streams;
        slots.map(|number| groups[self.audience.group(self.slot(number).1) as usize]).sum()
    }
}
