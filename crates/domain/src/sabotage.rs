//! Takes guards away, so that tests can show that they notice.
//!
//! A guard is asked about by [`removed`] where it stands. Without the feature `sabotage`, which no release
//! build enables, nothing can take one away and the question compiles to nothing. With it, tests remove
//! guards for a whole process (a server under test) or for their own thread (a simulation).

macro_rules! guards {
    ($($(#[$doc:meta])* $guard:ident = $name:literal,)*) => {
        /// A guard that can be taken away.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
        pub enum Guard { $($(#[$doc])* $guard,)* }

        impl Guard {
            /// Every guard.
            pub const ALL: &'static [Self] = &[$(Self::$guard,)*];

            /// What it is called, in tests and in `docs/reliability.md`.
            pub fn name(self) -> &'static str {
                match self { $(Self::$guard => $name,)* }
            }
        }
    };
}

guards! {
    /// The rules look whether tickets are left before they give them out.
    Capacity = "capacity",
    /// The database refuses counts that exceed a capacity.
    CapacityCheck = "capacity-check",
    /// Overdue holds are freed before anybody is refused for want of tickets.
    OverdueFirst = "overdue-first",
    /// The rules count the tickets of a user.
    UserLimit = "user-limit",
    /// The database refuses a user more than the limit.
    UserLimitCheck = "user-limit-check",
    /// Nothing is booked while sales are paused, closed or not open yet, nor after the event began or ended.
    SalesOpen = "sales-open",
    /// A payment of another amount is refused.
    Amount = "amount",
    /// A payment with a recorded refund is never accepted again.
    RefundedForGood = "refunded-for-good",
    /// The payment that has bought a booking, reported again, changes nothing.
    PaidOnce = "paid-once",
    /// A late payment takes its tickets again where they are still there.
    TakenAgain = "taken-again",
    /// A late payment looks whether its tickets are still there.
    StillThere = "still-there",
    /// What was cancelled stays so, whatever is paid for it.
    CancelledForGood = "cancelled-for-good",
    /// What holds no tickets cannot be given up.
    FreedOnce = "freed-once",
    /// A user may give back a paid booking only until the cut-off.
    CutOff = "cut-off",
    /// A user may give up only a booking of their own.
    Owner = "owner",
    /// Only a hold whose time has passed expires.
    Overdue = "overdue",
    /// No rule made for users stops the clean-up.
    SystemExempt = "system-exempt",
    /// A paid booking that is cancelled leaves a refund.
    RefundOnCancel = "refund-on-cancel",
    /// A payment that buys nothing leaves a refund.
    RefundWhenLate = "refund-when-late",
    /// A ledger is never dated backwards.
    LedgerForward = "ledger-forward",
    /// Deadlines and sales windows go by the clock, never by the date of the ledger's last entry.
    ClockAlone = "clock-alone",
    /// The database accepts one refund for each payment.
    RefundUnique = "refund-unique",
    /// What a transaction has read, it has for itself until it ends.
    RowLock = "row-lock",
    /// Counters are written over the ledger number that was read, or not at all.
    SeqCompared = "seq-compared",
    /// A booking is written over the version that was read, or not at all.
    VersionCompared = "version-compared",
    /// A refund is written over the status that was read, or not at all.
    StatusCompared = "status-compared",
    /// A write that hits no row fails its transaction.
    RowsCounted = "rows-counted",
    /// A batch that fails is halved, so that only the command at fault fails.
    Halving = "halving",
    /// Bookings are written in the transaction that writes the counters.
    OneTransaction = "one-transaction",
    /// Ledger entries are written in the transaction that they tell of.
    LedgerInTransaction = "ledger-in-transaction",
    /// A repeated key is answered with what is kept under it.
    KeyReplayed = "key-replayed",
    /// A key is its owner's: the same one in another scope is another.
    KeyScoped = "key-scoped",
    /// A key that comes again for something else is refused.
    KeyCompared = "key-compared",
    /// A command whose sender gave up waiting never runs.
    StartFlag = "turn",
    /// What nobody knows is not called a failure.
    UnknownReported = "unknown-told",
    /// The database is asked what became of a COMMIT that was not answered.
    FollowUp = "follow-up",
    /// A command goes on when its client hangs up.
    Detached = "detached",
    /// The relay names what must be its event's last message, and believes the stream more than its own numbers.
    StreamSequence = "stream-sequence",
    /// The relay compares an event's last message with the ledger before it appends the next one.
    StreamPredecessor = "stream-predecessor",
    /// The relay asks the stream what is on it, and believes no note of its own.
    StreamCounted = "stream-surveyed",
    /// The relay looks, now and then, whether the stream is still what it put there.
    StreamVerified = "stream-looked-after",
    /// A lock keeps anybody out. Nothing that is sold depends on it, so nobody may miss this one.
    Locks = "locks",
}

/// Whether a guard was taken away.
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

    /// Takes away the guards named, separated by commas, for this whole process.
    pub fn remove(names: &str) {
        for guard in Guard::ALL {
            if names.split(',').any(|wanted| wanted == guard.name()) {
                EVERYWHERE.fetch_or(bit(*guard), Ordering::Relaxed);
            }
        }
    }

    /// Takes guards away for this thread, until the scope is dropped. `interrupt` says at each place where a
    /// removed guard leaves a gap whether the world ends there.
    #[must_use = "the guards are back once this is dropped"]
    pub fn remove_here(guards: &[Guard], interrupt: impl FnMut() -> bool + 'static) -> Scope {
        HERE.set(guards.iter().fold(0, |bits, guard| bits | bit(*guard)));
        INTERRUPT.set(Some(Box::new(interrupt)));
        Scope(())
    }

    /// As long as it lives, guards are missing on its thread.
    #[derive(Debug)]
    pub struct Scope(());

    impl Drop for Scope {
        fn drop(&mut self) {
            HERE.set(0);
            INTERRUPT.set(None);
        }
    }

    /// Whether a guard was taken away.
    pub fn removed(guard: Guard) -> bool {
        (EVERYWHERE.load(Ordering::Relaxed) | HERE.get()) & bit(guard) != 0
    }

    /// Whether the world ends here, in a gap that a removed guard has left.
    pub fn interrupted() -> bool {
        INTERRUPT.with_borrow_mut(|interrupt| interrupt.as_mut().is_some_and(|interrupt| interrupt()))
    }
}

#[cfg(not(feature = "sabotage"))]
#[inline]
/// Whether the world ends here, in a gap that a removed guard has left: never.
pub const fn interrupted() -> bool {
    false
}
