//! [`Signals`]: SIGINT and SIGTERM, received by a thread of their own.

use std::{process, sync::mpsc, thread};

use anyhow::Context;
use tokio::{
    runtime::Builder,
    signal::unix::{Signal, SignalKind, signal},
    sync::oneshot,
};

use crate::log;

/// The first signal of the process. A second one ends the process at once.
///
/// A thread of its own receives them, so that it does so whatever a task, or a thread of the runtime, is held up by.
pub(crate) struct Signals(oneshot::Receiver<()>);

impl Signals {
    /// Starts to receive signals.
    ///
    /// # Errors
    /// When they cannot be received.
    pub(crate) fn start() -> anyhow::Result<Self> {
        let (first, signals) = oneshot::channel();
        let (ready, is_ready) = mpsc::sync_channel(1);
        let receive = move || {
            let runtime = Builder::new_current_thread().enable_io().build();
            let runtime = match runtime {
                Ok(runtime) => runtime,
                Err(error) => return drop(ready.send(Err(error))),
            };
            runtime.block_on(async {
                let mut kinds = match Kinds::new() {
                    Ok(kinds) => kinds,
                    Err(error) => return drop(ready.send(Err(error))),
                };
                ready.send(Ok(())).ok();
                kinds.next().await;
                first.send(()).ok();
                let second = kinds.next().await;
                tracing::warn!("a second signal: the process ends before it has drained");
                log::flush();
                // The status that a shell reports for a process that was killed by the signal.
                process::exit(128 + second);
            });
        };
        let listen = || "failed to listen to SIGINT and SIGTERM";
        thread::Builder::new().name("signals".to_owned()).spawn(receive).with_context(listen)?;
        is_ready.recv().context("the thread has ended").and_then(|ready| Ok(ready?)).with_context(listen)?;
        Ok(Self(signals))
    }

    /// Waits for the first signal.
    ///
    /// # Errors
    /// When no signal can come any more.
    pub(crate) async fn first(self) -> anyhow::Result<()> {
        self.0.await.context("the thread that receives signals has ended")
    }
}

struct Kinds {
    interrupt: Signal,
    terminate: Signal,
}

impl Kinds {
    fn new() -> std::io::Result<Self> {
        Ok(Self { interrupt: signal(SignalKind::interrupt())?, terminate: signal(SignalKind::terminate())? })
    }

    /// The number of the next one.
    async fn next(&mut self) -> i32 {
        tokio::select! {
            _ = self.interrupt.recv() => SignalKind::interrupt().as_raw_value(),
            _ = self.terminate.recv() => SignalKind::terminate().as_raw_value(),
        }
    }
}
