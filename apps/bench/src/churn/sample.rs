//! [`Sample`]: one reading of the server, and [`Samples`]: the line through all of them.

use std::{fmt, fs, sync::atomic::Ordering, time::Duration};

use anyhow::Context;

use crate::{churn::site::Site, line::Line, process::Processes};

/// One reading of the server, and what had happened by then.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Sample {
    /// Time since the begin.
    pub(super) at: Duration,
    /// Resident memory in KiB.
    pub(super) resident: u64,
    pub(super) descriptors: usize,
    pub(super) connections: u64,
    pub(super) refused: u64,
    pub(super) published: u64,
    pub(super) kicked: u64,
}

impl Sample {
    pub(super) fn now(processes: &Processes, pid: u32, site: &Site, at: Duration) -> anyhow::Result<Self> {
        let directory = format!("/proc/{pid}/fd");
        Ok(Self {
            at,
            resident: processes.resident()?,
            descriptors: fs::read_dir(&directory).context(directory)?.count(),
            connections: site.connections.load(Ordering::Relaxed),
            refused: site.refused.load(Ordering::Relaxed),
            published: site.published.load(Ordering::Relaxed),
            kicked: site.kicked.load(Ordering::Relaxed),
        })
    }
}

impl fmt::Display for Sample {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { at, resident, descriptors, connections, refused, published, kicked } = self;
        write!(
            f,
            "{:>6.1} min {resident:>8} KiB {descriptors:>5} descriptors {connections:>9} connections {refused:>6} refused \
             {published:>8} messages {kicked:>6} kicked",
            at.as_secs_f64() / 60.0
        )
    }
}

/// The readings of a run.
#[derive(Debug, Default)]
pub(crate) struct Samples(Vec<Sample>);

impl Samples {
    pub(super) fn push(&mut self, sample: Sample) {
        self.0.push(sample);
    }

    /// The growth of the resident memory in KiB per 10 minutes, by least squares, without the first third of the
    /// readings: until then windows and caches fill up.
    pub(super) fn slope(&self) -> Option<f64> {
        let points: Vec<_> = self.0[self.0.len() / 3..]
            .iter()
            .map(|sample| (sample.at.as_secs_f64() / 600.0, sample.resident as f64))
            .collect();
        Line::fit(&points).map(|line| line.slope)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_slope_is_that_of_the_later_readings() {
        let mut samples = Samples::default();
        assert_eq!(samples.slope(), None);
        for (minute, resident) in [100, 9000, 10_000, 10_010, 10_020, 10_030].into_iter().enumerate() {
            let at = Duration::from_secs(60 * minute as u64);
            samples.push(Sample {
                at,
                resident,
                descriptors: 0,
                connections: 0,
                refused: 0,
                published: 0,
                kicked: 0,
            });
        }
        assert!((samples.slope().unwrap() - 100.0).abs() < 1e-6, "{:?}", samples.slope());
    }
}
