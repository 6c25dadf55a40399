//! [`Figure`] and [`Measurement`]: the measured quantities, their names and their units.

use std::sync::Mutex;

use crate::pool_shared::lock;

/// A measured quantity.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Figure {
    /// Its name in JSON, with the unit.
    pub(crate) key: &'static str,
    /// Its name in the table.
    pub(crate) label: &'static str,
    pub(crate) unit: Unit,
    pub(crate) kind: Kind,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Unit {
    Count,
    PerSecond,
    Seconds,
    Millis,
    Micros,
    Kib,
    Mib,
    Gib,
    Percent,
    Times,
}

/// The use of a figure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Shown with its ratio to the baseline; the median of several runs.
    Compared,
    /// Shown without a ratio; the median of several runs.
    Plain,
    /// Must be 0, or else the load fails; the worst of several runs.
    Violation,
}

const fn compared(key: &'static str, label: &'static str, unit: Unit) -> Figure {
    Figure { key, label, unit, kind: Kind::Compared }
}

const fn plain(key: &'static str, label: &'static str, unit: Unit) -> Figure {
    Figure { key, label, unit, kind: Kind::Plain }
}

const fn violation(key: &'static str, label: &'static str) -> Figure {
    Figure { key, label, unit: Unit::Count, kind: Kind::Violation }
}

pub(crate) static CONNECTIONS: Figure = plain("connections", "connections", Unit::Count);
pub(crate) static FAILED: Figure = violation("failed", "connections that failed");
pub(crate) static ENDED: Figure = violation("ended", "connections ended by the server");
pub(crate) static CONNECT_S: Figure = compared("connect_s", "until all are connected", Unit::Seconds);
pub(crate) static CONNECT_P50: Figure = compared("connect_p50_ms", "connect p50", Unit::Millis);
pub(crate) static CONNECT_P99: Figure = compared("connect_p99_ms", "connect p99", Unit::Millis);
pub(crate) static CONNECT_MAX: Figure = plain("connect_max_ms", "connect max", Unit::Millis);
pub(crate) static CONNECT_CPU: Figure = compared("connect_cpu_us", "server CPU per connect", Unit::Micros);
pub(crate) static RECONNECT_S: Figure =
    compared("reconnect_s", "until all are connected again", Unit::Seconds);
pub(crate) static RECONNECT_P50: Figure = compared("reconnect_p50_ms", "reconnect p50", Unit::Millis);
pub(crate) static RECONNECT_P99: Figure = compared("reconnect_p99_ms", "reconnect p99", Unit::Millis);
pub(crate) static RECONNECT_MAX: Figure = plain("reconnect_max_ms", "reconnect max", Unit::Millis);
pub(crate) static RECONNECT_CPU: Figure =
    compared("reconnect_cpu_us", "server CPU per drop and reconnect", Unit::Micros);
pub(crate) static MEMORY: Figure = compared("connection_kib", "memory per connection", Unit::Kib);
pub(crate) static MEMORY_AFTER: Figure =
    compared("connection_after_kib", "memory per connection afterwards", Unit::Kib);
pub(crate) static MEMORY_ALL: Figure = plain("server_mib", "memory of the server (PSS)", Unit::Mib);
pub(crate) static LINE_SLOPE: Figure =
    compared("line_slope_kib", "memory per connection, slope of the line", Unit::Kib);
pub(crate) static LINE_INTERCEPT: Figure =
    plain("line_intercept_mib", "memory without connections, its intercept", Unit::Mib);
pub(crate) static LINE_RESIDUAL: Figure =
    plain("line_residual_percent", "the farthest point from it", Unit::Percent);
pub(crate) static MILLION_MEMORY: Figure =
    compared("million_gib", "memory of 1,000,000 connections, extrapolated", Unit::Gib);
pub(crate) static KERNEL_SLOPE: Figure =
    compared("kernel_slope_kib", "the kernel's Slab per connection, both ends", Unit::Kib);
pub(crate) static MILLION_KERNEL: Figure =
    compared("million_kernel_gib", "the same of 1,000,000, extrapolated", Unit::Gib);
pub(crate) static MEMORY_BURST: Figure =
    compared("connection_burst_kib", "memory per connection after the burst", Unit::Kib);
pub(crate) static BUFFERS_BURST: Figure =
    plain("buffers_burst_kib", "the kernel's socket buffers per connection after it", Unit::Kib);
pub(crate) static IDLE_CPU: Figure = plain("idle_cpu_percent", "server CPU while idle", Unit::Percent);
pub(crate) static PUBLISHED: Figure = plain("published", "messages published", Unit::Count);
pub(crate) static PUBLISH_RATE: Figure = compared("publish_per_s", "publishes", Unit::PerSecond);
pub(crate) static ANSWER_P50: Figure = compared("answer_p50_ms", "publish answered p50", Unit::Millis);
pub(crate) static ANSWER_P99: Figure = compared("answer_p99_ms", "publish answered p99", Unit::Millis);
pub(crate) static PUBLISH_CPU: Figure = compared("publish_cpu_us", "server CPU per publish", Unit::Micros);
pub(crate) static EXPECTED: Figure = plain("expected", "deliveries expected", Unit::Count);
pub(crate) static DELIVERED: Figure = plain("delivered", "delivered", Unit::Count);
pub(crate) static LOST: Figure = violation("lost", "lost");
pub(crate) static DOUBLED: Figure = violation("doubled", "doubled");
pub(crate) static LATE: Figure = violation("out_of_order", "out of order");
pub(crate) static MISROUTED: Figure = violation("misrouted", "misrouted");
pub(crate) static GAPS: Figure = violation("gaps", "gaps announced");
pub(crate) static TIMED_OUT: Figure = violation("timed_out", "loads cut at the time limit");
pub(crate) static DELIVERY_RATE: Figure = compared("delivery_per_s", "deliveries", Unit::PerSecond);
pub(crate) static LATENCY_P50: Figure = compared("latency_p50_ms", "latency p50", Unit::Millis);
pub(crate) static LATENCY_P90: Figure = compared("latency_p90_ms", "latency p90", Unit::Millis);
pub(crate) static LATENCY_P99: Figure = compared("latency_p99_ms", "latency p99", Unit::Millis);
pub(crate) static LATENCY_P999: Figure = compared("latency_p99_9_ms", "latency p99.9", Unit::Millis);
pub(crate) static LATENCY_MAX: Figure = plain("latency_max_ms", "latency max", Unit::Millis);
pub(crate) static DELIVERY_CPU: Figure = compared("delivery_cpu_us", "server CPU per delivery", Unit::Micros);
pub(crate) static FEW_CONNECTIONS: Figure = plain("few_connections", "the few connections", Unit::Count);
pub(crate) static FEW_DELIVERY_CPU: Figure =
    compared("few_delivery_cpu_us", "server CPU per delivery, few connections", Unit::Micros);
pub(crate) static SCALE: Figure =
    compared("scale", "many connections' CPU per delivery to the few's", Unit::Times);
pub(crate) static WINDOW_S: Figure = compared("window_s", "until the window is read", Unit::Seconds);
pub(crate) static SERVER_CPU: Figure = plain("server_cpu_percent", "server CPU", Unit::Percent);

/// Returns the figure of the memory per connection at a number of connections, which lives as long as the process.
pub(crate) fn memory_at(connections: usize) -> &'static Figure {
    static FIGURES: Mutex<Vec<(usize, &Figure)>> = Mutex::new(Vec::new());
    let mut figures = lock(&FIGURES);
    if let Some((_, figure)) = figures.iter().find(|(other, _)| *other == connections) {
        return figure;
    }
    let label = format!("memory per connection, {} connections", group(connections as f64));
    let key = format!("connection_kib_at_{connections}");
    let figure: &Figure = Box::leak(Box::new(compared(key.leak(), label.leak(), Unit::Kib)));
    figures.push((connections, figure));
    figure
}

/// The figures of one run, or of several.
#[derive(Debug, Clone, Default)]
pub(crate) struct Measurement(Vec<(&'static Figure, f64)>);

impl Measurement {
    /// Enters a figure.
    pub(crate) fn set(&mut self, figure: &'static Figure, value: f64) {
        if value.is_finite() {
            self.0.push((figure, value));
        }
    }

    pub(crate) fn value(&self, figure: &Figure) -> Option<f64> {
        self.0.iter().find(|(other, _)| *other == figure).map(|(_, value)| *value)
    }

    /// Iterates over all figures, in the order in which they were entered.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&'static Figure, f64)> {
        self.0.iter().copied()
    }

    /// Returns the median of each figure over several runs, and the worst of each violation.
    pub(crate) fn median(runs: &[Self]) -> Self {
        let mut median = Self::default();
        for (figure, _) in runs.iter().flat_map(Self::iter) {
            if median.value(figure).is_some() {
                continue;
            }
            let mut values: Vec<f64> = runs.iter().filter_map(|run| run.value(figure)).collect();
            values.sort_by(f64::total_cmp);
            let (middle, last) = (values.len() / 2, values.len() - 1);
            median.set(
                figure,
                match figure.kind {
                    Kind::Violation => values[last],
                    _ if values.len().is_multiple_of(2) => f64::midpoint(values[middle - 1], values[middle]),
                    _ => values[middle],
                },
            );
        }
        median
    }

    /// Adds the violations of another load that was part of this one.
    pub(crate) fn add_violations(&mut self, other: &Self) {
        for (figure, value) in other.iter().filter(|(figure, _)| figure.kind == Kind::Violation) {
            match self.0.iter_mut().find(|(mine, _)| *mine == figure) {
                Some((_, mine)) => *mine += value,
                None => self.0.push((figure, value)),
            }
        }
    }

    /// Returns the violations as text.
    pub(crate) fn violations(&self) -> Vec<String> {
        let violations = self.iter().filter(|(figure, value)| figure.kind == Kind::Violation && *value > 0.0);
        violations.map(|(figure, value)| format!("{}: {value}", figure.label)).collect()
    }
}

impl Unit {
    /// Formats a value with its unit.
    pub(crate) fn show(self, value: f64) -> String {
        match self {
            Self::Count => group(value),
            Self::PerSecond if value < 100.0 => format!("{value:.1}/s"),
            Self::PerSecond => format!("{}/s", group(value)),
            Self::Seconds => format!("{value:.3} s"),
            Self::Millis => format!("{value:.3} ms"),
            Self::Micros => format!("{value:.3} us"),
            Self::Kib => format!("{value:.2} KiB"),
            Self::Mib => format!("{value:.1} MiB"),
            Self::Gib => format!("{value:.2} GiB"),
            Self::Percent => format!("{value:.1} %"),
            Self::Times => format!("{value:.2} times"),
        }
    }
}

/// Formats a whole number in groups of three digits.
fn group(value: f64) -> String {
    let digits = format!("{value:.0}");
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn several_runs_give_the_median_and_the_worst_violation() {
        let run = |latency: f64, lost: f64| {
            let mut run = Measurement::default();
            run.set(&LATENCY_P50, latency);
            run.set(&LOST, lost);
            run
        };
        let runs = [run(3.0, 0.0), run(1.0, 7.0), run(2.0, 0.0)];
        let median = Measurement::median(&runs);
        assert_eq!((median.value(&LATENCY_P50), median.value(&LOST)), (Some(2.0), Some(7.0)));
        assert_eq!(Measurement::median(&runs[..2]).value(&LATENCY_P50), Some(2.0));
        assert_eq!(median.violations(), ["lost: 7"]);
        assert_eq!(median.value(&DELIVERED), None);
    }

    #[test]
    fn the_violations_of_a_part_are_added() {
        let (mut whole, mut part) = (Measurement::default(), Measurement::default());
        whole.set(&LOST, 1.0);
        for (figure, value) in [(&LOST, 2.0), (&DOUBLED, 3.0), (&LATENCY_P50, 4.0)] {
            part.set(figure, value);
        }
        whole.add_violations(&part);
        assert_eq!(whole.violations(), ["lost: 3", "doubled: 3"]);
        assert_eq!(whole.value(&LATENCY_P50), None);
    }

    #[test]
    fn a_number_of_connections_has_one_figure() {
        assert_eq!(memory_at(2_000).label, "memory per connection, 2,000 connections");
        assert!(std::ptr::eq(memory_at(2_000), memory_at(2_000)));
        assert_ne!(memory_at(2_000), memory_at(6_000));
    }

    #[test]
    fn large_numbers_are_grouped() {
        let shown = [7.0, 1_234.0, 123_456.0, 1_234_567.0].map(|value| Unit::Count.show(value));
        assert_eq!(shown, ["7", "1,234", "123,456", "1,234,567"]);
    }
}
