//! Panics on demand, for tests: a file names tasks, and how often each is to panic in all.
//!
//! A line is a name and a number, `desk 3`. Every task reads the file a few times a second and panics wherever it is,
//! at one of its awaits, until it has panicked that often.

use std::future::pending;
use std::path::PathBuf;
use std::sync::OnceLock;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::time::sleep;

use crate::Task;

/// How often the file is read.
const READ_EVERY: Duration = Duration::from_millis(20);

static FILE: OnceLock<PathBuf> = OnceLock::new();

/// Names the file, once per process; it need not exist.
pub fn set_panic_file(path: PathBuf) {
    let _ = FILE.set(path);
}

/// Panics if the file wants one more panic under this name. For code that runs in a task of a library; `panics` are
/// those so far.
///
/// # Panics
///
/// On demand.
pub fn panic_if_wanted(name: &str, panics: &std::sync::atomic::AtomicU64) {
    if panics.load(Ordering::Relaxed) < wanted(name) {
        panics.fetch_add(1, Ordering::Relaxed);
        panic!("injected into {name}");
    }
}

pub(crate) async fn panic_on_demand<T>(task: &Task) -> T {
    if FILE.get().is_none() {
        return pending().await;
    }
    loop {
        panic_if_wanted(task.name(), &task.injected);
        sleep(READ_EVERY).await;
    }
}

fn wanted(name: &str) -> u64 {
    let text = FILE.get().and_then(|path| std::fs::read_to_string(path).ok()).unwrap_or_default();
    let number = |line: &str| line.strip_prefix(name)?.strip_prefix(' ')?.parse().ok();
    text.lines().find_map(number).unwrap_or(0)
}
