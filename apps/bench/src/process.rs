//! [`Processes`]: CPU time and memory of a server's processes on Linux.

use std::{fs, path::PathBuf, time::Duration};

use anyhow::{Context, ensure};

/// The processes of a server: those that were named, and their descendants.
#[derive(Debug, Clone)]
pub(crate) struct Processes(Vec<u32>);

impl Processes {
    /// The processes with these ids.
    ///
    /// # Errors
    /// When one of them is not there.
    pub(crate) fn new(pids: &[u32]) -> anyhow::Result<Self> {
        for pid in pids {
            ensure!(PathBuf::from(format!("/proc/{pid}")).exists(), "--pid {pid}: there is no such process");
        }
        Ok(Self(pids.to_vec()))
    }

    /// Returns whether they are known.
    pub(crate) fn known(&self) -> bool {
        !self.0.is_empty()
    }

    /// CPU time of all their threads so far, user's and kernel's. A thread that has ended takes its time with it.
    pub(crate) fn cpu(&self) -> anyhow::Result<Duration> {
        let mut sum = 0;
        for task in self.all().into_iter().flat_map(tasks) {
            // A thread may end between the listing and the reading.
            let Ok(text) = fs::read_to_string(task.join("schedstat")) else { continue };
            let nanos = text.split_whitespace().next().and_then(|nanos| nanos.parse::<u64>().ok());
            sum += nanos.with_context(|| format!("{}/schedstat: {text:?}", task.display()))?;
        }
        Ok(Duration::from_nanos(sum))
    }

    /// Proportional set size in KiB: their memory, what is shared counted by share. Sockets' buffers are the kernel's and
    /// not in it.
    pub(crate) fn memory(&self) -> anyhow::Result<u64> {
        self.sum_of("Pss:")
    }

    /// Resident set size in KiB: the same, what is shared counted whole.
    pub(crate) fn resident(&self) -> anyhow::Result<u64> {
        self.sum_of("Rss:")
    }

    fn sum_of(&self, name: &str) -> anyhow::Result<u64> {
        let mut sum = 0;
        for pid in self.all() {
            let file = format!("/proc/{pid}/smaps_rollup");
            let text = fs::read_to_string(&file).with_context(|| file.clone())?;
            let value = text.lines().find_map(|line| line.strip_prefix(name));
            let kib = value.and_then(|rest| rest.split_whitespace().next()?.parse::<u64>().ok());
            sum += kib.with_context(|| format!("{file}: no {name}"))?;
        }
        Ok(sum)
    }

    fn all(&self) -> Vec<u32> {
        let mut all = self.0.clone();
        let mut at = 0;
        while let Some(&pid) = all.get(at) {
            for task in tasks(pid) {
                let children = fs::read_to_string(task.join("children")).unwrap_or_default();
                let children: Vec<u32> =
                    children.split_whitespace().filter_map(|pid| pid.parse().ok()).collect();
                all.extend(children.into_iter().filter(|child| !self.0.contains(child)));
            }
            at += 1;
        }
        all
    }
}

fn tasks(pid: u32) -> Vec<PathBuf> {
    let tasks = fs::read_dir(format!("/proc/{pid}/task"));
    tasks.into_iter().flatten().flatten().map(|task| task.path()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_has_used_cpu_and_memory() {
        let processes = Processes::new(&[std::process::id()]).unwrap();
        let before = processes.cpu().unwrap();
        let mut sum = 0_u64;
        while processes.cpu().unwrap() == before {
            sum = std::hint::black_box(sum + 1);
        }
        assert!(processes.memory().unwrap() > 100);
        assert!(processes.resident().unwrap() > 100);
        assert!(Processes::new(&[u32::MAX]).unwrap_err().to_string().contains("--pid 4294967295"));
    }
}
