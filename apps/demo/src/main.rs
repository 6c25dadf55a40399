//! The demo's command line.

use std::{
    ffi::OsString,
    io::{self, Write},
    path::PathBuf,
    process,
    time::Duration,
};

use anyhow::Context;
use clap::{Args, Parser, Subcommand};
use realtime_core::UserId;
use realtime_demo::{
    ReadConfig, check,
    config::{Config, ConfigErrors, REFERENCE},
    log, run,
    token::{self, SigningFile},
};

/// jemalloc: what a burst has taken goes back to the system within seconds, and an idle connection takes less than with glibc.
#[cfg(all(feature = "jemalloc", target_os = "linux"))]
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// A push server with a page to try it: WebSocket and Server-Sent Events over one hub.
#[derive(Parser)]
#[command(version, args_conflicts_with_subcommands = true)]
struct Cli {
    #[command(flatten)]
    files: Files,
    #[command(subcommand)]
    command: Option<Command>,
}

/// The files of the configuration.
#[derive(Args, Clone)]
struct Files {
    /// The configuration file; without one, the built-in reference holds.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// An application.yml of RuoYi-Vue-Plus, of which the sections of this server are read; --config is stronger.
    #[arg(long, value_name = "FILE")]
    ruoyi: Option<PathBuf>,
}

#[derive(Subcommand)]
enum Command {
    /// Check a configuration without starting anything.
    CheckConfig {
        #[command(flatten)]
        files: Files,
        /// Also connect once to each Redis that is named. Exits with 75 for what may pass, with 78 for what does not.
        #[arg(long)]
        connect: bool,
    },
    /// Print the configuration in force, commented, with the source of each value. Secrets are masked.
    PrintConfig {
        #[command(flatten)]
        files: Files,
        /// Print the built-in reference instead: every key with its default.
        #[arg(long, conflicts_with_all = ["config", "ruoyi"])]
        reference: bool,
    },
    /// Print a token for a user, signed with the configured secret or with a private key.
    GenToken {
        /// The files, one of which has to name auth.jwt.secret or the public key.
        #[command(flatten)]
        files: Files,
        /// The user's id, a number or a text.
        #[arg(long)]
        user: UserId,
        /// The application type that the token is for.
        #[arg(long, default_value = "web")]
        client_id: String,
        /// Validity, such as `90s`, `1h`, `7d`.
        #[arg(long, default_value = "1h", value_parser = humantime::parse_duration)]
        ttl: Duration,
        /// A private key in PEM (RSA, P-256, P-384, Ed25519) to sign with in place of the secret: RS256, ES256, ES384 or
        /// EdDSA, or the first of auth.jwt.algorithms that it can be used with.
        #[arg(long, value_name = "FILE")]
        key: Option<PathBuf>,
        /// The id (`kid`) of that key, which the token names.
        #[arg(long, value_name = "ID", requires = "key")]
        key_id: Option<String>,
    },
}

/// Statuses of `check-config --connect`, as in sysexits.h: to try again may help, or does not.
#[cfg(feature = "redis")]
const TEMPORARY: i32 = 75;
#[cfg(feature = "redis")]
const PERMANENT: i32 = 78;

const SUCCESS: i32 = 0;
const FAILURE: i32 = 1;

#[actix_web::main]
async fn main() {
    // A panic, too.
    let flush = log::FlushOnDrop;
    let status = execute(Cli::parse()).await.unwrap_or_else(|error| {
        report(&error);
        FAILURE
    });
    drop(flush);
    // Everything that has to be sent or closed has been. The runtime would wait for threads that look up a name.
    process::exit(status);
}

/// Prints an error, or all that it consists of with its warnings, to stderr.
fn report(error: &anyhow::Error) {
    match error.downcast_ref::<ConfigErrors>() {
        Some(errors) => {
            errors.warnings().for_each(|warning| log::line(format_args!("warning: {warning}")));
            errors.iter().for_each(|error| log::line(format_args!("error: {error}")));
        }
        None => log::line(format_args!("error: {error:#}")),
    }
}

async fn execute(cli: Cli) -> anyhow::Result<i32> {
    let Cli { files, command } = cli;
    match command {
        None => {
            let config = load(&files)?;
            log::init(&config.log.level, config.log.format)?;
            // Without files there is nothing that may have changed.
            let has_files = files.config.is_some() || files.ruoyi.is_some() || config.has_files();
            let read = move || load(&files);
            run(config, has_files.then(|| Box::new(read) as ReadConfig)).await?;
        }
        Some(Command::CheckConfig { files, connect }) => {
            let config = load(&files)?;
            warn(&config);
            let problems = check(&config);
            if !problems.is_empty() {
                problems.iter().for_each(report);
                return Ok(FAILURE);
            }
            answer("the configuration is valid")?;
            if connect {
                return try_connections(&config).await;
            }
        }
        Some(Command::PrintConfig { reference: true, .. }) => answer(REFERENCE.trim_end())?,
        Some(Command::PrintConfig { files, .. }) => {
            let config = load(&files)?;
            warn(&config);
            answer(config.print().trim_end())?;
        }
        Some(Command::GenToken { files, user, client_id, ttl, key, key_id }) => {
            let key = key.as_deref().map(|file| SigningFile { file, id: key_id.as_deref() });
            answer(&token::generate(&load(&files)?, user, &client_id, ttl, key)?)?;
        }
    }
    Ok(SUCCESS)
}

#[cfg(feature = "redis")]
async fn try_connections(config: &Config) -> anyhow::Result<i32> {
    let results = realtime_demo::connect(config).await;
    if results.is_empty() {
        answer("no Redis is configured")?;
    }
    let mut status = SUCCESS;
    for result in results {
        match result {
            Ok(reached) => answer(&reached.to_string())?,
            Err(unreached) => {
                log::line(format_args!("error: {unreached}"));
                status = status.max(if unreached.is_permanent() { PERMANENT } else { TEMPORARY });
            }
        }
    }
    Ok(status)
}

#[cfg(not(feature = "redis"))]
async fn try_connections(_: &Config) -> anyhow::Result<i32> {
    answer("no Redis is configured")?;
    Ok(SUCCESS)
}

fn warn(config: &Config) {
    for note in &config.notes {
        log::line(format_args!("ruoyi: {note}"));
    }
    for warning in &config.warnings {
        log::line(format_args!("warning: {warning}"));
    }
}

/// Prints an answer to stdout.
fn answer(text: &str) -> anyhow::Result<()> {
    writeln!(io::stdout(), "{text}").context("stdout")
}

fn load(files: &Files) -> Result<Config, ConfigErrors> {
    // What is not UTF-8 is refused by name if it is for us.
    let text = |text: OsString| text.to_string_lossy().into_owned();
    let variables = std::env::vars_os().map(|(name, value)| (text(name), text(value)));
    Config::load_over(files.ruoyi.as_deref(), files.config.as_deref(), variables)
}
