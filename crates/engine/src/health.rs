//! The health of chores, for readiness and metrics.

use std::sync::atomic::{AtomicI64, Ordering};

use domain::Timestamp;

/// The health of a chore.
#[derive(Debug)]
pub struct Health {
    name: &'static str,
    last_success_micros: AtomicI64,
}

impl Health {
    pub(crate) fn new(name: &'static str, now: Timestamp) -> Self {
        Self { name, last_success_micros: AtomicI64::new(now.micros()) }
    }

    /// The name of the chore.
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// The time at which the chore last finished without a fault; its start if it never has.
    pub fn last_success(&self) -> Timestamp {
        let micros = self.last_success_micros.load(Ordering::Relaxed);
        Timestamp::from_micros(micros)
            .unwrap_or_else(|_| unreachable!("it was a timestamp when it was stored"))
    }
    pub(super) fn record_success(&self, now: Timestamp) {
        self.last_success_micros.store(now.micros(), Ordering::Relaxed);
    }
}
