//! [`Growth`]: the memory of a server and the kernel as the number of connections grows.

use crate::{
    figure::{self, Measurement},
    kernel::KernelMemory,
    line::Line,
    process::Processes,
};

/// The memory of a server and the kernel at several numbers of connections.
#[derive(Debug)]
pub(crate) struct Growth {
    before: Reading,
    /// The number of connections then.
    first: usize,
    points: Vec<(usize, Reading)>,
}

#[derive(Debug, Clone, Copy)]
struct Reading {
    /// The server's resident memory in KiB.
    resident: u64,
    kernel: KernelMemory,
}

/// The number of connections that a line is extrapolated to.
const MILLION: f64 = 1e6;

const KIB_PER_MIB: f64 = 1024.0;
const KIB_PER_GIB: f64 = 1024.0 * 1024.0;

impl Growth {
    /// Reads the memory with the `first` connections.
    pub(crate) fn start(server: &Processes, first: usize) -> anyhow::Result<Self> {
        Ok(Self { before: Reading::now(server)?, first, points: Vec::new() })
    }

    /// Returns the number of connections that are not counted.
    pub(crate) fn first(&self) -> usize {
        self.first
    }

    /// Reads the memory with a number of connections.
    pub(crate) fn enter(&mut self, connections: usize, server: &Processes) -> anyhow::Result<()> {
        self.points.push((connections, Reading::now(server)?));
        Ok(())
    }

    /// Enters each point and the line through them.
    pub(crate) fn report(&self, figures: &mut Measurement) {
        for (connections, reading) in &self.points {
            let kib = reading.resident.saturating_sub(self.before.resident) as f64;
            figures.set(figure::memory_at(*connections), kib / connections.saturating_sub(self.first) as f64);
        }
        let line = |value: fn(&Reading) -> u64| {
            let points = self.points.iter().map(|(count, reading)| (*count as f64, value(reading) as f64));
            Line::fit(&points.collect::<Vec<_>>())
        };
        if let Some(line) = line(|reading| reading.resident) {
            figures.set(&figure::LINE_SLOPE, line.slope);
            figures.set(&figure::LINE_INTERCEPT, line.intercept / KIB_PER_MIB);
            figures.set(&figure::LINE_RESIDUAL, line.worst_residual * 100.0);
            figures.set(&figure::MILLION_MEMORY, line.at(MILLION) / KIB_PER_GIB);
        }
        if let Some(line) = line(|reading| reading.kernel.slab) {
            figures.set(&figure::KERNEL_SLOPE, line.slope);
            figures.set(&figure::MILLION_KERNEL, line.slope * MILLION / KIB_PER_GIB);
        }
    }

    /// Enters the current memory, after a burst to all connections of the last point.
    pub(crate) fn report_burst(&self, server: &Processes, figures: &mut Measurement) -> anyhow::Result<()> {
        let Some((connections, _)) = self.points.last() else { return Ok(()) };
        let (now, connections) = (Reading::now(server)?, connections.saturating_sub(self.first) as f64);
        let more = |now: u64, before: u64| now.saturating_sub(before) as f64 / connections;
        figures.set(&figure::MEMORY_BURST, more(now.resident, self.before.resident));
        figures.set(&figure::BUFFERS_BURST, more(now.kernel.buffers, self.before.kernel.buffers));
        Ok(())
    }
}

impl Reading {
    fn now(server: &Processes) -> anyhow::Result<Self> {
        Ok(Self { resident: server.resident()?, kernel: KernelMemory::now()? })
    }
}
