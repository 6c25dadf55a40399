//! [`Shards`]: the shards of the runtime's threads.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, PoisonError},
};

use realtime_core::{Hub, wire::Shard};
use tokio::runtime::Handle;

/// The shards of the newest threads that have served a request, kept between connections: as many as the runtime has workers.
///
/// A worker is no fixed thread: where a request blocks in place, another thread goes on with the worker's tasks. A shard that
/// is not kept any more ends with its last session.
#[derive(Debug, Default)]
pub(crate) struct Shards(Mutex<VecDeque<Arc<Shard>>>);

impl Shards {
    /// Keeps the shard of the calling thread.
    pub(crate) fn keep(&self, hub: &Hub) {
        let shard = hub.shard();
        let mut shards = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if shards.iter().any(|kept| Arc::ptr_eq(kept, &shard)) {
            return;
        }
        shards.push_back(shard);
        if shards.len() > Handle::current().metrics().num_workers() {
            shards.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{thread::sleep, time::Duration};

    use tokio::{
        runtime::Builder,
        task::{block_in_place, spawn},
    };

    use super::*;

    #[test]
    fn a_runtime_whose_requests_block_in_place_has_no_more_shards_than_workers() {
        let runtime = Builder::new_multi_thread()
            .worker_threads(2)
            .thread_keep_alive(Duration::from_millis(1))
            .enable_all()
            .build()
            .unwrap();
        runtime.block_on(async {
            let hub = Hub::builder().start().unwrap();
            let shards = Arc::new(Shards::default());
            for _ in 0..20 {
                let (hub, shards) = (hub.clone(), Arc::clone(&shards));
                let request = spawn(async move {
                    shards.keep(&hub);
                    // The thread is no worker any more, and ends.
                    block_in_place(|| sleep(Duration::from_millis(5)));
                });
                request.await.unwrap();
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            let kept = shards.0.lock().unwrap().len();
            assert!(kept <= 2, "{kept} shards are kept");
        });
    }
}
