//! [`RestartReport`]: what the clients of restarted nodes went through.

use std::{collections::HashMap, fmt, time::Duration};

use serde_json::{Value, json};

use crate::audit::{
    check::Verdict,
    history::{End, Event, Record},
};

/// A restart of a node.
#[derive(Debug, Clone, Copy)]
pub(super) struct Restart {
    pub(super) node: u32,
    /// Time of SIGTERM, in microseconds of the history.
    pub(super) begin: u64,
    /// Time until the process had ended with status 0.
    pub(super) took: Duration,
}

/// What the clients of restarted nodes went through.
#[derive(Debug)]
pub(super) struct RestartReport {
    window: Duration,
    users: u64,
    /// The lowest number of users that were online.
    least_online: u64,
    rows: Vec<Row>,
    verdict: Verdict,
}

/// The clients of one restarted node.
#[derive(Debug, Default)]
struct Row {
    node: u32,
    took: Duration,
    /// Connections that it had.
    ended: u64,
    /// Those that ended with their time to come back: Close frame 1012 behind `bye`, or `retry:` and the stream's end.
    asked: u64,
    /// Handshakes that were refused meanwhile, by any node.
    refused: u64,
    /// Times at which their clients were back, in microseconds since SIGTERM, ascending.
    back: Vec<u64>,
}

const SECOND: u64 = 1_000_000;

impl Row {
    /// The largest number of reconnects within a second.
    fn most(&self) -> usize {
        let within = |first: &u64| self.back.partition_point(|at| *at < first + SECOND);
        self.back.iter().enumerate().map(|(index, first)| within(first) - index).max().unwrap_or(0)
    }

    /// The mean of the reconnects a second, from the first to the last; over a second at least.
    fn mean(&self) -> f64 {
        let Some((first, last)) = self.back.first().zip(self.back.last()) else { return 0.0 };
        self.back.len() as f64 / ((last - first).max(SECOND) as f64 / SECOND as f64)
    }

    fn ratio(&self) -> f64 {
        self.most() as f64 / self.mean().max(f64::MIN_POSITIVE)
    }
}

/// A client's connection.
#[derive(Debug, Default)]
struct Client {
    node: u32,
    accepted: bool,
    asked: bool,
    /// Row of the restart that has ended its last connection.
    row: Option<usize>,
}

impl RestartReport {
    /// A report on restarts that were seen in a history.
    pub(super) fn new(
        records: &[Record],
        restarts: &[Restart],
        window: Duration,
        users: u64,
        least_online: u64,
        verdict: Verdict,
    ) -> Self {
        let row = |restart: &Restart| Row { node: restart.node, took: restart.took, ..Row::default() };
        let mut rows: Vec<Row> = restarts.iter().map(row).collect();
        let mut clients: HashMap<u32, Client> = HashMap::new();
        for Record { at, event } in records {
            // The restart that began last.
            let current = restarts.partition_point(|restart| restart.begin <= *at).checked_sub(1);
            match event {
                Event::Dial { chain, node, .. } => {
                    let client = clients.entry(*chain).or_default();
                    (client.node, client.accepted, client.asked) = (*node, false, false);
                }
                Event::Hello { chain, .. } => {
                    let client = clients.entry(*chain).or_default();
                    client.accepted = true;
                    if let Some(row) = client.row.take() {
                        rows[row].back.push(at - restarts[row].begin);
                    }
                }
                Event::Bye { chain, retry } => {
                    clients.entry(*chain).or_default().asked = retry.is_some();
                }
                Event::End { chain, end } => {
                    let client = clients.entry(*chain).or_default();
                    let Some(current) = current else { continue };
                    if !client.accepted {
                        rows[current].refused += 1;
                    } else if *end != End::Left {
                        let is_asked = client.asked && matches!(end, End::Closed(1012) | End::Ended);
                        // One of another node has no reason to end.
                        rows[current].asked += u64::from(is_asked && client.node == restarts[current].node);
                        rows[current].ended += 1;
                        client.row = Some(current);
                    }
                }
                _ => {}
            }
        }
        Self { window, users, least_online, rows, verdict }
    }

    /// Descriptions of what must not be.
    pub(super) fn violations(&self) -> Vec<String> {
        let mut violations = self.verdict.violations();
        let total = self.verdict.total();
        if total.true_gaps > 0 {
            violations.push(format!("{} gaps", total.true_gaps));
        }
        for Row { node, ended, asked, back, .. } in &self.rows {
            if asked < ended {
                violations.push(format!(
                    "node {node}: {} of {ended} ends without a time to come back",
                    ended - asked
                ));
            }
            if (back.len() as u64) < *ended {
                violations.push(format!("node {node}: {} of {ended} clients are back", back.len()));
            }
        }
        if self.least_online < self.users {
            violations.push(format!("{} of {} users were online", self.least_online, self.users));
        }
        violations
    }

    /// The same for machines.
    pub(super) fn json(&self) -> Value {
        let total = self.verdict.total();
        let rows = self.rows.iter().map(|row| {
            json!({
                "node": row.node, "ended": row.ended, "asked": row.asked, "back": row.back.len(),
                "refused": row.refused, "mostASecond": row.most(), "meanASecond": row.mean(), "ratio": row.ratio(),
                "stopSeconds": row.took.as_secs_f64(),
            })
        });
        json!({
            "windowSeconds": self.window.as_secs_f64(), "users": self.users, "leastOnline": self.least_online,
            "nodes": rows.collect::<Vec<_>>(), "acknowledged": total.acknowledged, "delivered": total.delivered,
            "lost": total.lost, "doubled": total.doubled, "inverted": total.inverted,
            "gaps": total.true_gaps + total.false_gaps, "examples": self.verdict.examples,
        })
    }
}

impl fmt::Display for RestartReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { window, users, least_online, rows, verdict } = self;
        for example in &verdict.examples {
            writeln!(f, "{example}")?;
        }
        writeln!(f, "{users} clients, drain.window {window:?}")?;
        writeln!(
            f,
            "| node | ended | asked to come back | back | refused | back/s, most | mean | most/mean | stop |"
        )?;
        writeln!(
            f,
            "|-----:|------:|-------------------:|-----:|--------:|-------------:|-----:|----------:|-----:|"
        )?;
        for row in rows {
            writeln!(
                f,
                "| {:>4} | {:>5} | {:>18} | {:>4} | {:>7} | {:>12} | {:>4.0} | {:>9.2} | {:>3.1}s |",
                row.node,
                row.ended,
                row.asked,
                row.back.len(),
                row.refused,
                row.most(),
                row.mean(),
                row.ratio(),
                row.took.as_secs_f64(),
            )?;
        }
        let total = verdict.total();
        writeln!(
            f,
            "{} messages acknowledged, {} delivered; {} lost, {} doubled, {} inverted, {} gaps; at least {least_online} \
             of {users} users online",
            total.acknowledged,
            total.delivered,
            total.lost,
            total.doubled,
            total.inverted,
            total.true_gaps + total.false_gaps,
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::audit::history::Transport;

    #[test]
    fn a_client_that_was_not_asked_and_one_that_is_not_back_are_found() {
        let mut records = Vec::new();
        let mut push = |at: u64, event| records.push(Record { at, event });
        let dial = |chain, node| Event::Dial { chain, node, transport: Transport::Sse, cursor: None };
        let hello = |chain| Event::Hello { chain, recovered: None, cursor: None };
        for chain in 0..4 {
            push(0, dial(chain, 0));
            push(1, hello(chain));
        }
        push(10, Event::Bye { chain: 0, retry: Some(300) });
        push(11, Event::End { chain: 0, end: End::Ended });
        push(12, Event::Bye { chain: 1, retry: Some(400) });
        push(13, Event::End { chain: 1, end: End::Closed(1012) });
        push(14, Event::End { chain: 2, end: End::Broken });
        for chain in [0, 2] {
            push(20, dial(chain, 1));
            push(21 + SECOND * u64::from(chain), hello(chain));
        }
        let restarts = [Restart { node: 0, begin: 5, took: Duration::from_secs(1) }];
        let window = Duration::from_secs(1);
        let report = RestartReport::new(&records, &restarts, window, 4, 3, Verdict::default());
        let row = &report.rows[0];
        assert_eq!((row.ended, row.asked, row.back.len(), row.most()), (3, 2, 2, 1));
        let violations = [
            "node 0: 1 of 3 ends without a time to come back",
            "node 0: 2 of 3 clients are back",
            "3 of 4 users were online",
        ];
        assert_eq!(report.violations(), violations);
    }
}
