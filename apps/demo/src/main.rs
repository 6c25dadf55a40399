//! The demo's command line.

use std::{
    ffi::OsString,
    io::{self, Write},
    path::{Path, PathBuf},
    process::ExitCode,
    time::Duration,
};

use anyhow::Context;
use clap::{Parser, Subcommand};
use realtime_core::UserId;
use realtime_demo::{
    ReadConfig, check,
    config::{Config, ConfigErrors},
    log, run, token,
};

/// A push server with a page to try it: WebSocket and Server-Sent Events over one hub.
#[derive(Parser)]
#[command(version, args_conflicts_with_subcommands = true)]
struct Cli {
    /// The configuration file; without one, the built-in reference holds.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Subcommand)]
enum Command {
    /// Check a configuration without starting anything.
    CheckConfig {
        /// The configuration file.
        #[arg(long, value_name = "FILE")]
        config: Option<PathBuf>,
    },
    /// Print a token for a user, signed with the configured secret.
    GenToken {
        /// The configuration file; it has to name auth.jwt.secret.
        #[arg(long, value_name = "FILE")]
        config: Option<PathBuf>,
        /// The user's id, a number or a text.
        #[arg(long)]
        user: UserId,
        /// The application type that the token is for.
        #[arg(long, default_value = "web")]
        client_id: String,
        /// Validity, such as `90s`, `1h`, `7d`.
        #[arg(long, default_value = "1h", value_parser = humantime::parse_duration)]
        ttl: Duration,
    },
}

#[actix_web::main]
async fn main() -> ExitCode {
    let _flush = log::FlushOnDrop;
    match execute(Cli::parse()).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            match error.downcast_ref::<ConfigErrors>() {
                Some(errors) => errors.iter().for_each(|error| log::line(format_args!("error: {error}"))),
                None => log::line(format_args!("error: {error:#}")),
            }
            ExitCode::FAILURE
        }
    }
}

async fn execute(cli: Cli) -> anyhow::Result<()> {
    let Cli { config: file, command } = cli;
    match command {
        None => {
            let config = load(file.as_deref())?;
            log::init(&config.log.level).context("log.level")?;
            // Without files there is nothing that may have changed.
            let has_files = file.is_some() || config.server.tls.cert.is_some();
            let read = move || load(file.as_deref());
            run(config, has_files.then(|| Box::new(read) as ReadConfig)).await
        }
        Some(Command::CheckConfig { config }) => {
            let config = load(config.as_deref())?;
            for warning in &config.warnings {
                log::line(format_args!("warning: {warning}"));
            }
            check(&config)?;
            answer("the configuration is valid")
        }
        Some(Command::GenToken { config, user, client_id, ttl }) => {
            answer(&token::generate(&load(config.as_deref())?, user, &client_id, ttl)?)
        }
    }
}

/// Prints an answer to stdout.
fn answer(text: &str) -> anyhow::Result<()> {
    writeln!(io::stdout(), "{text}").context("stdout")
}

fn load(file: Option<&Path>) -> Result<Config, ConfigErrors> {
    // What is not UTF-8 is refused by name if it is for us.
    let text = |text: OsString| text.to_string_lossy().into_owned();
    let variables = std::env::vars_os().map(|(name, value)| (text(name), text(value)));
    Config::load(file, variables)
}
