//! The clients: they follow docs/protocol.md to the letter, and take down what they see.

pub(crate) mod chain;
pub(crate) mod connection;
pub(crate) mod program;
pub(crate) mod sse;
pub(crate) mod ws;

use std::time::Duration;

use crate::audit::history::Cursor;

/// An event received from a server on either transport.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum ServerEvent {
    Hello {
        recovered: Option<bool>,
        cursor: Option<Cursor>,
        silence: Option<Duration>,
    },
    Message {
        event: String,
        data: String,
        cursor: Option<Cursor>,
    },
    Gap {
        reason: String,
        cursor: Option<Cursor>,
    },
    Beat {
        cursor: Option<Cursor>,
    },
    /// Something that this client has no use for, and that moves no cursor but by its id.
    Other {
        cursor: Option<Cursor>,
    },
    /// Reconnection delay.
    Retry(Duration),
    Bye {
        reason: String,
        retry: Option<Duration>,
    },
    Close(Option<u16>),
    /// Input that violates the protocol.
    Malformed(String),
}

/// The begin of a text, for a message about it.
pub(crate) fn excerpt(text: &str) -> String {
    let short: String = text.chars().take(120).collect();
    if short.len() < text.len() { format!("{short}... ({} bytes)", text.len()) } else { short }
}

fn cursor(text: &str) -> Result<Cursor, ServerEvent> {
    text.parse().map_err(|_| ServerEvent::Malformed(format!("cursor {:?}", excerpt(text))))
}
