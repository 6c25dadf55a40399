//! [`descriptors`]: number of connections of a server that this process holds.

use std::{collections::HashSet, fs, time::Duration};

use tokio::time::sleep;

use crate::{Server, within};

/// The number of descriptors that this process has of the connections of a server within it.
pub fn descriptors(server: &(impl Server + ?Sized)) -> usize {
    let port = format!(":{:04X}", server.port());
    let table = fs::read_to_string("/proc/net/tcp").unwrap();
    let connections = table.lines().filter_map(|line| {
        let [_, local, peer, _, _, _, _, _, _, inode, ..] = *line.split_whitespace().collect::<Vec<_>>()
        else {
            return None;
        };
        (local.ends_with(&port) && !peer.ends_with(":0000")).then(|| format!("socket:[{inode}]"))
    });
    let connections: HashSet<String> = connections.collect();
    let open =
        fs::read_dir("/proc/self/fd").unwrap().filter_map(|entry| fs::read_link(entry.ok()?.path()).ok());
    open.filter(|link| connections.contains(&*link.to_string_lossy())).count()
}

/// Waits until a condition holds.
pub async fn until(what: &str, condition: impl Fn() -> bool) {
    within(what, async {
        while !condition() {
            sleep(Duration::from_millis(1)).await;
        }
    })
    .await;
}
