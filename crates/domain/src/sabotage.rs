//! Takes guards away, so that tests can show that they notice. Compiled only behind the feature
//! `sabotage`, which no release build enables.

use std::sync::atomic::{AtomicU32, Ordering};

static REMOVED: AtomicU32 = AtomicU32::new(0);

/// A guard that can be taken away.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Guard {
    /// The rules look whether tickets are left before they give them out.
    Capacity,
    /// The database refuses counts that exceed a capacity.
    CapacityCheck,
    /// PostgreSQL locks an event's row before anything of it is read.
    RowLock,
    /// PostgreSQL counts the rows that a write has found.
    WriteGuards,
}

impl Guard {
    const ALL: [(Self, &'static str); 4] = [
        (Self::Capacity, "capacity"),
        (Self::CapacityCheck, "capacity-check"),
        (Self::RowLock, "row-lock"),
        (Self::WriteGuards, "write-guards"),
    ];

    fn bit(self) -> u32 {
        1 << self as u32
    }
}

/// Takes away the guards named, separated by commas, for this whole process.
pub fn remove(names: &str) {
    for (guard, name) in Guard::ALL {
        if names.split(',').any(|wanted| wanted == name) {
            REMOVED.fetch_or(guard.bit(), Ordering::Relaxed);
        }
    }
}

/// Whether a guard was taken away.
pub fn removed(guard: Guard) -> bool {
    REMOVED.load(Ordering::Relaxed) & guard.bit() != 0
}
