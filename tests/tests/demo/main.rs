//! Promises of the demo: its API, its configuration, its page, and pages of RuoYi's front ends.
#![allow(clippy::unwrap_used, reason = "tests may")]

mod answer_headers;
mod api;
mod behind_proxies;
mod careless_callers;
mod configuration;
mod deployment;
mod foreign_pages;
mod hostile_clients;
mod internal_address;
mod login_floods;
mod page;
mod plus_ui;
mod public_keys;
mod reloads;
mod ruoyi_snippets;
mod snowflakes;
mod tls;
mod unread_log;
