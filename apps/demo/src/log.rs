//! The log on stderr. Writing to it neither panics nor blocks.
//!
//! `eprintln!` panics when stderr is not read any more (`realtime-demo 2>&1 | head`), and a pipe that is full blocks
//! the writer: in a server that is the end, or the halt, of the task that happened to log. So lines go through a
//! bounded queue to a thread of their own, which drops what cannot be written.

use std::{
    any::Any,
    backtrace::{Backtrace, BacktraceStatus},
    fmt,
    io::{self, IsTerminal, Write},
    panic::{self, PanicHookInfo},
    sync::{
        OnceLock,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
        mpsc::{Receiver, SyncSender, TrySendError, sync_channel},
    },
    thread,
    time::{Duration, SystemTime},
};

use anyhow::Context;
use tracing::Level;
use tracing_subscriber::{EnvFilter, filter::ParseError};

use crate::config::LogFormat;

/// Lines that wait to be written, and their bytes; more are dropped and counted.
const QUEUE: usize = 4096;
const QUEUE_BYTES: usize = 8 << 20;

/// Bytes of a text of strangers in a line.
const MAX_TEXT: usize = 256;

/// Time that an ending process waits for its last lines to be written.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(1);

/// Targets with a line at `error` for each request that is malformed or too long, and for each client that leaves amid its
/// response: anybody can make any number of them.
const OF_STRANGERS: [&str; 3] =
    ["actix_http::h1::decoder", "actix_http::h1::dispatcher", "actix_http::h2::dispatcher"];

static WRITER: OnceLock<Writer> = OnceLock::new();

/// Lines are JSON.
static IS_JSON: AtomicBool = AtomicBool::new(false);

/// Puts another filter in the place of the one of [`init`].
static SET_FILTER: OnceLock<SetFilter> = OnceLock::new();

type SetFilter = Box<dyn Fn(EnvFilter) -> anyhow::Result<()> + Send + Sync>;

struct Writer {
    queue: SyncSender<Item>,
    /// Bytes of the lines in it.
    waiting: AtomicUsize,
    dropped: AtomicU64,
}

enum Item {
    Line(Vec<u8>),
    /// Answered once everything before it has been written.
    Flush(SyncSender<()>),
}

/// Sends events of `tracing`, and panics as errors among them, to stderr. `RUST_LOG` is stronger than `level`.
///
/// # Errors
/// When the level is no filter, or a subscriber is set already.
pub fn init(level: &str, format: LogFormat) -> anyhow::Result<()> {
    let filter = filter(level)?;
    let log = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(|| Stderr)
        .with_ansi(format == LogFormat::Text && io::stderr().is_terminal())
        // They would be reported by `eprintln!`.
        .log_internal_errors(false);
    // Each format is a type of its own.
    macro_rules! start {
        ($log:expr) => {{
            let log = $log.with_filter_reloading();
            let handle = log.reload_handle();
            log.try_init().map_err(|error| anyhow::anyhow!("the log cannot be set up: {error}"))?;
            SET_FILTER.set(Box::new(move |filter| Ok(handle.reload(filter)?))).ok();
        }};
    }
    match format {
        LogFormat::Text => start!(log),
        LogFormat::Json => {
            IS_JSON.store(true, Ordering::Relaxed);
            start!(log.json());
        }
    }
    panic::set_hook(Box::new(log_panic));
    if let Some(filter) = rust_log() {
        line(format_args!("log: {filter} (environment variable RUST_LOG, which log.level gives way to)"));
    }
    Ok(())
}

/// Changes the level of [`init`]. Without a log, or with `RUST_LOG`, it does nothing.
///
/// # Errors
/// When `level` is no filter.
pub fn set_level(level: &str) -> anyhow::Result<()> {
    let filter = filter_of(level)?;
    match SET_FILTER.get() {
        Some(set) if rust_log().is_none() => set(filter),
        _ => Ok(()),
    }
}

/// The filter of the environment or, without one, of `level`.
///
/// # Errors
/// When it is no filter.
pub(crate) fn filter(level: &str) -> anyhow::Result<EnvFilter> {
    match rust_log() {
        Some(filter) => filter_of(&filter).context("environment variable RUST_LOG"),
        None => filter_of(level).context("log.level"),
    }
}

/// The filter of a level: [`OF_STRANGERS`] is off unless it names them.
fn filter_of(level: &str) -> Result<EnvFilter, ParseError> {
    let off = OF_STRANGERS.map(|target| format!("{target}=off,")).concat();
    EnvFilter::try_new(off + level)
}

/// The filter of the environment, if there is one.
fn rust_log() -> Option<String> {
    std::env::var("RUST_LOG").ok().filter(|filter| !filter.trim().is_empty())
}

/// The part of a text of strangers that is logged.
pub(crate) fn beginning(text: &str) -> &str {
    let end = (0..=text.len().min(MAX_TEXT)).rfind(|&end| text.is_char_boundary(end));
    &text[..end.unwrap_or_default()]
}

/// Writes a line to stderr at any log level.
pub fn line(text: impl fmt::Display) {
    line_at(Level::INFO, text);
}

/// The same for a line that is of this level where lines have one.
pub(crate) fn line_at(level: Level, text: impl fmt::Display) {
    send(format!("{}\n", formatted(level, text)).into_bytes());
}

/// A line of the program itself in the format of the log.
fn formatted(level: Level, text: impl fmt::Display) -> String {
    if !IS_JSON.load(Ordering::Relaxed) {
        return text.to_string();
    }
    let timestamp = humantime::format_rfc3339_micros(SystemTime::now()).to_string();
    let fields = serde_json::json!({ "message": text.to_string() });
    serde_json::json!({ "timestamp": timestamp, "level": level.as_str(), "fields": fields, "target": "realtime_demo" })
        .to_string()
}

/// Waits, for a bounded time, until what was logged so far has been written.
pub fn flush() {
    let (done, wait) = sync_channel(1);
    let writer = WRITER.get();
    if writer.is_some_and(|writer| writer.queue.try_send(Item::Flush(done)).is_ok()) {
        wait.recv_timeout(FLUSH_TIMEOUT).ok();
    }
}

/// Flushes the log when it is dropped: also while a panic unwinds.
#[derive(Debug)]
pub struct FlushOnDrop;

impl Drop for FlushOnDrop {
    fn drop(&mut self) {
        flush();
    }
}

/// The writer that `tracing` gets. It never fails and never blocks.
struct Stderr;

impl Write for Stderr {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        send(bytes.to_vec());
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn send(line: Vec<u8>) {
    let writer = WRITER.get_or_init(|| {
        let (queue, lines) = sync_channel(QUEUE);
        // Without the thread the queue is closed, and lines are written on the spot.
        thread::Builder::new().name("log".to_owned()).spawn(move || write_all(&lines)).ok();
        Writer { queue, waiting: AtomicUsize::new(0), dropped: AtomicU64::new(0) }
    });
    let bytes = line.len();
    if writer.waiting.fetch_add(bytes, Ordering::Relaxed) > QUEUE_BYTES {
        writer.waiting.fetch_sub(bytes, Ordering::Relaxed);
        writer.dropped.fetch_add(1, Ordering::Relaxed);
        return;
    }
    let Err(unsent) = writer.queue.try_send(Item::Line(line)) else { return };
    writer.waiting.fetch_sub(bytes, Ordering::Relaxed);
    match unsent {
        TrySendError::Full(_) => drop(writer.dropped.fetch_add(1, Ordering::Relaxed)),
        TrySendError::Disconnected(Item::Line(line)) => write(&line),
        TrySendError::Disconnected(Item::Flush(_)) => {}
    }
}

fn write_all(lines: &Receiver<Item>) {
    for item in lines {
        let writer = WRITER.get();
        match item {
            Item::Line(line) => {
                write(&line);
                if let Some(writer) = writer {
                    writer.waiting.fetch_sub(line.len(), Ordering::Relaxed);
                }
            }
            Item::Flush(done) => drop(done.try_send(())),
        }
        let dropped = writer.map_or(0, |writer| writer.dropped.swap(0, Ordering::Relaxed));
        if dropped > 0 {
            let text = format!("{dropped} lines of the log were dropped: stderr takes them too slowly");
            write(format!("{}\n", formatted(Level::WARN, text)).as_bytes());
        }
    }
}

/// Errors are ignored: stderr may be closed, and there is no other place to report them.
fn write(bytes: &[u8]) {
    io::stderr().write_all(bytes).ok();
}

fn log_panic(panic: &PanicHookInfo<'_>) {
    let thread = thread::current();
    let (thread, message) = (thread.name().unwrap_or("?"), text_of(panic.payload()).unwrap_or("?"));
    let location = panic.location().map(ToString::to_string).unwrap_or_default();
    let backtrace = Backtrace::capture();
    if backtrace.status() == BacktraceStatus::Captured {
        tracing::error!(thread, location, "panicked: {message}\n{backtrace}");
    } else {
        tracing::error!(thread, location, "panicked: {message}");
    }
}

/// Text of a panic: a literal is a `&str`, a formatted message a `String`.
fn text_of(payload: &dyn Any) -> Option<&str> {
    let literal = payload.downcast_ref::<&str>().copied();
    literal.or_else(|| payload.downcast_ref::<String>().map(String::as_str))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_is_logged_with_its_text_whether_literal_or_formatted() {
        let caught: [Box<dyn Any + Send>; 3] = [
            thread::spawn(|| panic!("literal")).join().unwrap_err(),
            thread::spawn(|| panic!("{}", "formatted")).join().unwrap_err(),
            thread::spawn(|| panic::panic_any(7)).join().unwrap_err(),
        ];
        let texts = caught.each_ref().map(|payload| text_of(payload.as_ref()));
        assert_eq!(texts, [Some("literal"), Some("formatted"), None]);
    }
}
