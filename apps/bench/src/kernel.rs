//! [`KernelMemory`]: what the kernel of this machine takes, for all processes together.

use std::fs;

use anyhow::Context;

/// What the kernel takes, in KiB. It has no figure for a single process: a connection on this machine counts with both of
/// its ends, and whatever else the machine does counts too.
#[derive(Debug, Clone, Copy)]
pub(crate) struct KernelMemory {
    /// `Slab` of `/proc/meminfo`: sockets, files and their inodes, entries of epolls.
    pub(crate) slab: u64,
    /// `mem` of TCP in `/proc/net/sockstat`: what is in the buffers of sockets.
    pub(crate) buffers: u64,
}

impl KernelMemory {
    /// What it takes now.
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
