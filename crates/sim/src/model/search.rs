//! The search. It is breadth-first, so the first violation of an invariant is reached by a shortest path.

use std::collections::{BTreeSet, HashMap};
use std::hash::{DefaultHasher, Hash, Hasher as _};

use domain::sabotage::{Guard, removed};

use super::rules::{Response, Step, step};
use super::{BookingState, Db, ModelConfig, Operation, Phase};

/// Statistics of an exhausted search in which no invariant was violated.
#[derive(Clone, Debug)]
pub struct SearchStats {
    /// Number of distinct states.
    pub states: usize,
    /// Number of transitions between states.
    pub transitions: usize,
    /// Length of the longest of the shortest paths.
    pub depth: usize,
    /// Coverage goals that were reached.
    pub coverage: BTreeSet<String>,
}

/// A violation of an invariant, and a path to it.
#[derive(Clone, Debug)]
pub struct Counterexample {
    /// A description of the violation.
    pub violation: String,
    /// The steps that lead to it.
    pub path: Vec<String>,
    /// Number of states visited until then.
    pub states: usize,
}

#[derive(Clone, PartialEq, Eq, Hash)]
struct SearchState {
    db: Db,
    phases: Vec<Phase>,
    /// The operation that has the lock of each booking.
    locks: [Option<u8>; 2],
    late: bool,
    crashed: bool,
    /// Snapshots of the operations that have read, by operation. Used only if rows are not locked.
    reads: Vec<(u8, Db)>,
}

/// One step of one operation, or of its environment.
#[derive(Clone, Copy, Debug)]
enum Transition {
    Begin(usize),
    BeginUnlocked(usize),
    Read(usize),
    Write(usize),
    Crash(usize),
    LockLost(usize),
    TimePasses,
}

/// Searches every interleaving of a configuration.
pub fn search(config: &ModelConfig) -> Result<SearchStats, Counterexample> {
    let mut search =
        Search { config, known: HashMap::new(), steps: HashMap::new(), coverage: BTreeSet::new() };
    let begin = SearchState {
        db: Db { seq: 1, ..Db::default() },
        phases: vec![Phase::NotStarted; config.operations.len()],
        locks: [None; 2],
        late: false,
        crashed: false,
        reads: Vec::new(),
    };
    search.known.insert(digest(&begin), None);
    let mut layer = vec![begin];
    let mut transitions = 0;
    let mut depth = 0;
    while !layer.is_empty() {
        let mut next = Vec::new();
        for state in &layer {
            for transition in search.transitions(state) {
                transitions += 1;
                let after = match search.apply(state, transition) {
                    Ok(after) => after,
                    Err(violation) => return Err(search.counterexample(state, transition, violation)),
                };
                let key = digest(&after);
                if let std::collections::hash_map::Entry::Vacant(entry) = search.known.entry(key) {
                    entry.insert(Some((digest(state), transition)));
                    next.push(after);
                }
            }
        }
        depth += usize::from(!next.is_empty());
        layer = next;
    }
    Ok(SearchStats { states: search.known.len(), transitions, depth, coverage: search.coverage })
}

fn digest(state: &SearchState) -> u64 {
    let mut hasher = DefaultHasher::new();
    state.hash(&mut hasher);
    hasher.finish()
}

struct Search<'s> {
    config: &'s ModelConfig,
    /// Visited states by digest, each with its predecessor and the transition that first reached it.
    known: HashMap<u64, Option<(u64, Transition)>>,
    /// Memoised effects of each operation on each database.
    steps: HashMap<(Db, Operation, bool), Step>,
    coverage: BTreeSet<String>,
}

impl Search<'_> {
    fn operation(&self, number: usize) -> Operation {
        self.config.operations[number]
    }

    /// Returns the booking whose lock an operation takes.
    fn locked_booking(&self, number: usize) -> Option<usize> {
        match self.operation(number) {
            Operation::Confirm(index, _)
            | Operation::Cancel(index)
            | Operation::CancelForeign(index)
            | Operation::Expire(index) => Some(index),
            // The chore that cancels bookings of a cancelled event takes no lock.
            Operation::Book(_) | Operation::CancelEvent | Operation::CancelEventBooking(_) => None,
        }
    }

    /// Returns true if an operation can start: its booking exists, and for the chore, its event is cancelled.
    fn can_start(&self, state: &SearchState, number: usize) -> bool {
        match self.operation(number) {
            Operation::Book(_) | Operation::CancelEvent => true,
            Operation::Confirm(index, _)
            | Operation::Cancel(index)
            | Operation::CancelForeign(index)
            | Operation::Expire(index) => state.db.bookings[index] != BookingState::Absent,
            Operation::CancelEventBooking(index) => {
                state.db.event_cancelled && state.db.bookings[index] != BookingState::Absent
            }
        }
    }

    fn transitions(&self, state: &SearchState) -> Vec<Transition> {
        let mut transitions = Vec::new();
        let rows_unlocked = removed(Guard::RowLock) || !state.phases.contains(&Phase::Read);
        for (number, phase) in state.phases.iter().enumerate() {
            match phase {
                Phase::NotStarted if self.can_start(state, number) => match self.locked_booking(number) {
                    Some(index) if state.locks[index].is_some() => {
                        transitions.push(Transition::BeginUnlocked(number));
                    }
                    Some(_) => transitions.push(Transition::Begin(number)),
                    None if rows_unlocked => transitions.push(Transition::Read(number)),
                    None => {}
                },
                Phase::Ready if rows_unlocked => transitions.push(Transition::Read(number)),
                Phase::Read => transitions.push(Transition::Write(number)),
                Phase::NotStarted | Phase::Ready | Phase::Done | Phase::Crashed => {}
            }
            if matches!(phase, Phase::Ready | Phase::Read) && !state.crashed {
                transitions.push(Transition::Crash(number));
            }
        }
        transitions.extend((0..2).filter(|index| state.locks[*index].is_some()).map(Transition::LockLost));
        if !state.late {
            transitions.push(Transition::TimePasses);
        }
        transitions
    }

    fn apply(&mut self, state: &SearchState, transition: Transition) -> Result<SearchState, String> {
        let mut after = state.clone();
        let owner = |number: usize| u8::try_from(number).ok();
        match transition {
            Transition::Begin(number) => {
                after.phases[number] = Phase::Ready;
                if let Some(index) = self.locked_booking(number) {
                    after.locks[index] = owner(number);
                }
            }
            Transition::BeginUnlocked(number) => {
                self.record_coverage("continues without the lock");
                after.phases[number] = Phase::Ready;
            }
            Transition::Read(number) => {
                after.phases[number] = Phase::Read;
                if removed(Guard::RowLock) {
                    after.reads.push((owner(number).unwrap_or(0), state.db));
                }
            }
            Transition::Write(number) => self.write(&mut after, number)?,
            Transition::Crash(number) => {
                self.record_coverage("a process crashes");
                after.phases[number] = Phase::Crashed;
                after.crashed = true;
                after.reads.retain(|(reader, _)| Some(*reader) != owner(number));
            }
            Transition::LockLost(index) => {
                self.record_coverage("a lock is lost");
                after.locks[index] = None;
            }
            Transition::TimePasses => after.late = true,
        }
        Ok(after)
    }

    /// Completes an operation: writes its decision on what it has read, and responds.
    fn write(&mut self, state: &mut SearchState, number: usize) -> Result<(), String> {
        let operation = self.operation(number);
        let me = u8::try_from(number).unwrap_or(0);
        let index = state.reads.iter().position(|(reader, _)| *reader == me);
        let read = index.map_or(state.db, |index| state.reads.swap_remove(index).1);
        state.reads.sort_unstable_by_key(|(reader, _)| *reader);
        let config = self.config;
        let late = state.late;
        let step = *self
            .steps
            .entry((read, operation, late))
            .or_insert_with(|| step(config, &read, operation, late));
        let before = state.db;
        state.db = write_guarded(self.config, &before, &read, &step.after)?;
        state.phases[number] = Phase::Done;
        for lock in &mut state.locks {
            if *lock == Some(me) {
                *lock = None;
            }
        }
        if step.freed_hold {
            self.record_coverage("an overdue hold is freed for another command");
        }
        for index in 0..2 {
            if before.bookings[index] != state.db.bookings[index] {
                let name = |stored: BookingState| match stored {
                    BookingState::Absent => "absent",
                    BookingState::Pending => "pending",
                    BookingState::Confirmed(_) => "confirmed",
                    BookingState::Cancelled(_) => "cancelled",
                    BookingState::Expired => "expired",
                };
                self.record_coverage(&format!(
                    "{} to {}",
                    name(before.bookings[index]),
                    name(state.db.bookings[index])
                ));
            }
        }
        if let Response::Refused(code) = step.response {
            self.record_coverage(code);
        }
        check_invariants(self.config, operation, step.response, (&before, &state.db), late)
    }

    fn record_coverage(&mut self, goal: &str) {
        if !self.coverage.contains(goal) {
            self.coverage.insert(goal.to_owned());
        }
    }

    fn counterexample(&self, state: &SearchState, last: Transition, violation: String) -> Counterexample {
        let name = |transition: Transition| match transition {
            Transition::Begin(number) => format!("{:?} takes its lock", self.operation(number)),
            Transition::BeginUnlocked(number) => {
                format!("{:?} continues without its lock", self.operation(number))
            }
            Transition::Read(number) => format!("{:?} reads", self.operation(number)),
            Transition::Write(number) => format!("{:?} writes and responds", self.operation(number)),
            Transition::Crash(number) => format!("{:?} crashes", self.operation(number)),
            Transition::LockLost(index) => format!("the lock of booking {index} is lost"),
            Transition::TimePasses => "holds become overdue".to_owned(),
        };
        let mut path = vec![name(last)];
        let mut key = digest(state);
        while let Some(Some((before, transition))) = self.known.get(&key) {
            path.push(name(*transition));
            key = *before;
        }
        path.reverse();
        Counterexample { violation, path, states: self.known.len() }
    }
}

/// Returns the database after a transaction that has read `read` and writes `wanted`, under the guards of its
/// writes.
fn write_guarded(config: &ModelConfig, stored: &Db, read: &Db, wanted: &Db) -> Result<Db, String> {
    if read == wanted {
        return Ok(*stored);
    }
    let mut after = *stored;
    let missed = |write: &str| {
        if removed(Guard::RowCountCheck) { Ok(()) } else { Err(format!("a guard rejected a write: {write}")) }
    };
    if stored.seq == read.seq || removed(Guard::SequenceCheck) {
        (after.held, after.sold) = (wanted.held, wanted.sold);
        after.event_cancelled = wanted.event_cancelled;
        after.seq = wanted.seq;
    } else {
        missed("counters")?;
    }
    for index in 0..2 {
        if wanted.versions[index] == read.versions[index] {
            continue;
        }
        if stored.versions[index] == read.versions[index] || removed(Guard::VersionCheck) {
            after.bookings[index] = wanted.bookings[index];
            after.versions[index] = wanted.versions[index];
        } else {
            missed("a booking")?;
        }
    }
    for index in 0..2 {
        for payment in 0..2 {
            if wanted.refunds[index][payment] != read.refunds[index][payment] {
                if stored.refunds[index][payment] != 0 {
                    let violation = if removed(Guard::RefundUnique) {
                        "a payment is refunded twice"
                    } else {
                        "rejected by the database: a second refund"
                    };
                    return Err(violation.to_owned());
                }
                after.refunds[index][payment] = wanted.refunds[index][payment];
            }
        }
    }
    if u16::from(after.held) + u16::from(after.sold) > u16::from(config.capacity)
        && !removed(Guard::CapacityCheck)
    {
        return Err("rejected by the database: more tickets than the capacity".to_owned());
    }
    Ok(after)
}

/// Checks the invariants that hold for every response and for the database after it.
fn check_invariants(
    config: &ModelConfig,
    operation: Operation,
    response: Response,
    (before, after): (&Db, &Db),
    late: bool,
) -> Result<(), String> {
    let must = |holds: bool, violation: &str| {
        if holds { Ok(()) } else { Err(format!("{violation}: {operation:?} got {response:?}; {after:?}")) }
    };
    let (pending, sold) = counts(after);
    if let Response::Failed(why) = response {
        return Err(format!("{operation:?} failed: {why}"));
    }
    must(pending + sold <= usize::from(config.capacity), "oversold")?;
    must((usize::from(after.held), usize::from(after.sold)) == (pending, sold), "the counters are wrong")?;
    must(!config.one_user || pending + sold <= 1, "the user is over the limit")?;
    for index in 0..2 {
        let is_valid = match (before.bookings[index], after.bookings[index]) {
            (from, to) if from == to => true,
            (BookingState::Absent, BookingState::Pending)
            | (BookingState::Pending, BookingState::Cancelled(None)) => true,
            (BookingState::Pending | BookingState::Expired, BookingState::Confirmed(_)) => {
                !after.event_cancelled
            }
            (BookingState::Pending, BookingState::Expired) => late,
            (BookingState::Confirmed(paid), BookingState::Cancelled(Some(by))) => paid == by,
            _ => false,
        };
        must(is_valid, "invalid state change")?;
        for payment in 0..2 {
            let refunded = after.refunds[index][payment] != 0;
            let by = u8::try_from(payment).unwrap_or(0);
            must(
                !(refunded && after.bookings[index] == BookingState::Confirmed(by)),
                "a payment confirms a booking and is refunded",
            )?;
            must(
                refunded || after.bookings[index] != BookingState::Cancelled(Some(by)),
                "the payment of a cancelled booking is not refunded",
            )?;
            must(refunded || before.refunds[index][payment] == 0, "a refund was removed")?;
        }
    }
    check_response(config, operation, response, (before, after), late)
        .map_err(|violation| format!("{violation}: {operation:?} got {response:?}; {after:?}"))
}

/// Returns the number of pending and of confirmed bookings.
fn counts(db: &Db) -> (usize, usize) {
    let count =
        |wanted: fn(&BookingState) -> bool| db.bookings.iter().filter(|stored| wanted(stored)).count();
    (
        count(|stored| *stored == BookingState::Pending),
        count(|stored| matches!(stored, BookingState::Confirmed(_))),
    )
}

/// Checks the response to an operation against the database before and after it.
fn check_response(
    config: &ModelConfig,
    operation: Operation,
    response: Response,
    (before, after): (&Db, &Db),
    late: bool,
) -> Result<(), &'static str> {
    const CONTRADICTION: &str = "the response contradicts the database";
    let must = |holds: bool, violation: &'static str| if holds { Ok(()) } else { Err(violation) };
    let (pending, sold) = counts(after);
    let refused = matches!(response, Response::Refused(_));
    match operation {
        Operation::Book(index) => {
            must(refused == (after.bookings[index] == BookingState::Absent), CONTRADICTION)?;
            let has_overdue = late && after.bookings.contains(&BookingState::Pending);
            let lacks_tickets = matches!(
                response,
                Response::Refused("sold_out" | "insufficient_availability" | "booking_limit_exceeded")
            );
            must(!(lacks_tickets && has_overdue), "refused while a hold is overdue")
        }
        Operation::Confirm(index, payment) => {
            let paid = after.bookings[index] == BookingState::Confirmed(u8::try_from(payment).unwrap_or(0));
            let refunded = after.refunds[index][payment] != 0;
            must(if refused { refunded && !paid } else { paid && !refunded }, CONTRADICTION)?;
            let fresh = before.refunds[index][payment] == 0;
            let room = pending + sold < usize::from(config.capacity) && !config.one_user;
            must(
                !(response == Response::Refused("hold_expired") && fresh && room),
                "refunded while a ticket is available",
            )
        }
        Operation::Cancel(index) | Operation::CancelEventBooking(index) => {
            must(refused || matches!(after.bookings[index], BookingState::Cancelled(_)), CONTRADICTION)
        }
        Operation::CancelForeign(_) => must(refused && before == after, "another user changed the database"),
        Operation::Expire(index) => {
            must(refused || after.bookings[index] == BookingState::Expired, CONTRADICTION)
        }
        Operation::CancelEvent => must(refused || after.event_cancelled, CONTRADICTION),
    }
}
