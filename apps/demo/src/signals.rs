//! [`Signals`]: SIGINT, SIGTERM and SIGHUP, received by a thread of their own.

use std::{
    future::pending,
    process,
    sync::{Arc, mpsc},
    thread,
};

use anyhow::Context;
use tokio::{
    runtime::Builder,
    signal::unix::{Signal, SignalKind, signal},
    sync::{Notify, oneshot},
};

use crate::log;

/// The first SIGINT or SIGTERM of the process, of which a second one ends the process at once; and any number of SIGHUP.
///
/// A thread of its own receives them, so that it does so whatever a task, or a thread of the runtime, is held up by.
pub(crate) struct Signals {
    first: oneshot::Receiver<()>,
    hang_ups: Arc<Notify>,
}

/// Meaning of SIGHUP.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum HangUps {
    /// [`Signals::hang_ups`] is notified.
    Received,
    /// It ends the process at once, as at the end of its terminal.
    Final,
}

impl Signals {
    /// Starts to receive signals.
    ///
    /// # Errors
    /// When they cannot be received.
    pub(crate) fn start(hang_ups: HangUps) -> anyhow::Result<Self> {
        let (first, is_first) = oneshot::channel();
        let notify = Arc::new(Notify::new());
        let hung_up = (hang_ups == HangUps::Received).then(|| Arc::clone(&notify));
        let (ready, is_ready) = mpsc::sync_channel(1);
        let receive = move || {
            let runtime = Builder::new_current_thread().enable_io().build();
            let runtime = match runtime {
                Ok(runtime) => runtime,
                Err(error) => return drop(ready.send(Err(error))),
            };
            runtime.block_on(async {
                let mut kinds = match Kinds::new(hung_up) {
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
        Ok(Self { first: is_first, hang_ups: notify })
    }

    /// Notified at each SIGHUP.
    pub(crate) fn hang_ups(&self) -> Arc<Notify> {
        Arc::clone(&self.hang_ups)
    }

    /// Waits for the first signal.
    ///
    /// # Errors
    /// When no signal can come any more.
    pub(crate) async fn first(self) -> anyhow::Result<()> {
        self.first.await.context("the thread that receives signals has ended")
    }
}

struct Kinds {
    interrupt: Signal,
    terminate: Signal,
    hang_up: Option<(Signal, Arc<Notify>)>,
}

impl Kinds {
    fn new(hung_up: Option<Arc<Notify>>) -> std::io::Result<Self> {
        let hang_up = match hung_up {
            Some(notify) => Some((signal(SignalKind::hangup())?, notify)),
            None => None,
        };
        Ok(Self {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
            hang_up,
        })
    }

    /// The number of the next one that ends the process.
    async fn next(&mut self) -> i32 {
        loop {
            tokio::select! {
                _ = self.interrupt.recv() => return SignalKind::interrupt().as_raw_value(),
                _ = self.terminate.recv() => return SignalKind::terminate().as_raw_value(),
                () = hung_up(&mut self.hang_up) => {}
            }
        }
    }
}

/// Waits for a SIGHUP and passes it on.
async fn hung_up(hang_up: &mut Option<(Signal, Arc<Notify>)>) {
    match hang_up {
        Some((signal, notify)) => {
            signal.recv().await;
            notify.notify_one();
        }
        None => pending().await,
    }
}
