//! [`KernelMemory`]: the memory of this machine's kernel, for all processes together.

use std::fs;

use anyhow::Context;

/// The kernel's memory in KiB. There is no figure for a single process: both ends of a connection on this machine count, and
/// so does everything else that the machine does.
#[derive(Debug, Clone, Copy)]
pub(crate) struct KernelMemory {
    /// `Slab` of `/proc/meminfo`: sockets, files and their inodes, entries of epolls.
    pub(crate) slab: u64,
    /// `mem` of TCP in `/proc/net/sockstat`: the buffers of sockets.
    pub(crate) buffers: u64,
}

impl KernelMemory {
    /// Reads the current values.
    pub(crate) fn now() -> anyhow::Result<Self> {
        let slab = field("/proc/meminfo", |line| line.strip_prefix("Slab:")?.split_whitespace().next())?;
        let pages = field("/proc/net/sockstat", |line| {
            line.strip_prefix("TCP:")?.split_once(" mem ").map(|(_, mem)| mem)
        })?;
        Ok(Self { slab, buffers: pages * (rustix::param::page_size() as u64 / 1024) })
    }
}

/// The number in the first line of a file that has one.
fn field(file: &str, find: impl Fn(&str) -> Option<&str>) -> anyhow::Result<u64> {
    let text = fs::read_to_string(file).with_context(|| file.to_owned())?;
    let number = text.lines().find_map(find).and_then(|number| number.trim().parse().ok());
    number.with_context(|| format!("{file}: no such line in {text:?}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_kernel_takes_something() {
        assert!(KernelMemory::now().unwrap().slab > 0);
    }
}
