//! Promises of several nodes together, over real Redis servers and under faults.
#![allow(clippy::unwrap_used, reason = "tests may")]

mod agreeing_parts;
mod canary_tokens;
mod confirmed_kicks;
mod confirmed_publishes;
mod explained_users;
mod failover;
mod final_kicks;
mod histories;
mod hostile_redis;
mod java_logins;
mod last_words;
mod message_options;
mod mixed_versions;
mod presence;
mod publish_command;
mod pubsub;
mod redis_over_tls;
mod refreshed_logins;
mod refusing_redis;
mod session_limits;
mod several_nodes;
mod starting_nodes;
mod streams;
mod support_questions;
mod text_streams;
mod tickets;
mod topics;
mod trace_context;
