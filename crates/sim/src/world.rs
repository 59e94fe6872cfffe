//! State that all parts of one simulation share: randomness, time, faults, coverage and violations.

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

/// 2027-01-15T08:00:00Z, the start of every simulation, in microseconds since the Unix epoch.
const BEGIN_MICROS: i64 = 1_800_000_000_000_000;

/// The shared state of one simulation. It is the only source of randomness.
pub(crate) struct World {
    pub(crate) scenario: Scenario,
    begin: Instant,
    /// Difference of the database's clock from the simulated time, in microseconds.
    clock_offset: AtomicI64,
    inner: Mutex<Inner>,
}

struct Inner {
    rng: fastrand::Rng,
    trace: Trace,
    faults_enabled: bool,
    coverage: BTreeMap<String, u64>,
    violations: Vec<String>,
    /// Ids of requests whose command reached the store.
    executed: BTreeSet<String>,
    damaged_rows: DamagedRows,
    /// Locks of crashed processes, which release nothing.
    leaked_locks: Vec<LockGuard>,
}

/// Rows that are damaged so that they cannot be read or overwritten.
#[derive(Clone, Debug, Default)]
pub(crate) struct DamagedRows {
    pub(crate) bookings: BTreeSet<BookingId>,
    pub(crate) events: BTreeSet<EventId>,
    /// Bookings that were damaged at any time, also those that were repaired.
    pub(crate) bookings_ever: BTreeSet<BookingId>,
    /// Events that were damaged at any time, also those that were repaired.
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

/// Results of a simulation.
pub(crate) struct RunResult {
    /// Hash of the trace, also where the trace itself is not recorded.
    pub(crate) hash: u64,
    pub(crate) trace: Vec<String>,
    pub(crate) coverage: BTreeMap<String, u64>,
    pub(crate) violations: Vec<String>,
}

impl World {
    pub(crate) fn new(scenario: Scenario, rng: fastrand::Rng, record: bool) -> Arc<Self> {
        let inner = Inner {
            rng,
            trace: Trace { lines: record.then(Vec::new), ..Trace::default() },
            faults_enabled: true,
            coverage: BTreeMap::new(),
            violations: Vec::new(),
            executed: BTreeSet::new(),
            damaged_rows: DamagedRows::default(),
            leaked_locks: Vec::new(),
        };
        let begin = Instant::now();
        let clock_offset = AtomicI64::new(0);
        Arc::new(Self { scenario, begin, clock_offset, inner: Mutex::new(inner) })
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Draws a number below `bound`, which must be above 0.
    pub(crate) fn random_below(&self, bound: u64) -> u64 {
        self.inner().rng.u64(..bound)
    }

    /// Returns true with a probability of `percent` in 100. Draws nothing if `percent` is 0.
    pub(crate) fn chance_percent(&self, percent: u64) -> bool {
        percent > 0 && self.random_below(100) < percent
    }

    /// Draws one of the items; `None` if there are none.
    pub(crate) fn choose<T: Clone>(&self, items: &[T]) -> Option<T> {
        let index = (!items.is_empty()).then(|| self.random_below(items.len() as u64))?;
        items.get(usize::try_from(index).unwrap_or_default()).cloned()
    }

    pub(crate) fn random_bytes(&self) -> [u8; 10] {
        let mut bytes = [0; 10];
        self.inner().rng.fill(&mut bytes);
        bytes
    }

    /// Draws a duration up to `max`, in whole milliseconds. Six in ten are below a twentieth of it.
    pub(crate) fn random_duration(&self, max: Duration) -> Duration {
        let max = u64::try_from(max.as_millis()).unwrap_or(u64::MAX).max(1);
        let bound = if self.chance_percent(60) { max.div_ceil(20) } else { max };
        Duration::from_millis(self.random_below(bound + 1))
    }

    /// Returns the microseconds since the simulation began. It never steps back.
    pub(crate) fn elapsed(&self) -> u64 {
        u64::try_from(self.begin.elapsed().as_micros()).unwrap_or(u64::MAX)
    }

    /// Returns the time of the database's clock.
    pub(crate) fn now(&self) -> Timestamp {
        self.now_skewed(0)
    }

    /// Returns the time of a machine whose clock differs from the database's by `skew` microseconds.
    pub(crate) fn now_skewed(&self, skew: i64) -> Timestamp {
        let elapsed = i64::try_from(self.elapsed()).unwrap_or(i64::MAX);
        let micros = BEGIN_MICROS + elapsed + self.clock_offset.load(Ordering::Relaxed) + skew;
        Timestamp::from_micros(micros).unwrap_or_else(|_| unreachable!("a few years around 2027"))
    }

    pub(crate) fn jump_clock(&self, micros: i64) {
        self.clock_offset.fetch_add(micros, Ordering::Relaxed);
    }

    /// Returns the error of the database's clock, in microseconds.
    pub(crate) fn clock_offset(&self) -> i64 {
        self.clock_offset.load(Ordering::Relaxed)
    }

    /// Corrects the clock of the database.
    pub(crate) fn correct_clock(&self) {
        let offset = self.clock_offset.swap(0, Ordering::Relaxed);
        if offset != 0 {
            self.record_coverage("clock: corrected");
            self.log(format_args!("the clock is corrected by {offset} us"));
        }
    }

    /// Decides if this fault is injected now, and records it as covered if so.
    pub(crate) fn should_inject(&self, fault: Fault) -> bool {
        let enabled = self.inner().faults_enabled;
        let should_inject = enabled && self.chance_percent(self.scenario.rate(fault));
        if should_inject {
            self.record_coverage(fault.name());
            self.log(format_args!("fault: {}", fault.name()));
        }
        should_inject
    }

    pub(crate) fn disable_faults(&self) {
        self.inner().faults_enabled = false;
    }

    pub(crate) fn faults_enabled(&self) -> bool {
        self.inner().faults_enabled
    }

    /// Appends a line to the trace.
    pub(crate) fn log(&self, message: fmt::Arguments<'_>) {
        let at = self.elapsed();
        let mut inner = self.inner();
        if let Some(lines) = &mut inner.trace.lines {
            lines.push(String::new());
        }
        let written = fmt::Write::write_fmt(
            &mut inner.trace,
            format_args!("{:>8}.{:03} ms  {message}", at / 1_000, at % 1_000),
        );
        debug_assert!(written.is_ok(), "writing to a string does not fail");
    }

    /// Counts a goal as reached once more.
    pub(crate) fn record_coverage(&self, goal: &str) {
        let mut inner = self.inner();
        match inner.coverage.get_mut(goal) {
            Some(count) => *count += 1,
            None => drop(inner.coverage.insert(goal.to_owned(), 1)),
        }
    }

    /// Records the violation of an invariant.
    pub(crate) fn report_violation(&self, violation: impl Into<String>) {
        let violation = violation.into();
        self.log(format_args!("VIOLATION: {violation}"));
        self.inner().violations.push(violation);
    }

    /// Records that the command of a request reached the store.
    pub(crate) fn record_executed(&self, request: &str) {
        self.inner().executed.insert(request.to_owned());
    }

    pub(crate) fn was_executed(&self, request: &str) -> bool {
        self.inner().executed.contains(request)
    }

    pub(crate) fn damaged_rows<T>(&self, access: impl FnOnce(&mut DamagedRows) -> T) -> T {
        access(&mut self.inner().damaged_rows)
    }

    /// Keeps the lock of a crashed process, so that it is not released before its lease expires.
    pub(crate) fn leak(&self, guard: LockGuard) {
        self.inner().leaked_locks.push(guard);
    }

    /// Takes the results at the end of the simulation.
    pub(crate) fn take_result(&self) -> RunResult {
        let mut inner = self.inner();
        RunResult {
            hash: inner.trace.hash.finish(),
            trace: inner.trace.lines.take().unwrap_or_default(),
            coverage: std::mem::take(&mut inner.coverage),
            violations: std::mem::take(&mut inner.violations),
        }
    }
}

/// The clock of the database, and of the lock and the limiter that all processes share.
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
