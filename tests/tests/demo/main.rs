//! Promises of the demo: its API, its configuration, its page, and pages of RuoYi's front ends.
#![allow(clippy::unwrap_used, reason = "tests may")]

mod answer_headers;
mod api;
mod audit;
mod behind_proxies;
mod broken_frames;
mod careless_callers;
mod configuration;
mod connect_check;
mod console;
mod cookies;
mod deployment;
mod explained;
mod floods;
mod foreign_pages;
mod forged_tokens;
mod hostile_clients;
mod internal_address;
mod login_floods;
mod metrics;
mod odd_texts;
mod openapi;
mod page;
mod plus_ui;
mod print_config;
mod public_keys;
mod readiness;
mod reloads;
mod ruoyi_questions;
mod ruoyi_snippets;
mod smuggled_requests;
mod snowflakes;
mod stops;
mod tls;
mod traced;
mod unread_log;
