//! [`Report`]: the figures of all servers, as a table or as JSON.

use std::fmt::{self, Write};

use serde_json::{Map, Value, json};

use crate::figure::{Kind, Measurement};

/// The figures of all servers.
#[derive(Debug)]
pub(crate) struct Report {
    columns: Vec<Column>,
    medians: Vec<Measurement>,
}

/// The figures of a server.
#[derive(Debug)]
pub(crate) struct Column {
    pub(crate) name: String,
    pub(crate) is_baseline: bool,
    pub(crate) runs: Vec<Measurement>,
}

impl Report {
    /// Creates a report; the baseline is the last column.
    pub(crate) fn new(mut columns: Vec<Column>) -> Self {
        columns.sort_by_key(|column| column.is_baseline);
        let medians = columns.iter().map(|column| Measurement::median(&column.runs)).collect();
        Self { columns, medians }
    }

    /// Returns the violations of each server as text.
    pub(crate) fn violations(&self) -> Vec<String> {
        let violations = |(column, median): (&Column, &Measurement)| {
            let violations = median.violations();
            (!violations.is_empty()).then(|| format!("{}: {}", column.name, violations.join(", ")))
        };
        self.columns.iter().zip(&self.medians).filter_map(violations).collect()
    }

    /// Returns the report as JSON.
    pub(crate) fn json(&self, command: &str, load: &Value) -> Value {
        let servers = self.columns.iter().zip(&self.medians).map(|(column, median)| {
            let figures = |measurement: &Measurement| -> Value {
                measurement.iter().map(|(figure, value)| (figure.key.to_owned(), number(value))).collect()
            };
            let ratios: Map<String, Value> = median
                .iter()
                .filter_map(|(figure, _)| {
                    Some((figure.key.to_owned(), number(self.ratio(column, median, figure.key)?)))
                })
                .collect();
            json!({
                "name": column.name,
                "runs": column.runs.iter().map(figures).collect::<Vec<_>>(),
                "median": figures(median),
                "ratioToBaseline": ratios,
            })
        });
        json!({
            "tool": "realtime-bench",
            "version": env!("CARGO_PKG_VERSION"),
            "command": command,
            "load": load,
            "servers": servers.collect::<Vec<_>>(),
        })
    }

    /// Returns the ratio of a figure to the baseline's.
    fn ratio(&self, column: &Column, median: &Measurement, key: &str) -> Option<f64> {
        if column.is_baseline {
            return None;
        }
        let baseline = self.columns.iter().position(|column| column.is_baseline)?;
        let (figure, value) = median.iter().find(|(figure, _)| figure.key == key)?;
        let baseline = self.medians[baseline].value(figure)?;
        (figure.kind == Kind::Compared && baseline > 0.0).then_some(value / baseline)
    }
}

/// Converts a number to JSON; whole numbers stay whole.
fn number(value: f64) -> Value {
    if value.fract() == 0.0 && value.abs() < 1e15 { json!(value as i64) } else { json!(value) }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut rows = vec![vec![String::new()]];
        rows[0].extend(self.columns.iter().map(|column| match column.runs.len() {
            1 => column.name.clone(),
            runs => format!("{} (median of {runs})", column.name),
        }));
        let mut shown = Vec::new();
        for (figure, _) in self.medians.iter().flat_map(Measurement::iter) {
            // Rare violations are shown only if there are any.
            let rare = !["lost", "doubled", "out_of_order"].contains(&figure.key);
            let none =
                self.medians.iter().all(|median| median.value(figure).is_none_or(|value| value == 0.0));
            if shown.contains(&figure.key) || (figure.kind == Kind::Violation && rare && none) {
                continue;
            }
            shown.push(figure.key);
            let mut row = vec![figure.label.to_owned()];
            for (column, median) in self.columns.iter().zip(&self.medians) {
                let mut cell = median.value(figure).map(|value| figure.unit.show(value)).unwrap_or_default();
                if let Some(ratio) = self.ratio(column, median, figure.key) {
                    write!(cell, "  {ratio:>5.2}x")?;
                } else if self.columns.len() > 1 && !column.is_baseline {
                    cell.push_str("        ");
                }
                row.push(cell);
            }
            rows.push(row);
        }
        let widths: Vec<usize> = (0..rows[0].len())
            .map(|at| rows.iter().map(|row| row[at].chars().count()).max().unwrap_or_default())
            .collect();
        for row in rows {
            write!(f, "{:<width$}", row[0], width = widths[0])?;
            for (cell, width) in row[1..].iter().zip(&widths[1..]) {
                write!(f, "  {cell:>width$}")?;
            }
            writeln!(f)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::figure::{DELIVERED, DELIVERY_CPU, LOST};

    fn column(name: &str, is_baseline: bool, cpu: f64, lost: f64) -> Column {
        let mut run = Measurement::default();
        run.set(&DELIVERED, 1000.0);
        run.set(&LOST, lost);
        run.set(&DELIVERY_CPU, cpu);
        Column { name: name.into(), is_baseline, runs: vec![run] }
    }

    #[test]
    fn figures_are_compared_with_the_baseline() {
        let report = Report::new(vec![column("baseline", true, 2.0, 0.0), column("other", false, 3.0, 0.0)]);
        let table = report.to_string();
        assert!(table.contains("3.000 us   1.50x"), "{table}");
        assert_eq!(
            table.lines().next().unwrap().split_whitespace().collect::<Vec<_>>(),
            ["other", "baseline"]
        );
        let json = report.json("run", &Value::Null);
        assert_eq!(json["servers"][0]["ratioToBaseline"]["delivery_cpu_us"], 1.5);
        assert_eq!(json["servers"][0]["median"]["delivered"], 1000);
        assert_eq!(json["servers"][0]["ratioToBaseline"]["delivered"], Value::Null);
        assert!(report.violations().is_empty());
    }

    #[test]
    fn a_loss_is_a_violation() {
        let report = Report::new(vec![column("other", false, 3.0, 7.0)]);
        assert_eq!(report.violations(), ["other: lost: 7"]);
    }
}
