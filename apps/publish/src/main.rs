//! `realtime-publish`: publishes to the nodes of realtime from a shell or a script, over Redis alone.

mod cli;
mod config;
mod publisher;
mod request;
mod source;

use std::{ffi::OsString, process::exit};

use clap::Parser;

use crate::{
    cli::Cli,
    config::Config,
    publisher::{Publisher, complain},
};

/// The arguments, the configuration or a message are wrong; clap exits with the same.
const WRONG: i32 = 2;

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let cli = Cli::parse();
    // Another variable may not be UTF-8.
    let text = |text: OsString| text.to_string_lossy().into_owned();
    let variables = std::env::vars_os().map(|(name, value)| (text(name), text(value)));
    let publisher = Config::load(&cli.source, variables).and_then(|config| Publisher::start(&config));
    let result = match publisher {
        Ok(publisher) => cli.execute(&publisher).await,
        Err(error) => Err(error),
    };
    let code = match result {
        Ok(outcome) => outcome as i32,
        Err(error) => {
            complain(&format_args!("{error:#}"));
            WRONG
        }
    };
    // The runtime's end would wait for a name server that does not answer.
    exit(code)
}
