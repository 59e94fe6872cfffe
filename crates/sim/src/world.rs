//! What all parts of one simulation share: luck, time, faults, and what was seen.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::hash::{DefaultHasher, Hasher as _};
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use coordination::LockGuard;
use domain::{BookingId, EventId, Timestamp};
use tokio::time::Instant;

use crate::scenario::{Fault, Scenario};

/// 2027-01-15T08:00:00Z, where every simulation begins.
const BEGIN_MICROS: i64 = 1_800_000_000_000_000;

/// One simulated world.
pub(crate) struct World {
    pub(crate) scenario: Scenario,
    begin: Instant,
    /// By how much the clock of the database has jumped, in microseconds.
    jumped: AtomicI64,
    inner: Mutex<Inner>,
}

struct Inner {
    rng: fastrand::Rng,
    trace: Trace,
    faults: bool,
    seen: BTreeMap<String, u64>,
    wrong: Vec<String>,
    executed: BTreeSet<String>,
    poisoned: Poisoned,
    leaked_locks: Vec<LockGuard>,
}

/// Rows that cannot be read or written over.
#[derive(Clone, Debug, Default)]
pub(crate) struct Poisoned {
    pub(crate) bookings: BTreeSet<BookingId>,
    pub(crate) events: BTreeSet<EventId>,
    /// Everything that ever was.
    pub(crate) bookings_ever: BTreeSet<BookingId>,
    pub(crate) events_ever: BTreeSet<EventId>,
}

#[derive(Default)]
struct Trace {
    hash: DefaultHasher,
    lines: Option<Vec<String>>,
}

impl fmt::Write for Trace {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.hash.write(text.as_bytes());
        if let Some(line) = self.lines.as_mut().and_then(|lines| lines.last_mut()) {
            line.push_str(text);
        }
        Ok(())
    }
}

/// What is left of a world.
pub(crate) struct RunResult {
    pub(crate) hash: u64,
    pub(crate) trace: Vec<String>,
    pub(crate) seen: BTreeMap<String, u64>,
    pub(crate) wrong: Vec<String>,
}

impl World {
    pub(crate) fn new(scenario: Scenario, rng: fastrand::Rng, record: bool) -> Arc<Self> {
        let inner = Inner {
            rng,
            trace: Trace { lines: record.then(Vec::new), ..Trace::default() },
            faults: true,
            seen: BTreeMap::new(),
            wrong: Vec::new(),
            executed: BTreeSet::new(),
            poisoned: Poisoned::default(),
            leaked_locks: Vec::new(),
        };
        Arc::new(Self {
            scenario: scenario,
            begin: Instant::now(),
            jumped: AtomicI64::new(0),
            inner: Mutex::new(inner),
        })
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A number below `bound`, which is above 0.
    pub(crate) fn below(&self, bound: u64) -> u64 {
        self.inner().rng.u64(..bound)
    }

    /// True in so many of a hundred cases.
    pub(crate) fn percent(&self, share: u64) -> bool {
        share > 0 && self.below(100) < share
    }

    /// One of these.
    pub(crate) fn one_of<T: Clone>(&self, some: &[T]) -> Option<T> {
        let place = (!some.is_empty()).then(|| self.below(some.len() as u64))?;
        some.get(usize::try_from(place).unwrap_or_default()).cloned()
    }

    pub(crate) fn random_bytes(&self) -> [u8; 10] {
        let mut bytes = [0; 10];
        self.inner().rng.fill(&mut bytes);
        bytes
    }

    /// A time up to `most`, mostly a short one.
    pub(crate) fn moment(&self, most: Duration) -> Duration {
        let most = u64::try_from(most.as_millis()).unwrap_or(u64::MAX).max(1);
        let bound = if self.percent(60) { most.div_ceil(20) } else { most };
        Duration::from_millis(self.below(bound + 1))
    }

    /// Microseconds since the simulation began; never steps back.
    pub(crate) fn elapsed(&self) -> u64 {
        u64::try_from(self.begin.elapsed().as_micros()).unwrap_or(u64::MAX)
    }

    /// The clock of the database.
    pub(crate) fn now(&self) -> Timestamp {
        self.now_skewed(0)
    }

    /// The clock of a machine that is off by so many microseconds.
    pub(crate) fn now_skewed(&self, skew: i64) -> Timestamp {
        let elapsed = i64::try_from(self.elapsed()).unwrap_or(i64::MAX);
        let micros = BEGIN_MICROS + elapsed + self.jumped.load(Ordering::Relaxed) + skew;
        Timestamp::from_micros(micros).unwrap_or_else(|_| unreachable!("a few years around 2027"))
    }

    pub(crate) fn jump(&self, micros: i64) {
        self.jumped.fetch_add(micros, Ordering::Relaxed);
    }

    /// By how much the clock of the database is wrong, in microseconds.
    pub(crate) fn jumped(&self) -> i64 {
        self.jumped.load(Ordering::Relaxed)
    }

    /// Sets the clock of the database right.
    pub(crate) fn set_clock_right(&self) {
        let wrong_by = self.jumped.swap(0, Ordering::Relaxed);
        if wrong_by != 0 {
            self.saw("clock: right again");
            self.note(format_args!("the clock is right again, after {wrong_by} us"));
        }
    }

    /// Whether this fault strikes now; noted as seen if so.
    pub(crate) fn should_inject(&self, fault: Fault) -> bool {
        let on = self.inner().faults;
        let should_inject = on && self.percent(self.scenario.rate(fault));
        if should_inject {
            self.saw(fault.name());
            self.note(format_args!("fault: {}", fault.name()));
        }
        should_inject
    }

    pub(crate) fn heal(&self) {
        self.inner().faults = false;
    }

    pub(crate) fn faults(&self) -> bool {
        self.inner().faults
    }

    /// One more line of the trace.
    pub(crate) fn note(&self, what: fmt::Arguments<'_>) {
        let at = self.elapsed();
        let mut inner = self.inner();
        if let Some(lines) = &mut inner.trace.lines {
            lines.push(String::new());
        }
        let written = fmt::Write::write_fmt(
            &mut inner.trace,
            format_args!("{:>8}.{:03} ms  {what}", at / 1_000, at % 1_000),
        );
        debug_assert!(written.is_ok(), "strings take everything");
    }

    /// Something that a campaign must have met was met.
    pub(crate) fn saw(&self, what: &str) {
        let mut inner = self.inner();
        match inner.seen.get_mut(what) {
            Some(count) => *count += 1,
            None => drop(inner.seen.insert(what.to_owned(), 1)),
        }
    }

    /// A promise was broken.
    pub(crate) fn wrong(&self, what: impl Into<String>) {
        let what = what.into();
        self.note(format_args!("WRONG: {what}"));
        self.inner().wrong.push(what);
    }

    pub(crate) fn executed(&self, request: &str) {
        self.inner().executed.insert(request.to_owned());
    }

    pub(crate) fn was_executed(&self, request: &str) -> bool {
        self.inner().executed.contains(request)
    }

    pub(crate) fn poisoned<T>(&self, look: impl FnOnce(&mut Poisoned) -> T) -> T {
        look(&mut self.inner().poisoned)
    }

    /// Keeps what a dead process had in hand: nothing of it is given back.
    pub(crate) fn leak(&self, tenure: LockGuard) {
        self.inner().leaked_locks.push(tenure);
    }

    pub(crate) fn take_result(&self) -> RunResult {
        let mut inner = self.inner();
        RunResult {
            hash: inner.trace.hash.finish(),
            trace: inner.trace.lines.take().unwrap_or_default(),
            seen: std::mem::take(&mut inner.seen),
            wrong: std::mem::take(&mut inner.wrong),
        }
    }
}

/// The clock of the database, and of whatever orders and counts for all.
pub(crate) struct CommonClock(pub(crate) Arc<World>);

impl domain::Clock for CommonClock {
    fn now(&self) -> Timestamp {
        self.0.now()
    }
}

impl coordination::Clock for CommonClock {
    fn unix_micros(&self) -> u64 {
        u64::try_from(self.0.now().micros()).unwrap_or_default()
    }
}
