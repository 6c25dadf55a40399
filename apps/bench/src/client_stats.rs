//! [`ClientStats`]: the totals and latencies of a load's clients.

use anyhow::Context;
use hdrhistogram::Histogram;

use crate::{
    counts::Counts,
    figure::{self, Figure, Measurement},
    sequence_tracker::Arrival,
};

/// The totals and latencies of clients, complete at their end.
#[derive(Debug)]
pub(crate) struct ClientStats {
    pub(crate) counts: Counts,
    /// Messages that have not arrived.
    pub(crate) lost: u64,
    /// Time from a publish, or from when it was due, to the receipt, in nanoseconds.
    pub(crate) latency: Histogram<u64>,
    /// Time from the first SYN to the server's acceptance, in nanoseconds.
    pub(crate) opening: Histogram<u64>,
}

impl ClientStats {
    pub(crate) fn new() -> anyhow::Result<Self> {
        Ok(Self { counts: Counts::default(), lost: 0, latency: histogram()?, opening: histogram()? })
    }

    /// Records the arrival of a message whose publish was due at `due`, at the time `now`.
    pub(crate) fn record(&mut self, arrival: Arrival, due: u64, now: u64) {
        match arrival {
            Arrival::New => self.counts.delivered += 1,
            Arrival::Double => self.counts.doubled += 1,
            Arrival::Late => {
                self.counts.delivered += 1;
                self.counts.late += 1;
            }
        }
        self.counts.last = now;
        self.latency.saturating_record(now.saturating_sub(due));
    }

    /// Adds the stats of other clients.
    pub(crate) fn add(&mut self, other: &Self) -> anyhow::Result<()> {
        self.counts += other.counts;
        self.lost += other.lost;
        self.latency.add(&other.latency).context("latency")?;
        self.opening.add(&other.opening).context("opening")
    }

    /// Enters the counts of deliveries.
    pub(crate) fn enter(&self, figures: &mut Measurement) {
        let Self { counts, lost, .. } = self;
        for (figure, value) in [
            (&figure::DELIVERED, counts.delivered),
            (&figure::LOST, *lost),
            (&figure::DOUBLED, counts.doubled),
            (&figure::LATE, counts.late),
            (&figure::MISROUTED, counts.misrouted),
            (&figure::GAPS, counts.gaps),
            (&figure::ENDED, counts.ended),
        ] {
            figures.set(figure, value as f64);
        }
    }

    /// Enters the latency of deliveries.
    pub(crate) fn enter_latency(&self, figures: &mut Measurement) {
        let quantiles: [(&'static Figure, f64); 5] = [
            (&figure::LATENCY_P50, 0.5),
            (&figure::LATENCY_P90, 0.9),
            (&figure::LATENCY_P99, 0.99),
            (&figure::LATENCY_P999, 0.999),
            (&figure::LATENCY_MAX, 1.0),
        ];
        for (figure, quantile) in quantiles {
            figures.set(figure, millis(&self.latency, quantile));
        }
    }
}

/// Creates a histogram of nanoseconds from a microsecond to ten minutes, to three digits.
pub(crate) fn histogram() -> anyhow::Result<Histogram<u64>> {
    Histogram::new_with_bounds(1_000, 600_000_000_000, 3).context("histogram")
}

/// Returns a quantile in milliseconds; NaN for an empty histogram.
pub(crate) fn millis(histogram: &Histogram<u64>, quantile: f64) -> f64 {
    if histogram.is_empty() { f64::NAN } else { histogram.value_at_quantile(quantile) as f64 / 1e6 }
}
