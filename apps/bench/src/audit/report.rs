//! The table of an audit.

use std::fmt::{self, Write};

use serde_json::{Value, json};

use crate::audit::{check::Verdict, counts::Counts};

type Figure = fn(&Counts) -> String;

/// The columns: a short head, and the figure.
const COLUMNS: [(&str, Figure); 18] = [
    ("acked", |counts| counts.acknowledged.to_string()),
    ("unacked", |counts| counts.unacknowledged.to_string()),
    ("delivered", |counts| counts.delivered.to_string()),
    ("in gaps", |counts| counts.announced.to_string()),
    ("true gaps", |counts| counts.true_gaps.to_string()),
    ("false gaps", |counts| counts.false_gaps.to_string()),
    ("lost", |counts| counts.lost.to_string()),
    ("doubled", |counts| counts.doubled.to_string()),
    ("inverted", |counts| counts.inverted.to_string()),
    ("late", |counts| counts.late.to_string()),
    ("stale", |counts| counts.stale.to_string()),
    ("wrong user", |counts| counts.wrong_user.to_string()),
    ("malformed", |counts| counts.malformed.to_string()),
    ("back", |counts| counts.cursors_back.to_string()),
    ("ended", |counts| counts.ended.to_string()),
    ("kicks", |counts| counts.kicks.to_string()),
    ("problems", |counts| counts.problems.to_string()),
    ("silence", |counts| format!("{:.1}s", counts.silence as f64 / 1e6)),
];

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut rows = vec![["fault".to_owned(), "times".to_owned()].into_iter().collect::<Vec<_>>()];
        rows[0].extend(COLUMNS.map(|(head, _)| head.to_owned()));
        let cells = |name: &str, times: String, counts: &Counts| {
            let figures = COLUMNS.map(|(_, figure)| figure(counts));
            [name.to_owned(), times].into_iter().chain(figures).collect::<Vec<_>>()
        };
        for row in &self.rows {
            rows.push(cells(
                row.name,
                if row.times > 0 { row.times.to_string() } else { String::new() },
                &row.counts,
            ));
        }
        let times: u32 = self.rows.iter().map(|row| row.times).sum();
        rows.push(cells("total", times.to_string(), &self.total()));
        let width = |column: usize| rows.iter().map(|row| row[column].len()).max().unwrap_or(0);
        let widths: Vec<_> = (0..rows[0].len()).map(width).collect();
        for (number, row) in rows.iter().enumerate() {
            let mut line = String::new();
            for (column, (cell, width)) in row.iter().zip(&widths).enumerate() {
                match column {
                    0 => write!(line, "| {cell:<width$} |")?,
                    _ => write!(line, " {cell:>width$} |")?,
                }
            }
            writeln!(f, "{line}")?;
            if number == 0 {
                let rule: Vec<_> = widths
                    .iter()
                    .enumerate()
                    .map(|(column, width)| "-".repeat(width + 1) + if column == 0 { "-" } else { ":" })
                    .collect();
                writeln!(f, "|{}|", rule.join("|"))?;
            }
        }
        Ok(())
    }
}

impl Verdict {
    /// The same for machines.
    pub(crate) fn json(&self, seed: u64) -> Value {
        let figures = |counts: &Counts| {
            COLUMNS
                .iter()
                .map(|(head, figure)| ((*head).to_owned(), json!(figure(counts))))
                .collect::<serde_json::Map<_, _>>()
        };
        let rows = self
            .rows
            .iter()
            .map(|row| json!({ "fault": row.name, "times": row.times, "counts": figures(&row.counts) }));
        json!({
            "seed": seed, "rows": rows.collect::<Vec<_>>(), "total": figures(&self.total()), "examples": self.examples,
        })
    }

    /// Descriptions of the violations.
    pub(crate) fn violations(&self) -> Vec<String> {
        let violations = self.total().violations();
        violations
            .iter()
            .filter(|(_, count)| *count > 0)
            .map(|(name, count)| format!("{count} {name}"))
            .collect()
    }
}
