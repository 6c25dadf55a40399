//! Promises of the documentation about itself.
#![allow(clippy::unwrap_used, reason = "tests may")]

mod codes;
mod links;
mod listings;
mod named_tests;
mod page;
mod redis_user;
mod translation;
