//! [`Processes`]: CPU time and memory of a server's processes on Linux.

use std::{
    fs,
    io::{self, ErrorKind},
    path::PathBuf,
    time::Duration,
};

use anyhow::{Context, ensure};
use rustix::io::Errno;

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
            let text = match rollup(&file) {
                // A descendant may end between the listing and the reading.
                Err(error) if !self.0.contains(&pid) && has_ended(&error) => continue,
                text => text.with_context(|| file.clone())?,
            };
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

/// The text of a `smaps_rollup` file. A process that executes another program, as a script that starts a server does, has
/// the former program's memory in the opened file and nothing to read there: it is opened anew.
fn rollup(file: &str) -> io::Result<String> {
    let mut attempts = 0;
    loop {
        match fs::read_to_string(file) {
            Err(error) if attempts < 10 && has_ended(&error) => attempts += 1,
            text => return text,
        }
    }
}

/// Returns whether an error of a file below `/proc/PID` says that there is no such process, before or after the opening.
fn has_ended(error: &io::Error) -> bool {
    error.kind() == ErrorKind::NotFound || error.raw_os_error() == Some(Errno::SRCH.raw_os_error())
}

fn tasks(pid: u32) -> Vec<PathBuf> {
    let tasks = fs::read_dir(format!("/proc/{pid}/task"));
    tasks.into_iter().flatten().flatten().map(|task| task.path()).collect()
}

#[cfg(test)]
mod tests {
    use std::{
        process::{Command, Stdio},
        time::Instant,
    };

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

    #[test]
    fn a_process_that_executes_another_program_is_still_measured() {
        let script = "[ $1 -gt 0 ] && exec sh -c \"$0\" \"$0\" $(($1 - 1)); read _";
        let mut shell = Command::new("sh")
            .args(["-c", script, script, "500"])
            .stdin(Stdio::piped())
            .spawn()
            .expect("a shell is there");
        let processes = Processes::new(&[shell.id()]).unwrap();
        let command = format!("/proc/{}/cmdline", shell.id());
        let until = Instant::now() + Duration::from_secs(30);
        while !fs::read(&command).unwrap().ends_with(b"\x000\0") {
            processes.memory().expect("it is there all the time");
            assert!(Instant::now() < until, "the last program is not reached");
        }
        drop(shell.stdin.take());
        shell.wait().unwrap();
        assert!(processes.memory().is_err(), "it has ended");
    }

    #[test]
    fn a_descendant_that_ends_is_left_out() {
        let mut shell = Command::new("sh")
            .args(["-c", "n=300; while [ $n -gt 0 ]; do (:); n=$((n - 1)); done; read _"])
            .stdin(Stdio::piped())
            .spawn()
            .expect("a shell is there");
        let processes = Processes::new(&[shell.id()]).unwrap();
        for _ in 0..2_000 {
            processes.memory().expect("the shell is there all the time");
        }
        drop(shell.stdin.take());
        shell.wait().unwrap();
    }
}
