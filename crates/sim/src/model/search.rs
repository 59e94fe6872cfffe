//! Breadth first, so that the first broken promise is found by the shortest way.

use std::collections::{BTreeSet, HashMap};
use std::hash::{DefaultHasher, Hash, Hasher as _};

use domain::sabotage::{Guard, removed};

use super::rules::{Response, Step, step};
use super::{BookingState, Db, ModelConfig, Operation, Phase};

/// All states were seen, and no promise was broken in any.
#[derive(Clone, Debug)]
pub struct SearchStats {
    /// Distinct states.
    pub states: usize,
    /// Ways from one state to another.
    pub transitions: usize,
    /// The longest of the shortest ways.
    pub depth: usize,
    /// What was met on the way.
    pub seen: BTreeSet<String>,
}

/// A promise was broken.
#[derive(Clone, Debug)]
pub struct Counterexample {
    /// Which.
    pub what: String,
    /// How it came to that, step by step.
    pub way: Vec<String>,
    /// States seen until then.
    pub states: usize,
}

#[derive(Clone, PartialEq, Eq, Hash)]
struct SearchState {
    db: Db,
    stages: Vec<Phase>,
    /// Who has the lock of each booking.
    locks: [Option<u8>; 2],
    late: bool,
    crashed: bool,
    /// What those have read who have, where their rows are not locked for them.
    read: Vec<(u8, Db)>,
}

/// One step of one deed, or of the world.
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

/// Searches every order of events in a setting.
pub fn search(config: &ModelConfig) -> Result<SearchStats, Counterexample> {
    let mut search = Search { config, known: HashMap::new(), steps: HashMap::new(), seen: BTreeSet::new() };
    let begin = SearchState {
        db: Db { seq: 1, ..Db::default() },
        stages: vec![Phase::Ahead; config.operations.len()],
        locks: [None; 2],
        late: false,
        crashed: false,
        read: Vec::new(),
    };
    search.known.insert(digest(&begin), None);
    let (mut layer, mut transitions, mut depth) = (vec![begin], 0, 0);
    while !layer.is_empty() {
        let mut next = Vec::new();
        for world in &layer {
            for each in search.moves(world) {
                transitions += 1;
                let after = match search.go(world, each) {
                    Ok(after) => after,
                    Err(what) => return Err(search.broken(world, each, what)),
                };
                let key = digest(&after);
                if let std::collections::hash_map::Entry::Vacant(entry) = search.known.entry(key) {
                    entry.insert(Some((digest(world), each)));
                    next.push(after);
                }
            }
        }
        depth += usize::from(!next.is_empty());
        layer = next;
    }
    Ok(SearchStats { states: search.known.len(), transitions, depth, seen: search.seen })
}

fn digest(world: &SearchState) -> u64 {
    let mut hasher = DefaultHasher::new();
    world.hash(&mut hasher);
    hasher.finish()
}

struct Search<'s> {
    config: &'s ModelConfig,
    /// Each state that was seen, by its digest, and how it was first reached.
    known: HashMap<u64, Option<(u64, Transition)>>,
    /// What each deed does to what is stored: asked once.
    steps: HashMap<(Db, Operation, bool), Step>,
    seen: BTreeSet<String>,
}

impl Search<'_> {
    fn deed(&self, number: usize) -> Operation {
        self.config.operations[number]
    }

    /// The booking whose lock a deed takes.
    fn booking(&self, number: usize) -> Option<usize> {
        match self.deed(number) {
            Operation::Confirm(index, _)
            | Operation::Cancel(index)
            | Operation::CancelForeign(index)
            | Operation::Expire(index) => Some(index),
            // Chores of cancelled events take no lock.
            Operation::Book(_) | Operation::CancelEvent | Operation::CancelEventBooking(_) => None,
        }
    }

    /// Whether there is a reason to begin: a booking is there to be named, a cancelled event has bookings.
    fn called_for(&self, world: &SearchState, number: usize) -> bool {
        match self.deed(number) {
            Operation::Book(_) | Operation::CancelEvent => true,
            Operation::Confirm(index, _)
            | Operation::Cancel(index)
            | Operation::CancelForeign(index)
            | Operation::Expire(index) => world.db.bookings[index] != BookingState::Absent,
            Operation::CancelEventBooking(index) => {
                world.db.ended && world.db.bookings[index] != BookingState::Absent
            }
        }
    }

    fn moves(&self, world: &SearchState) -> Vec<Transition> {
        let mut moves = Vec::new();
        let rows_free = removed(Guard::RowLock) || !world.stages.contains(&Phase::Read);
        for (number, stage) in world.stages.iter().enumerate() {
            match stage {
                Phase::Ahead if self.called_for(world, number) => match self.booking(number) {
                    Some(index) if world.locks[index].is_some() => {
                        moves.push(Transition::BeginUnlocked(number))
                    }
                    Some(_) => moves.push(Transition::Begin(number)),
                    None if rows_free => moves.push(Transition::Read(number)),
                    None => {}
                },
                Phase::Asked if rows_free => moves.push(Transition::Read(number)),
                Phase::Read => moves.push(Transition::Write(number)),
                Phase::Ahead | Phase::Asked | Phase::Over | Phase::Dead => {}
            }
            if matches!(stage, Phase::Asked | Phase::Read) && !world.crashed {
                moves.push(Transition::Crash(number));
            }
        }
        moves.extend((0..2).filter(|index| world.locks[*index].is_some()).map(Transition::LockLost));
        if !world.late {
            moves.push(Transition::TimePasses);
        }
        moves
    }

    fn go(&mut self, world: &SearchState, each: Transition) -> Result<SearchState, String> {
        let mut after = world.clone();
        let owner = |number: usize| u8::try_from(number).ok();
        match each {
            Transition::Begin(number) => {
                after.stages[number] = Phase::Asked;
                if let Some(index) = self.booking(number) {
                    after.locks[index] = owner(number);
                }
            }
            Transition::BeginUnlocked(number) => {
                self.saw("goes on without the lock");
                after.stages[number] = Phase::Asked;
            }
            Transition::Read(number) => {
                after.stages[number] = Phase::Read;
                if removed(Guard::RowLock) {
                    after.read.push((owner(number).unwrap_or(0), world.db));
                }
            }
            Transition::Write(number) => self.write(&mut after, number)?,
            Transition::Crash(number) => {
                self.saw("a process dies");
                after.stages[number] = Phase::Dead;
                after.crashed = true;
                after.read.retain(|(reader, _)| Some(*reader) != owner(number));
            }
            Transition::LockLost(index) => {
                self.saw("a lock is lost");
                after.locks[index] = None;
            }
            Transition::TimePasses => after.late = true,
        }
        Ok(after)
    }

    /// The end of a deed: what it decided on what it had read is written, and answered.
    fn write(&mut self, world: &mut SearchState, number: usize) -> Result<(), String> {
        let (deed, me) = (self.deed(number), u8::try_from(number).unwrap_or(0));
        let place = world.read.iter().position(|(reader, _)| *reader == me);
        let read = place.map_or(world.db, |place| world.read.swap_remove(place).1);
        world.read.sort_unstable_by_key(|(reader, _)| *reader);
        let (config, late) = (self.config, world.late);
        let step = *self.steps.entry((read, deed, late)).or_insert_with(|| step(config, &read, deed, late));
        let before = world.db;
        world.db = written(self.config, &before, &read, &step.after)?;
        world.stages[number] = Phase::Over;
        for lock in &mut world.locks {
            if *lock == Some(me) {
                *lock = None;
            }
        }
        if step.freed {
            self.saw("an overdue hold is freed for somebody");
        }
        for index in 0..2 {
            if before.bookings[index] != world.db.bookings[index] {
                let name = |stored: BookingState| match stored {
                    BookingState::Absent => "absent",
                    BookingState::Pending => "pending",
                    BookingState::Confirmed(_) => "confirmed",
                    BookingState::Cancelled(_) => "cancelled",
                    BookingState::Expired => "expired",
                };
                self.saw(&format!("{} to {}", name(before.bookings[index]), name(world.db.bookings[index])));
            }
        }
        if let Response::Refused(code) = step.response {
            self.saw(code);
        }
        promises(self.config, deed, step.response, (&before, &world.db), late)
    }

    fn saw(&mut self, what: &str) {
        if !self.seen.contains(what) {
            self.seen.insert(what.to_owned());
        }
    }

    fn broken(&self, world: &SearchState, last: Transition, what: String) -> Counterexample {
        let name = |each: Transition| match each {
            Transition::Begin(number) => format!("{:?} takes its lock", self.deed(number)),
            Transition::BeginUnlocked(number) => format!("{:?} goes on without its lock", self.deed(number)),
            Transition::Read(number) => format!("{:?} reads", self.deed(number)),
            Transition::Write(number) => format!("{:?} writes and is answered", self.deed(number)),
            Transition::Crash(number) => format!("{:?} dies", self.deed(number)),
            Transition::LockLost(index) => format!("the lock of booking {index} is lost"),
            Transition::TimePasses => "holds fall due".to_owned(),
        };
        let mut way = vec![name(last)];
        let mut key = digest(world);
        while let Some(Some((before, each))) = self.known.get(&key) {
            way.push(name(*each));
            key = *before;
        }
        way.reverse();
        Counterexample { what, way, states: self.known.len() }
    }
}

/// What is stored after a transaction that had read `read` and wants `wanted`, under the guards of its writes.
fn written(config: &ModelConfig, stored: &Db, read: &Db, wanted: &Db) -> Result<Db, String> {
    if read == wanted {
        return Ok(*stored);
    }
    let mut after = *stored;
    let missed = |what: &str| {
        if removed(Guard::RowsCounted) { Ok(()) } else { Err(format!("a guard missed: {what}")) }
    };
    if stored.seq == read.seq || removed(Guard::SeqCompared) {
        (after.held, after.sold, after.ended) = (wanted.held, wanted.sold, wanted.ended);
        after.seq = wanted.seq;
    } else {
        missed("counters")?;
    }
    for index in 0..2 {
        if wanted.versions[index] == read.versions[index] {
            continue;
        }
        if stored.versions[index] == read.versions[index] || removed(Guard::VersionCompared) {
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
                    let whose = if removed(Guard::RefundUnique) {
                        "a payment is given back twice"
                    } else {
                        "refused by the database: a second refund"
                    };
                    return Err(whose.to_owned());
                }
                after.refunds[index][payment] = wanted.refunds[index][payment];
            }
        }
    }
    if u16::from(after.held) + u16::from(after.sold) > u16::from(config.capacity)
        && !removed(Guard::CapacityCheck)
    {
        return Err("refused by the database: more tickets than there are".to_owned());
    }
    Ok(after)
}

/// What must be true of every answer and of what is then stored.
fn promises(
    config: &ModelConfig,
    deed: Operation,
    response: Response,
    (before, after): (&Db, &Db),
    late: bool,
) -> Result<(), String> {
    let must = |kept: bool, what: &str| {
        if kept { Ok(()) } else { Err(format!("{what}: {deed:?} heard {response:?}; {after:?}")) }
    };
    let count =
        |wanted: fn(&BookingState) -> bool| after.bookings.iter().filter(|stored| wanted(stored)).count();
    let (pending, sold) = (
        count(|stored| *stored == BookingState::Pending),
        count(|stored| matches!(stored, BookingState::Confirmed(_))),
    );
    if let Response::Failed(why) = response {
        return Err(format!("{deed:?} failed: {why}"));
    }
    must(pending + sold <= usize::from(config.capacity), "oversold")?;
    must((usize::from(after.held), usize::from(after.sold)) == (pending, sold), "the counters are wrong")?;
    must(!config.one_user || pending + sold <= 1, "the user has too many")?;
    for index in 0..2 {
        let lawful = match (before.bookings[index], after.bookings[index]) {
            (from, to) if from == to => true,
            (BookingState::Absent, BookingState::Pending)
            | (BookingState::Pending, BookingState::Cancelled(None)) => true,
            (BookingState::Pending | BookingState::Expired, BookingState::Confirmed(_)) => !after.ended,
            (BookingState::Pending, BookingState::Expired) => late,
            (BookingState::Confirmed(paid), BookingState::Cancelled(Some(by))) => paid == by,
            _ => false,
        };
        must(lawful, "an unlawful change")?;
        for payment in 0..2 {
            let refunded = after.refunds[index][payment] != 0;
            let by = u8::try_from(payment).unwrap_or(0);
            must(
                !(refunded && after.bookings[index] == BookingState::Confirmed(by)),
                "pays and is given back",
            )?;
            must(
                refunded || after.bookings[index] != BookingState::Cancelled(Some(by)),
                "paid, cancelled, not given back",
            )?;
            must(refunded || before.refunds[index][payment] == 0, "a refund is gone")?;
        }
    }
    let refused = matches!(response, Response::Refused(_));
    match deed {
        Operation::Book(index) => {
            must(refused == (after.bookings[index] == BookingState::Absent), "an untrue answer")?;
            let waste = late && after.bookings.contains(&BookingState::Pending);
            let want = matches!(
                response,
                Response::Refused("sold_out" | "insufficient_availability" | "booking_limit_exceeded")
            );
            must(!(want && waste), "refused beside an overdue hold")
        }
        Operation::Confirm(index, payment) => {
            let paid = after.bookings[index] == BookingState::Confirmed(u8::try_from(payment).unwrap_or(0));
            let refunded = after.refunds[index][payment] != 0;
            must(if refused { refunded && !paid } else { paid && !refunded }, "an untrue answer")?;
            let fresh = before.refunds[index][payment] == 0;
            let room = pending + sold < usize::from(config.capacity) && !config.one_user;
            must(
                !(response == Response::Refused("hold_expired") && fresh && room),
                "given back beside a free ticket",
            )
        }
        Operation::Cancel(index) | Operation::CancelEventBooking(index) => {
            must(refused || matches!(after.bookings[index], BookingState::Cancelled(_)), "an untrue answer")
        }
        Operation::CancelForeign(_) => must(refused && before == after, "a stranger changed something"),
        Operation::Expire(index) => {
            must(refused || after.bookings[index] == BookingState::Expired, "an untrue answer")
        }
        Operation::CancelEvent => must(refused || after.ended, "an untrue answer"),
    }
}
