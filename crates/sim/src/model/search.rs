//! Breadth first, so that the first broken promise is found by the shortest way.

use std::collections::{BTreeSet, HashMap};
use std::hash::{DefaultHasher, Hash, Hasher as _};

use domain::sabotage::{Guard, removed};

use super::rules::{Step, Told, step};
use super::{Db, Deed, Setting, Stage, Stored};

/// All states were seen, and no promise was broken in any.
#[derive(Clone, Debug)]
pub struct Exhausted {
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
pub struct Broken {
    /// Which.
    pub what: String,
    /// How it came to that, step by step.
    pub way: Vec<String>,
    /// States seen until then.
    pub states: usize,
}

#[derive(Clone, PartialEq, Eq, Hash)]
struct World {
    db: Db,
    stages: Vec<Stage>,
    /// Who has the lock of each booking.
    locks: [Option<u8>; 2],
    late: bool,
    crashed: bool,
    /// What those have read who have, where their rows are not locked for them.
    read: Vec<(u8, Db)>,
}

/// One step of one deed, or of the world.
#[derive(Clone, Copy, Debug)]
enum Move {
    Begin(usize),
    BeginUnlocked(usize),
    Read(usize),
    Write(usize),
    Crash(usize),
    LockLost(usize),
    TimePasses,
}

/// Searches every order of events in a setting.
pub fn search(setting: &Setting) -> Result<Exhausted, Broken> {
    let mut search = Search { setting, known: HashMap::new(), steps: HashMap::new(), seen: BTreeSet::new() };
    let begin = World {
        db: Db { seq: 1, ..Db::default() },
        stages: vec![Stage::Ahead; setting.deeds.len()],
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
    Ok(Exhausted { states: search.known.len(), transitions, depth, seen: search.seen })
}

fn digest(world: &World) -> u64 {
    let mut hasher = DefaultHasher::new();
    world.hash(&mut hasher);
    hasher.finish()
}

struct Search<'s> {
    setting: &'s Setting,
    /// Each state that was seen, by its digest, and how it was first reached.
    known: HashMap<u64, Option<(u64, Move)>>,
    /// What each deed does to what is stored: asked once.
    steps: HashMap<(Db, Deed, bool), Step>,
    seen: BTreeSet<String>,
}

impl Search<'_> {
    fn deed(&self, number: usize) -> Deed {
        self.setting.deeds[number]
    }

    /// The booking whose lock a deed takes.
    fn booking(&self, number: usize) -> Option<usize> {
        match self.deed(number) {
            Deed::Confirm(index, _) | Deed::Cancel(index) | Deed::Steal(index) | Deed::Expire(index) => {
                Some(index)
            }
            // Chores of cancelled events take no lock.
            Deed::Book(_) | Deed::End | Deed::Doom(_) => None,
        }
    }

    /// Whether there is a reason to begin: a booking is there to be named, a cancelled event has bookings.
    fn called_for(&self, world: &World, number: usize) -> bool {
        match self.deed(number) {
            Deed::Book(_) | Deed::End => true,
            Deed::Confirm(index, _) | Deed::Cancel(index) | Deed::Steal(index) | Deed::Expire(index) => {
                world.db.bookings[index] != Stored::Absent
            }
            Deed::Doom(index) => world.db.ended && world.db.bookings[index] != Stored::Absent,
        }
    }

    fn moves(&self, world: &World) -> Vec<Move> {
        let mut moves = Vec::new();
        let rows_free = removed(Guard::RowLock) || !world.stages.contains(&Stage::Read);
        for (number, stage) in world.stages.iter().enumerate() {
            match stage {
                Stage::Ahead if self.called_for(world, number) => match self.booking(number) {
                    Some(index) if world.locks[index].is_some() => moves.push(Move::BeginUnlocked(number)),
                    Some(_) => moves.push(Move::Begin(number)),
                    None if rows_free => moves.push(Move::Read(number)),
                    None => {}
                },
                Stage::Asked if rows_free => moves.push(Move::Read(number)),
                Stage::Read => moves.push(Move::Write(number)),
                Stage::Ahead | Stage::Asked | Stage::Over | Stage::Dead => {}
            }
            if matches!(stage, Stage::Asked | Stage::Read) && !world.crashed {
                moves.push(Move::Crash(number));
            }
        }
        moves.extend((0..2).filter(|index| world.locks[*index].is_some()).map(Move::LockLost));
        if !world.late {
            moves.push(Move::TimePasses);
        }
        moves
    }

    fn go(&mut self, world: &World, each: Move) -> Result<World, String> {
        let mut after = world.clone();
        let owner = |number: usize| u8::try_from(number).ok();
        match each {
            Move::Begin(number) => {
                after.stages[number] = Stage::Asked;
                if let Some(index) = self.booking(number) {
                    after.locks[index] = owner(number);
                }
            }
            Move::BeginUnlocked(number) => {
                self.saw("goes on without the lock");
                after.stages[number] = Stage::Asked;
            }
            Move::Read(number) => {
                after.stages[number] = Stage::Read;
                if removed(Guard::RowLock) {
                    after.read.push((owner(number).unwrap_or(0), world.db));
                }
            }
            Move::Write(number) => self.write(&mut after, number)?,
            Move::Crash(number) => {
                self.saw("a process dies");
                after.stages[number] = Stage::Dead;
                after.crashed = true;
                after.read.retain(|(reader, _)| Some(*reader) != owner(number));
            }
            Move::LockLost(index) => {
                self.saw("a lock is lost");
                after.locks[index] = None;
            }
            Move::TimePasses => after.late = true,
        }
        Ok(after)
    }

    /// The end of a deed: what it decided on what it had read is written, and answered.
    fn write(&mut self, world: &mut World, number: usize) -> Result<(), String> {
        let (deed, me) = (self.deed(number), u8::try_from(number).unwrap_or(0));
        let place = world.read.iter().position(|(reader, _)| *reader == me);
        let read = place.map_or(world.db, |place| world.read.swap_remove(place).1);
        world.read.sort_unstable_by_key(|(reader, _)| *reader);
        let (setting, late) = (self.setting, world.late);
        let step = *self.steps.entry((read, deed, late)).or_insert_with(|| step(setting, &read, deed, late));
        let before = world.db;
        world.db = written(self.setting, &before, &read, &step.after)?;
        world.stages[number] = Stage::Over;
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
                let name = |stored: Stored| match stored {
                    Stored::Absent => "absent",
                    Stored::Pending => "pending",
                    Stored::Confirmed(_) => "confirmed",
                    Stored::Cancelled(_) => "cancelled",
                    Stored::Expired => "expired",
                };
                self.saw(&format!("{} to {}", name(before.bookings[index]), name(world.db.bookings[index])));
            }
        }
        if let Told::Refused(code) = step.told {
            self.saw(code);
        }
        promises(self.setting, deed, step.told, (&before, &world.db), late)
    }

    fn saw(&mut self, what: &str) {
        if !self.seen.contains(what) {
            self.seen.insert(what.to_owned());
        }
    }

    fn broken(&self, world: &World, last: Move, what: String) -> Broken {
        let name = |each: Move| match each {
            Move::Begin(number) => format!("{:?} takes its lock", self.deed(number)),
            Move::BeginUnlocked(number) => format!("{:?} goes on without its lock", self.deed(number)),
            Move::Read(number) => format!("{:?} reads", self.deed(number)),
            Move::Write(number) => format!("{:?} writes and is answered", self.deed(number)),
            Move::Crash(number) => format!("{:?} dies", self.deed(number)),
            Move::LockLost(index) => format!("the lock of booking {index} is lost"),
            Move::TimePasses => "holds fall due".to_owned(),
        };
        let mut way = vec![name(last)];
        let mut key = digest(world);
        while let Some(Some((before, each))) = self.known.get(&key) {
            way.push(name(*each));
            key = *before;
        }
        way.reverse();
        Broken { what, way, states: self.known.len() }
    }
}

/// What is stored after a transaction that had read `read` and wants `wanted`, under the guards of its writes.
fn written(setting: &Setting, stored: &Db, read: &Db, wanted: &Db) -> Result<Db, String> {
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
    if u16::from(after.held) + u16::from(after.sold) > u16::from(setting.capacity)
        && !removed(Guard::CapacityCheck)
    {
        return Err("refused by the database: more tickets than there are".to_owned());
    }
    Ok(after)
}

/// What must be true of every answer and of what is then stored.
fn promises(
    setting: &Setting,
    deed: Deed,
    told: Told,
    (before, after): (&Db, &Db),
    late: bool,
) -> Result<(), String> {
    let must = |kept: bool, what: &str| {
        if kept { Ok(()) } else { Err(format!("{what}: {deed:?} heard {told:?}; {after:?}")) }
    };
    let count = |wanted: fn(&Stored) -> bool| after.bookings.iter().filter(|stored| wanted(stored)).count();
    let (pending, sold) =
        (count(|stored| *stored == Stored::Pending), count(|stored| matches!(stored, Stored::Confirmed(_))));
    if let Told::Failed(why) = told {
        return Err(format!("{deed:?} failed: {why}"));
    }
    must(pending + sold <= usize::from(setting.capacity), "oversold")?;
    must((usize::from(after.held), usize::from(after.sold)) == (pending, sold), "the counters are wrong")?;
    must(!setting.one_user || pending + sold <= 1, "the user has too many")?;
    for index in 0..2 {
        let lawful = match (before.bookings[index], after.bookings[index]) {
            (from, to) if from == to => true,
            (Stored::Absent, Stored::Pending) | (Stored::Pending, Stored::Cancelled(None)) => true,
            (Stored::Pending | Stored::Expired, Stored::Confirmed(_)) => !after.ended,
            (Stored::Pending, Stored::Expired) => late,
            (Stored::Confirmed(paid), Stored::Cancelled(Some(by))) => paid == by,
            _ => false,
        };
        must(lawful, "an unlawful change")?;
        for payment in 0..2 {
            let refunded = after.refunds[index][payment] != 0;
            let by = u8::try_from(payment).unwrap_or(0);
            must(!(refunded && after.bookings[index] == Stored::Confirmed(by)), "pays and is given back")?;
            must(
                refunded || after.bookings[index] != Stored::Cancelled(Some(by)),
                "paid, cancelled, not given back",
            )?;
            must(refunded || before.refunds[index][payment] == 0, "a refund is gone")?;
        }
    }
    let refused = matches!(told, Told::Refused(_));
    match deed {
        Deed::Book(index) => {
            must(refused == (after.bookings[index] == Stored::Absent), "an untrue answer")?;
            let waste = late && after.bookings.contains(&Stored::Pending);
            let want = matches!(
                told,
                Told::Refused("sold_out" | "insufficient_availability" | "booking_limit_exceeded")
            );
            must(!(want && waste), "refused beside an overdue hold")
        }
        Deed::Confirm(index, payment) => {
            let paid = after.bookings[index] == Stored::Confirmed(u8::try_from(payment).unwrap_or(0));
            let refunded = after.refunds[index][payment] != 0;
            must(if refused { refunded && !paid } else { paid && !refunded }, "an untrue answer")?;
            let fresh = before.refunds[index][payment] == 0;
            let room = pending + sold < usize::from(setting.capacity) && !setting.one_user;
            must(!(told == Told::Refused("hold_expired") && fresh && room), "given back beside a free ticket")
        }
        Deed::Cancel(index) | Deed::Doom(index) => {
            must(refused || matches!(after.bookings[index], Stored::Cancelled(_)), "an untrue answer")
        }
        Deed::Steal(_) => must(refused && before == after, "a stranger changed something"),
        Deed::Expire(index) => must(refused || after.bookings[index] == Stored::Expired, "an untrue answer"),
        Deed::End => must(refused || after.ended, "an untrue answer"),
    }
}
