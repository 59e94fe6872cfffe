//! Removes guards at run time, so that tests can prove that they detect a missing guard (mutation testing).
//!
//! Where a guard is applied, [`guard!`](crate::guard) names it. Without the feature `sabotage`, which no
//! release build enables, no guard can be removed, and the name compiles to nothing. With the feature, tests
//! remove guards for a whole process (a server under test) or for their own thread (a simulation). If a guard
//! is not a condition that can be ignored, but the absence of some code, its removal inserts that code around
//! the rules (`bugs.rs`).

#[cfg(feature = "sabotage")]
pub(crate) mod bugs;

macro_rules! guards {
    ($($(#[$doc:meta])* $guard:ident = $name:literal,)*) => {
        /// A guard that tests can remove.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
        pub enum Guard { $($(#[$doc])* $guard,)* }

        impl Guard {
            /// All guards.
            pub const ALL: &'static [Self] = &[$(Self::$guard,)*];

            /// The guard's name in tests and in `docs/reliability.md`.
            pub fn name(self) -> &'static str {
                match self { $(Self::$guard => $name,)* }
            }
        }
    };
}

guards! {
    /// The rules check that enough tickets are available before they reserve them.
    Capacity = "capacity",
    /// The database refuses counts that exceed a capacity.
    CapacityCheck = "capacity-check",
    /// Overdue holds are freed before an order is refused for lack of tickets.
    OverdueFirst = "overdue-first",
    /// The rules count the tickets of a user.
    UserLimit = "user-limit",
    /// The database refuses a count of a user's tickets that exceeds the limit.
    UserLimitCheck = "user-limit-check",
    /// No booking is made before sales open, while sales are paused or closed, or once the event has started
    /// or was cancelled.
    SalesOpen = "sales-open",
    /// A payment with a wrong amount is refused.
    Amount = "amount",
    /// A payment with a recorded refund is never accepted again.
    RefundIsFinal = "refund-is-final",
    /// A repeated report of the payment that confirmed a booking changes nothing.
    IdempotentPayment = "idempotent-payment",
    /// A late payment reserves its tickets again if they are available.
    LatePaymentReacquires = "late-payment-reacquires",
    /// A late payment checks that its tickets are still available.
    LatePaymentAvailability = "late-payment-availability",
    /// A cancelled booking stays cancelled, even if it is paid.
    CancellationIsFinal = "cancellation-is-final",
    /// A booking without tickets cannot be cancelled.
    FreedOnce = "freed-once",
    /// A user may cancel a paid booking only until the cut-off.
    CutOff = "cut-off",
    /// A user may cancel only their own bookings.
    Owner = "owner",
    /// Only an overdue hold expires.
    Overdue = "overdue",
    /// No rule for users stops the clean-up.
    SystemExempt = "system-exempt",
    /// The cancellation of a paid booking records a refund.
    RefundOnCancel = "refund-on-cancel",
    /// A payment that buys nothing records a refund.
    RefundWhenLate = "refund-when-late",
    /// The dates of a ledger never decrease.
    MonotonicLedgerDates = "monotonic-ledger-dates",
    /// Deadlines and sales windows are checked against the clock, never against the date of the last ledger
    /// entry.
    DeadlinesByClock = "deadlines-by-clock",
    /// The database accepts at most one refund for each payment.
    RefundUnique = "refund-unique",
    /// No other transaction changes the data that a transaction has read until it ends.
    RowLock = "row-lock",
    /// Counters are written only if the ledger number is still the one that was read.
    SequenceCheck = "sequence-check",
    /// A booking is written only if its version is still the one that was read.
    VersionCheck = "version-check",
    /// A refund is written only if its status is still the one that was read.
    StatusCheck = "status-check",
    /// A write that changes no row fails its transaction.
    RowCountCheck = "row-count-check",
    /// A failed batch is halved, so that only the command that causes the failure fails.
    Halving = "halving",
    /// Bookings are written in the transaction that writes the counters.
    OneTransaction = "one-transaction",
    /// Ledger entries are written in the transaction of the change that they record.
    LedgerInTransaction = "ledger-in-transaction",
    /// A repeated idempotency key is answered with the stored response.
    ResponseReplay = "response-replay",
    /// An idempotency key belongs to a scope: the same key in another scope is a different key.
    KeyScope = "key-scope",
    /// An idempotency key that is reused for a different request is refused.
    FingerprintCheck = "fingerprint-check",
    /// A command whose sender timed out in the queue never runs.
    StartFlag = "start-flag",
    /// An unknown outcome is not reported as a failure.
    UnknownOutcome = "unknown-outcome",
    /// If the response to a COMMIT is lost, its outcome is looked up in the database.
    OutcomeLookup = "outcome-lookup",
    /// A command continues when its client disconnects.
    DetachedExecution = "detached-execution",
    /// The relay names the expected last message of each event, and trusts the stream over its own numbers.
    StreamSequence = "stream-sequence",
    /// The relay compares an event's last message with the ledger before it appends the next one.
    StreamPredecessor = "stream-predecessor",
    /// The relay counts the messages of each event on the stream instead of trusting its own cursors.
    StreamCount = "stream-count",
    /// The relay verifies periodically that the stream still has its messages.
    StreamVerification = "stream-verification",
    /// A lock excludes other holders. No ticket depends on it, so its removal must not make a test fail.
    Locks = "locks",
}

/// A condition with the name of the [`Guard`] that it implements: `guard!(Owner: !owner)` is `!owner`, or
/// false if tests have removed the guard. `guard!(Owner)` is true unless the guard is removed.
#[macro_export]
macro_rules! guard {
    ($guard:ident) => {
        $crate::sabotage::is_in_force($crate::sabotage::Guard::$guard)
    };
    ($guard:ident: $condition:expr) => {
        ($condition) && $crate::guard!($guard)
    };
}

/// Returns true unless the guard is removed.
#[inline]
pub fn is_in_force(guard: Guard) -> bool {
    !removed(guard)
}

/// Returns true if the guard is removed.
#[cfg(not(feature = "sabotage"))]
#[inline]
pub const fn removed(_guard: Guard) -> bool {
    false
}

#[cfg(feature = "sabotage")]
pub use switch::{Scope, interrupted, remove, remove_here, removed};

#[cfg(feature = "sabotage")]
mod switch {
    use std::cell::{Cell, RefCell};
    use std::sync::atomic::{AtomicU64, Ordering};

    use super::Guard;

    static EVERYWHERE: AtomicU64 = AtomicU64::new(0);

    type Interrupt = Box<dyn FnMut() -> bool>;

    std::thread_local! {
        static HERE: Cell<u64> = const { Cell::new(0) };
        static INTERRUPT: RefCell<Option<Interrupt>> = const { RefCell::new(None) };
    }

    fn bit(guard: Guard) -> u64 {
        1 << guard as u32
    }

    /// Removes the named guards, separated by commas, for the whole process.
    pub fn remove(names: &str) {
        for guard in Guard::ALL {
            if names.split(',').any(|name| name == guard.name()) {
                EVERYWHERE.fetch_or(bit(*guard), Ordering::Relaxed);
            }
        }
    }

    /// Removes guards for this thread until the returned scope is dropped. `interrupt` is called at each
    /// place where a removed guard leaves a gap, and returns true if the process crashes there.
    #[must_use = "the guards are restored when this is dropped"]
    pub fn remove_here(guards: &[Guard], interrupt: impl FnMut() -> bool + 'static) -> Scope {
        HERE.set(guards.iter().fold(0, |bits, guard| bits | bit(*guard)));
        INTERRUPT.set(Some(Box::new(interrupt)));
        Scope(())
    }

    /// While this value lives, guards are removed on its thread.
    #[derive(Debug)]
    pub struct Scope(());

    impl Drop for Scope {
        fn drop(&mut self) {
            HERE.set(0);
            INTERRUPT.set(None);
        }
    }

    /// Returns true if the guard is removed.
    pub fn removed(guard: Guard) -> bool {
        (EVERYWHERE.load(Ordering::Relaxed) | HERE.get()) & bit(guard) != 0
    }

    /// Returns true if the process crashes here, in a gap that a removed guard leaves.
    pub fn interrupted() -> bool {
        INTERRUPT.with_borrow_mut(|interrupt| interrupt.as_mut().is_some_and(|interrupt| interrupt()))
    }
}

#[cfg(not(feature = "sabotage"))]
#[inline]
/// Returns true if the process crashes here, in a gap that a removed guard leaves; never without `sabotage`.
pub const fn interrupted() -> bool {
    false
}
