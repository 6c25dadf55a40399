//! [`Capacity`]: the nodes and the Redis that a load needs, by the figures of docs/performance.md.

use std::{fmt, str::FromStr};

use clap::{Args, ValueEnum};

use crate::rate::Rate;

/// A load whose needs are calculated. Nothing is measured.
#[derive(Debug, Args)]
pub(crate) struct Capacity {
    /// Users that are online at the same time.
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..))]
    users: u32,
    /// Connections of a user: tabs and devices.
    #[arg(long, default_value_t = 1.2)]
    connections: f64,
    /// Messages that are published a second, such as `500/s`.
    #[arg(long, default_value = "100/s")]
    rate: Rate,
    /// Number of users that each message is for, or `all`.
    #[arg(long, default_value = "1")]
    to: Reach,
    /// Bytes of a message.
    #[arg(long, default_value_t = 150)]
    size: u32,
    /// Nodes.
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u32).range(1..=1000))]
    nodes: u32,
    /// Nodes that may fail while the others carry everything.
    #[arg(long, default_value_t = 1)]
    failing: u32,
    /// The way of the bytes to a socket.
    #[arg(long, value_enum, default_value_t = Lane::TakenOver)]
    lane: Lane,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Lane {
    /// `realtime_server::HttpServer`, plain HTTP/1.1.
    TakenOver,
    /// actix-web's server, or TLS, or HTTP/2.
    Body,
}

/// The users that a message is for.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Reach {
    Users(u32),
    All,
}

impl FromStr for Reach {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text == "all" {
            return Ok(Self::All);
        }
        text.parse().map(Self::Users).map_err(|_| "expected a number of users, or `all`")
    }
}

/// Microseconds of CPU of one delivery when messages come one by one: the upper end of what was measured.
const DELIVERY: [f64; 2] = [4.8, 6.0];
/// KiB of the process for a connection after a burst.
const CONNECTION: [f64; 2] = [1.05, 13.0];
/// Microseconds of CPU of a connect with the check of its token.
const CONNECT: f64 = 31.0;
/// Microseconds of CPU of a publish on the node that publishes, and of a message on each node.
const PUBLISH: f64 = 4.1;
const MESSAGE: f64 = 1.2;
/// KiB of the server's kernel for a connection: half of the 7.7 GiB that a million have on both ends.
const KERNEL: f64 = 4.0;
/// MiB of a process without connections, and of its window (`history.maxBytes`).
const PROCESS: f64 = 22.0;
const WINDOW: f64 = 64.0;
/// Seconds between two heartbeats of a connection.
const HEARTBEAT: f64 = 20.0;
/// Bytes of a frame, and of TCP and IP around it.
const FRAME: f64 = 4.0 + 66.0;
/// Redis: microseconds of an `XADD`; of an entry that is read, alone and among many.
const XADD: f64 = 3.6;
const READ_ALONE: f64 = 17.4;
const READ: f64 = 0.6;
/// Redis: bytes of an entry besides its text, for each byte of the text, and of a user who is online.
const ENTRY: f64 = 90.0;
const ENTRY_BYTE: f64 = 1.2;
const USER: f64 = 536.0;
/// Entries that Redis keeps at most, and seconds (`history.maxMessages`, `history.maxAge`).
const KEPT: f64 = 100_000.0;
const AGE: f64 = 300.0;
/// Share of a core, and of a machine, that is planned for.
const PLANNED: f64 = 0.5;

impl fmt::Display for Capacity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { users, connections, rate: Rate(rate), to, size, nodes, failing, lane } = *self;
        let (users, size, lane) = (f64::from(users), f64::from(size), lane as usize);
        let all = users * connections;
        let reached = match to {
            Reach::All => all,
            Reach::Users(to) => f64::from(to).min(users) * connections,
        };
        let deliveries = rate * reached;
        let serving = f64::from(nodes.saturating_sub(failing).max(1));
        let own = all / serving;

        let cpu = deliveries / serving * DELIVERY[lane]
            + own / HEARTBEAT * DELIVERY[lane]
            + rate / serving * PUBLISH
            + rate * MESSAGE;
        // At most a thousand reads a second and node; the rest comes in the same ones.
        let in_a_read = (rate / 1000.0).max(1.0);
        let redis = rate * (XADD + f64::from(nodes) * (READ + READ_ALONE / in_a_read));
        let entries = (rate * AGE).min(KEPT);
        let redis_memory = entries * (ENTRY + ENTRY_BYTE * size) + users * USER;

        let mut row = |name: &str, value: String, unit: &str| {
            writeln!(f, "{}", format!("{name:<34}{value:>12} {unit}").trim_end())
        };
        row("connections", whole(all), "")?;
        row("deliveries", whole(deliveries), "/s")?;
        row("nodes that carry all of it", whole(serving), "")?;
        row("each of them", String::new(), "")?;
        row("  connections, open files", whole(own), "and 200 more files")?;
        row("  memory of the process", mib(own * CONNECTION[lane] / 1024.0 + PROCESS + WINDOW), "MiB")?;
        row("  memory of its kernel", mib(own * KERNEL / 1024.0), "MiB")?;
        row("  CPU", format!("{:.2}", cpu / 1e6), "cores")?;
        row("  cores to plan", whole((cpu / 1e6 / PLANNED).ceil().max(1.0)), "")?;
        row("  all of them connect", format!("{:.1}", own * CONNECT / 1e6), "s of a core")?;
        row("  sent", mib(deliveries / serving * (size + FRAME) * 8.0 / 1e6), "Mbit/s")?;
        if nodes > 1 {
            row("Redis", String::new(), "")?;
            row("  CPU", format!("{:.2}", redis / 1e6), "of its one core")?;
            row("  memory", mib(redis_memory / 1024.0 / 1024.0), "MiB")?;
        }
        if redis / 1e6 > PLANNED && nodes > 1 {
            writeln!(
                f,
                "Redis is the bound: fewer nodes, larger messages in their place, or a second key prefix"
            )?;
        }
        Ok(())
    }
}

fn mib(value: f64) -> String {
    whole(value.ceil())
}

/// A whole number with separated thousands.
fn whole(value: f64) -> String {
    let digits = format!("{value:.0}");
    let mut text = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at) % 3 == 0 {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load(users: u32, rate: f64, to: Reach, nodes: u32) -> Capacity {
        let (rate, lane) = (Rate(rate), Lane::TakenOver);
        Capacity { users, connections: 1.0, rate, to, size: 150, nodes, failing: 0, lane }
    }

    fn value(load: &Capacity, name: &str) -> String {
        let text = load.to_string();
        let line =
            text.lines().find_map(|line| line.trim().strip_prefix(name)).unwrap_or_else(|| panic!("{text}"));
        line.split_whitespace().next().unwrap_or_default().to_owned()
    }

    #[test]
    fn the_measured_loads_come_out_as_they_were_measured() {
        // 5,000 connections at 10/s: 25.5 % of two cores at 5.1 us. 1,000/s to ten nodes: a fifth of Redis' core.
        assert_eq!(value(&load(5000, 10.0, Reach::All, 1), "CPU"), "0.24");
        assert_eq!(value(&load(5000, 10.0, Reach::All, 1), "deliveries"), "50,000");
        assert_eq!(value(&load(1, 1000.0, Reach::Users(1), 10), "memory of the process"), "87");
        let text = load(1, 1000.0, Reach::Users(1), 10).to_string();
        assert!(text.contains("0.18 of its one core"), "{text}");
        // A million WebSockets: 1.05 KiB each, after a burst.
        assert_eq!(value(&load(1_000_000, 0.0, Reach::All, 1), "memory of the process"), "1,112");
    }

    #[test]
    fn a_message_reaches_no_more_users_than_there_are() {
        assert_eq!(value(&load(10, 1.0, Reach::Users(100), 1), "deliveries"), "10");
        assert_eq!("all".parse(), Ok(Reach::All));
        "some".parse::<Reach>().unwrap_err();
    }
}
