//! [`Cli`]: the command line.

use std::{str::FromStr, time::Duration};

use anyhow::{Context, bail};
use clap::{Args, Parser, Subcommand};
use realtime_core::{EventName, Topic, UserId};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, BufReader, stdin};

use crate::{
    publisher::{Outcome, Publisher},
    request::{Request, TransportName},
    source::Source,
};

/// Publishes to the nodes of realtime from a shell or a script, over Redis alone.
///
/// Prints the position of the message. Exits with 0 when it was published, 1 when it was not, 2 for wrong arguments,
/// configuration or messages, and 3 when it may have been, or its position could not be printed: repeat it with the same --id,
/// and nobody gets it twice.
#[derive(Parser)]
#[command(name = "realtime-publish", version)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) source: Source,
    #[command(flatten)]
    options: Options,
    #[command(subcommand)]
    command: Command,
}

/// Options of a message.
#[derive(Args)]
struct Options {
    /// The name of its event.
    #[arg(long, global = true, value_name = "NAME", value_parser = EventName::new)]
    event: Option<EventName>,
    /// The only transport that it is for.
    #[arg(long, global = true)]
    transport: Option<TransportName>,
    /// Its id: publishes with the same one within five minutes are one.
    #[arg(long, global = true, value_name = "KEY")]
    id: Option<String>,
    /// The time after which it is worthless, such as `30s`.
    #[arg(long, global = true, value_name = "TIME", value_parser = humantime::parse_duration)]
    ttl: Option<Duration>,
    /// Keeps it for newcomers of its topic.
    #[arg(long, global = true)]
    retain: bool,
}

/// The ids of one argument.
#[derive(Clone)]
struct Users(Vec<UserId>);

fn users(text: &str) -> Result<Users, <UserId as FromStr>::Err> {
    text.split(',').map(str::parse).collect::<Result<_, _>>().map(Users)
}

#[derive(Subcommand)]
enum Command {
    /// Publish to some users.
    ToUsers {
        /// Their ids, with commas.
        #[arg(value_name = "ID,...", value_parser = users)]
        users: Users,
        /// The message; without it, what comes on stdin.
        message: Option<String>,
    },
    /// Publish to a named topic.
    ToTopic {
        /// Its name.
        topic: Topic,
        /// The message; without it, what comes on stdin.
        message: Option<String>,
    },
    /// Publish to all users.
    All {
        /// The message; without it, what comes on stdin.
        message: Option<String>,
    },
    /// Publish each line of stdin: JSON as POST /api/publish takes it. Prints a line of JSON for each, in their order.
    Lines,
}

impl Cli {
    /// Publishes what the command says.
    pub(crate) async fn execute(self, publisher: &Publisher) -> anyhow::Result<Outcome> {
        let Self { options, command, .. } = self;
        let mut request = Request { broadcast: Some(false), ..options.request()? };
        let message = match command {
            Command::ToUsers { users, message } => {
                request.user_ids = Some(users.0);
                message
            }
            Command::ToTopic { topic, message } => {
                request.topics = Some(vec![topic]);
                message
            }
            Command::All { message } => {
                request.broadcast = Some(true);
                message
            }
            Command::Lines => {
                if options.is_any() {
                    bail!("options of a message are in the lines themselves");
                }
                return lines(publisher).await;
            }
        };
        request.message = match message {
            Some(message) => message,
            None => {
                let mut text = String::new();
                stdin().read_to_string(&mut text).await.context("stdin")?;
                text.strip_suffix('\n').map(str::to_owned).unwrap_or(text)
            }
        };
        Ok(publisher.publish(request.envelope()?).await)
    }
}

impl Options {
    fn request(&self) -> anyhow::Result<Request> {
        Ok(Request {
            event: self.event.clone(),
            transport: self.transport,
            idempotency_key: self.id.clone(),
            ttl: self.ttl.map(|ttl| u64::try_from(ttl.as_millis())).transpose().context("--ttl")?,
            retain: Some(self.retain),
            ..Request::default()
        })
    }

    fn is_any(&self) -> bool {
        let Self { event, transport, id, ttl, retain } = self;
        *retain || event.is_some() || transport.is_some() || id.is_some() || ttl.is_some()
    }
}

/// Publishes the lines of stdin one after the other, so that they keep their order. The outcome is the worst of all.
async fn lines(publisher: &Publisher) -> anyhow::Result<Outcome> {
    let mut lines = BufReader::new(stdin()).split(b'\n');
    let mut worst = Outcome::Published;
    while let Some(line) = lines.next_segment().await.context("stdin")? {
        if !line.trim_ascii().is_empty() {
            worst = worst.max(publisher.publish_line(&line).await);
        }
    }
    Ok(worst)
}
