//! Panics on demand, for tests: a file contains names of tasks, each with its total number of panics.
//!
//! A line is a name and a number, such as `desk 3`. Every task reads the file every 20 ms and panics at one
//! of its awaits until it has panicked this number of times.

use std::future::pending;
use std::path::PathBuf;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::time::sleep;

/// The interval in which the file is read.
const READ_EVERY: Duration = Duration::from_millis(20);

static FILE: OnceLock<PathBuf> = OnceLock::new();

/// Sets the file, once per process; it need not exist.
pub fn set_panic_file(path: PathBuf) {
    let _ = FILE.set(path);
}

/// Panics if the file requests one more panic under this name. For code that runs in a task of a library;
/// `panics` is the number of panics so far.
///
/// # Panics
///
/// If the file requests it.
pub fn panic_if_requested(name: &str, panics: &AtomicU64) {
    if panics.load(Ordering::Relaxed) < requested_panics(name) {
        panics.fetch_add(1, Ordering::Relaxed);
        panic!("injected into {name}");
    }
}

/// As [`panic_if_requested`], now or later; never returns.
pub(crate) async fn panic_on_demand<T>(name: &str, panics: &AtomicU64) -> T {
    if FILE.get().is_none() {
        return pending().await;
    }
    loop {
        panic_if_requested(name, panics);
        sleep(READ_EVERY).await;
    }
}

fn requested_panics(name: &str) -> u64 {
    let text = FILE.get().and_then(|path| std::fs::read_to_string(path).ok()).unwrap_or_default();
    let number = |line: &str| line.strip_prefix(name)?.strip_prefix(' ')?.parse().ok();
    text.lines().find_map(number).unwrap_or(0)
}
