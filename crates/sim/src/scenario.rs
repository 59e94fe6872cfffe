//! What one seed draws: how large its world is, what its people do, and what goes wrong.

use std::time::Duration;

macro_rules! faults {
    ($($(#[$doc:meta])* $fault:ident = $name:literal,)*) => {
        /// What can go wrong.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub(crate) enum Fault { $($(#[$doc])* $fault,)* }

        impl Fault {
            pub(crate) const ALL: &'static [Self] = &[$(Self::$fault,)*];

            pub(crate) fn name(self) -> &'static str {
                match self { $(Self::$fault => $name,)* }
            }
        }
    };
}

faults! {
    StoreSlow = "store: slow",
    StoreSlowAnswer = "store: slow to answer",
    StoreStuck = "store: stuck for seconds",
    StoreAway = "store: away",
    OutcomeLost = "store: cut, the batch does not stand",
    OutcomeStands = "store: cut, the batch stands",
    OutcomeHalf = "store: cut, a part stands",
    CrashBefore = "store: crash before the batch",
    CrashAfter = "store: crash after the batch",
    ReadAway = "read: away",
    ReadSlow = "read: slow",
    ReadCrash = "read: crash",
    LockAway = "lock: away",
    LockSlow = "lock: slow",
    LockTwice = "lock: granted twice",
    LockLost = "lock: lost at once",
    LockRefused = "lock: refused",
    LimiterAway = "limiter: away",
    LimiterSlow = "limiter: slow",
    LimiterForgets = "limiter: forgets",
    HintLost = "publish: hint lost",
    Crash = "instance: crash",
    Pause = "instance: pause beyond the lease",
    Drain = "instance: drained and started again",
    JumpForward = "clock: jumps forward",
    JumpBack = "clock: jumps back",
    Skew = "clock: an instance is off",
    PoisonBooking = "poison: a booking",
    PoisonEvent = "poison: an event",
    HangUp = "client: hangs up",
    StreamAway = "stream: away",
    StreamSilent = "stream: does not answer",
    StreamSlow = "stream: slow",
    MessageLost = "stream: a message is lost",
    MessageLate = "stream: a message comes late",
    AnswerLost = "stream: an answer is lost",
    StreamDeleted = "stream: deleted",
    StreamCut = "stream: loses its end",
    StoreBusy = "store: others keep an event locked",
}

/// What somebody does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    Book,
    BookAgain,
    Pay,
    Report,
    PayWrongly,
    Cancel,
    CancelAsService,
    CancelForeign,
    Settle,
    Look,
    Edit,
    CancelEvent,
}

const STEP_WEIGHTS: [(Step, u64); 12] = [
    (Step::Book, 30),
    (Step::BookAgain, 6),
    (Step::Pay, 18),
    (Step::Report, 12),
    (Step::PayWrongly, 2),
    (Step::Cancel, 8),
    (Step::CancelAsService, 5),
    (Step::CancelForeign, 2),
    (Step::Settle, 5),
    (Step::Look, 5),
    (Step::Edit, 5),
    (Step::CancelEvent, 1),
];

/// What one seed draws.
#[derive(Clone, Debug)]
#[expect(clippy::struct_excessive_bools, reason = "each is drawn by itself")]
pub(crate) struct Scenario {
    /// Faults end, and then progress is demanded.
    pub(crate) liveness: bool,
    pub(crate) instances: u64,
    /// Whether desks lease their events, as they do where a Redis is shared.
    pub(crate) leases: bool,
    pub(crate) events: u64,
    pub(crate) clients: u64,
    pub(crate) steps: u64,
    pub(crate) users: u64,
    pub(crate) capacity: u32,
    pub(crate) per_user: Option<u32>,
    pub(crate) hold: Duration,
    pub(crate) sweep_every: Duration,
    /// How long after the beginning the events start.
    pub(crate) starts_after: Duration,
    pub(crate) cut_off: Duration,
    /// How long after the beginning sales open, and close; unset where nothing but the event's start bounds them.
    pub(crate) sales_start_after: Option<Duration>,
    pub(crate) sales_end_after: Option<Duration>,
    pub(crate) pause: Duration,
    /// Whether orders come under keys. A key lives for a day, so then no clock jumps that far.
    pub(crate) keys: bool,
    /// Whether relays fill a stream.
    pub(crate) relay: bool,
    step_weights: Vec<(Step, u64)>,
    rates: Vec<u64>,
}

impl Scenario {
    /// Whether every process of this seed has a relay: four in sixteen, since one looks around every second, which takes
    /// the simulation longer than everything else.
    pub(crate) fn has_relays(seed: u64) -> bool {
        seed % 16 < 4
    }

    /// Odd seeds demand progress, and every other pair of seeds has leases.
    pub(crate) fn draw(seed: u64, rng: &mut fastrand::Rng) -> Self {
        let (first, relays) = Fault::ALL.split_at(Fault::StreamAway as usize);
        let (relays, _) = relays.split_at(Fault::StoreBusy as usize - Fault::StreamAway as usize);
        let rate = |rng: &mut fastrand::Rng, most| if rng.bool() { 0 } else { rng.u64(1..=most) };
        let mut rates: Vec<u64> = first.iter().map(|_| rate(rng, 12)).collect();
        // Some steps are left out, so that others meet in ways that an even mix would hardly bring about.
        let step_weights =
            STEP_WEIGHTS.into_iter().filter(|(step, _)| *step == Step::Book || rng.u8(..4) > 0).collect();
        let calm = rng.u8(..8) == 0;
        let mut scenario = Self {
            liveness: seed % 2 == 1,
            instances: rng.u64(1..=3),
            leases: seed % 4 < 2,
            events: rng.u64(1..=2),
            clients: rng.u64(2..=5),
            steps: rng.u64(6..=16),
            users: rng.u64(1..=4),
            capacity: rng.u32(1..=6),
            per_user: rng.bool().then(|| rng.u32(1..=4)),
            hold: Duration::from_secs(rng.u64(5..=90)),
            sweep_every: Duration::from_secs(rng.u64(2..=40)),
            starts_after: Duration::from_secs(rng.u64(60..=900)),
            cut_off: Duration::from_secs(rng.u64(0..=600)),
            sales_start_after: None,
            sales_end_after: None,
            pause: Duration::from_secs(rng.u64(1..=60)),
            keys: rng.u8(..4) > 0,
            relay: Self::has_relays(seed),
            step_weights,
            rates: Vec::new(),
        };
        // From luck of its own, and without relays, so that seeds that once found something still draw the same.
        if !scenario.relay {
            let mut windows = fastrand::Rng::with_seed(seed ^ 0x0c10_c4ed);
            let starts = scenario.starts_after.as_secs();
            scenario.sales_start_after =
                (windows.u8(..3) == 0).then(|| Duration::from_secs(windows.u64(1..=starts / 2)));
            scenario.sales_end_after =
                (windows.u8(..3) == 0).then(|| Duration::from_secs(windows.u64(starts / 2 + 1..=starts)));
        }
        // Drawn last, so that seeds without a relay are what they were before there was one.
        if scenario.relay {
            // Messages are few.
            rates.extend(relays.iter().map(|_| rate(rng, 30)));
            // It adds an entry to a ledger and takes it away again, which no ledger does.
            rates[Fault::PoisonEvent as usize] = 0;
        }
        scenario.rates = if calm { Vec::new() } else { rates };
        // Not drawn, so that seeds without it are what they were before there was one.
        if !calm && [9, 14].contains(&(seed % 16)) {
            scenario.rates.resize(Fault::ALL.len(), 0);
            scenario.rates[Fault::StoreBusy as usize] = 25;
        }
        scenario
    }

    /// How often a fault strikes where it can, in percent.
    pub(crate) fn rate(&self, fault: Fault) -> u64 {
        self.rates.get(fault as usize).copied().unwrap_or_default()
    }

    /// The step at `place` below [`Scenario::total_weight`].
    pub(crate) fn step(&self, mut place: u64) -> Step {
        for (step, weight) in &self.step_weights {
            match place.checked_sub(*weight) {
                None => return *step,
                Some(rest) => place = rest,
            }
        }
        Step::Book
    }

    /// The weights of all steps together.
    pub(crate) fn total_weight(&self) -> u64 {
        self.step_weights.iter().map(|(_, weight)| weight).sum()
    }
}
