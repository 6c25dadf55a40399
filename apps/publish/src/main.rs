//! `realtime-publish`: publishes to the nodes of realtime from a shell or a script, over Redis alone.

mod cli;
mod config;
mod publisher;
mod request;
mod source;

use std::process::ExitCode;

use clap::Parser;

use crate::{cli::Cli, config::Config, publisher::Publisher};

/// The arguments, the configuration or a message are wrong; clap exits with the same.
const WRONG: u8 = 2;

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let cli = Cli::parse();
    let publisher = Config::load(&cli.source, std::env::vars()).and_then(|config| Publisher::start(&config));
    let result = match publisher {
        Ok(publisher) => cli.execute(&publisher).await,
        Err(error) => Err(error),
    };
    match result {
        Ok(outcome) => ExitCode::from(outcome as u8),
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::from(WRONG)
        }
    }
}
