//! The log: lines on standard error, which may be closed, broken, full, or a pipe without a reader. Lines
//! that cannot be written are dropped and counted. Logging never blocks on a write.
//!
//! Each line is copied into a bounded buffer, which a dedicated thread writes out. A logging thread holds the
//! lock of the buffer only while it copies.

use std::backtrace::{Backtrace, BacktraceStatus};
use std::fs::File;
use std::io::{self, ErrorKind, IsTerminal as _, Write};
use std::os::fd::AsFd as _;
use std::panic::{AssertUnwindSafe, PanicHookInfo, catch_unwind};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use crate::config::{LogFormat, colours_allowed};
use crate::limit::{LOG_BUFFER_BYTES_MAX, LOG_FLUSH_WAIT_MAX};

/// Pause before a retry if standard error would block, which happens if another process made it non-blocking.
const BUSY_PAUSE: Duration = Duration::from_millis(10);

static LOG: Log = Log {
    buffer: Mutex::new(Buffer { bytes: Vec::new(), is_writing: false, has_writer: false }),
    changed: Condvar::new(),
};
static LINES_LOST: AtomicU64 = AtomicU64::new(0);
static PANICS: AtomicU64 = AtomicU64::new(0);

struct Log {
    buffer: Mutex<Buffer>,
    /// Signals the writer thread that the buffer has lines, and [`flush`] that it is empty.
    changed: Condvar,
}

/// The lines not yet written, and the state of the writer thread.
struct Buffer {
    bytes: Vec<u8>,
    is_writing: bool,
    has_writer: bool,
}

/// Log lines since the start that could not be written.
pub(crate) fn lines_lost() -> u64 {
    LINES_LOST.load(Ordering::Relaxed)
}

/// Panics since the start, in any task or thread.
pub(crate) fn panics() -> u64 {
    PANICS.load(Ordering::Relaxed)
}

/// Sets up the log for events and panic messages. Lines have colours if standard error is a terminal and
/// colours are not disabled.
pub(crate) fn init(level: tracing::Level, format: LogFormat) {
    let colours = io::stderr().is_terminal() && colours_allowed();
    let log = tracing_subscriber::fmt()
        .with_max_level(level)
        .with_ansi(colours)
        .with_writer(|| EventWriter)
        // tracing-subscriber would print them to standard error, and panic if that fails.
        .log_internal_errors(false);
    match format {
        LogFormat::Text => log.init(),
        LogFormat::Json => log.json().init(),
    }
    std::panic::set_hook(Box::new(log_panic));
}

/// Writes one line that is not an event: the final message of a command.
pub(crate) fn write_line(text: &str) {
    push(format!("{text}\n").as_bytes());
}

/// Waits until the buffer has been written, at most [`LOG_FLUSH_WAIT_MAX`].
pub(crate) fn flush() {
    let is_busy = |pending: &mut Buffer| pending.is_writing || !pending.bytes.is_empty();
    let waited = LOG.changed.wait_timeout_while(lock_buffer(), LOG_FLUSH_WAIT_MAX, is_busy);
    drop(waited);
}

/// The panic hook. It logs an event, because the standard hook would block on standard error.
fn log_panic(info: &PanicHookInfo<'_>) {
    PANICS.fetch_add(1, Ordering::Relaxed);
    let (reason, backtrace) = (info.payload_as_str().unwrap_or("no message"), Backtrace::capture());
    let location = info.location().map(tracing::field::display);
    // On one line, and only if RUST_BACKTRACE is set.
    let backtrace = (backtrace.status() == BacktraceStatus::Captured).then(|| format!("{backtrace:?}"));
    tracing::error!(reason, location, backtrace, "panic");
}

/// The destination of one event, which is written in a single call.
struct EventWriter;

impl Write for EventWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        push(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn lock_buffer() -> MutexGuard<'static, Buffer> {
    LOG.buffer.lock().unwrap_or_else(PoisonError::into_inner)
}

fn push(bytes: &[u8]) {
    let mut pending = lock_buffer();
    if !pending.has_writer {
        pending.has_writer = thread::Builder::new().name("log".to_owned()).spawn(write_all).is_ok();
    }
    if !pending.has_writer || pending.bytes.len() + bytes.len() > LOG_BUFFER_BYTES_MAX {
        count_lost_lines(bytes);
        return;
    }
    pending.bytes.extend_from_slice(bytes);
    drop(pending);
    LOG.changed.notify_all();
}

fn count_lost_lines(bytes: &[u8]) {
    let lines = bytes.split(|byte| *byte == b'\n').count() - 1;
    LINES_LOST.fetch_add(lines as u64, Ordering::Relaxed);
}

/// The writer thread. It runs until the process exits.
fn write_all() {
    let (mut file, mut bytes) = (StderrWriter::default(), Vec::new());
    loop {
        let idle = |pending: &mut Buffer| pending.bytes.is_empty();
        let waited = LOG.changed.wait_while(lock_buffer(), idle);
        let mut next = waited.unwrap_or_else(PoisonError::into_inner);
        std::mem::swap(&mut next.bytes, &mut bytes);
        next.is_writing = true;
        drop(next);
        // No panic is known to occur here. If one does, the lines are lost, but the thread continues.
        if catch_unwind(AssertUnwindSafe(|| file.write(&bytes))).is_err() {
            count_lost_lines(&bytes);
        }
        bytes.clear();
        lock_buffer().is_writing = false;
        LOG.changed.notify_all();
    }
}

/// Standard error without the lock of [`io::stderr`], which a blocked write would hold.
#[derive(Default)]
struct StderrWriter {
    file: Option<File>,
    /// True if the last write ended in the middle of a line.
    is_torn: bool,
}

impl StderrWriter {
    /// Writes the lines, and counts those that are lost.
    fn write(&mut self, bytes: &[u8]) {
        if self.is_torn && self.try_write(b"\n").is_err() {
            return count_lost_lines(bytes);
        }
        self.is_torn = false;
        if let Err(written) = self.try_write(bytes) {
            let whole = bytes[..written].iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
            self.is_torn = whole < written;
            count_lost_lines(&bytes[whole..]);
        }
    }

    /// Fails with the number of bytes that were written.
    fn try_write(&mut self, bytes: &[u8]) -> Result<(), usize> {
        if self.file.is_none() {
            self.file = io::stderr().as_fd().try_clone_to_owned().ok().map(File::from);
        }
        let Some(file) = &mut self.file else { return Err(0) };
        let mut written = 0;
        while written < bytes.len() {
            match file.write(&bytes[written..]) {
                Ok(0) => return Err(written),
                Ok(count) => written += count,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => thread::park_timeout(BUSY_PAUSE),
                Err(_) => return Err(written),
            }
        }
        Ok(())
    }
}
