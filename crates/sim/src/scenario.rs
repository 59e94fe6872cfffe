//! The scenario that a seed draws: sizes, the steps of clients, and the rates of faults.

use std::time::Duration;

macro_rules! faults {
    ($($(#[$doc:meta])* $fault:ident = $name:literal,)*) => {
        /// A fault that the simulator injects. The order is the order in which rates are drawn.
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
    StoreSlowReply = "store: slow to reply",
    StoreStalled = "store: stalled for seconds",
    StoreUnavailable = "store: unavailable",
    CutBeforeCommit = "store: connection cut, batch not committed",
    CutAfterCommit = "store: connection cut, batch committed",
    CutHalfway = "store: connection cut, half of the batch committed",
    CrashBefore = "store: crash before the batch",
    CrashAfter = "store: crash after the batch",
    ReadUnavailable = "read: unavailable",
    ReadSlow = "read: slow",
    ReadCrash = "read: crash",
    LockUnavailable = "lock: unavailable",
    LockSlow = "lock: slow",
    LockGrantedTwice = "lock: granted twice",
    LockLost = "lock: lost at once",
    LockRefused = "lock: refused",
    LimiterUnavailable = "limiter: unavailable",
    LimiterSlow = "limiter: slow",
    LimiterStateLost = "limiter: state lost",
    WakeupLost = "relay: wake-up lost",
    Crash = "instance: crash",
    Pause = "instance: pause beyond the lease",
    Drain = "instance: drained and restarted",
    ClockJumpForward = "clock: jumps forward",
    ClockJumpBack = "clock: jumps back",
    ClockSkew = "clock: one instance is skewed",
    PoisonBooking = "poison: booking row",
    PoisonEvent = "poison: event row",
    ClientDisconnect = "client: disconnects",
    StreamUnavailable = "stream: unavailable",
    StreamNoReply = "stream: no reply",
    StreamSlow = "stream: slow",
    MessageLost = "stream: message lost",
    MessageDelayed = "stream: message delayed",
    AckLost = "stream: ack lost",
    StreamDeleted = "stream: deleted",
    StreamTruncated = "stream: last messages lost",
    StoreBusy = "store: event locked by another transaction",
}

/// One step of a client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    Book,
    ReuseKey,
    Pay,
    ResendWebhook,
    PayWrongAmount,
    Cancel,
    CancelAsService,
    CancelForeign,
    SettleRefund,
    ReadAvailability,
    EditEvent,
    CancelEvent,
}

const STEP_WEIGHTS: [(Step, u64); 12] = [
    (Step::Book, 30),
    (Step::ReuseKey, 6),
    (Step::Pay, 18),
    (Step::ResendWebhook, 12),
    (Step::PayWrongAmount, 2),
    (Step::Cancel, 8),
    (Step::CancelAsService, 5),
    (Step::CancelForeign, 2),
    (Step::SettleRefund, 5),
    (Step::ReadAvailability, 5),
    (Step::EditEvent, 5),
    (Step::CancelEvent, 1),
];

/// The scenario of one seed.
#[derive(Clone, Debug)]
#[expect(clippy::struct_excessive_bools, reason = "each is drawn independently")]
pub(crate) struct Scenario {
    /// True if faults end before the simulation does, so that liveness is checked.
    pub(crate) liveness: bool,
    pub(crate) instances: u64,
    /// True if desks lease their events, as they do with a shared Redis.
    pub(crate) leases: bool,
    pub(crate) events: u64,
    pub(crate) clients: u64,
    pub(crate) steps: u64,
    pub(crate) users: u64,
    pub(crate) capacity: u32,
    pub(crate) per_user: Option<u32>,
    pub(crate) hold: Duration,
    pub(crate) sweep_every: Duration,
    /// Time from the start of the simulation to the start of the events.
    pub(crate) starts_after: Duration,
    pub(crate) cut_off: Duration,
    /// Time from the start of the simulation to the opening of sales. `None`: sales are open at once.
    pub(crate) sales_start_after: Option<Duration>,
    /// Time from the start of the simulation to the end of sales. `None`: sales end when the event starts.
    pub(crate) sales_end_after: Option<Duration>,
    pub(crate) pause: Duration,
    /// True if orders have idempotency keys. A key is valid for a day, so the clock then never jumps that
    /// far.
    pub(crate) keys: bool,
    /// True if relays publish to a stream.
    pub(crate) relay: bool,
    step_weights: Vec<(Step, u64)>,
    rates: Vec<u64>,
}

impl Scenario {
    /// Returns true if every process of this seed has a relay: four seeds in sixteen, because a relay polls
    /// every second, which costs more simulation time than everything else.
    pub(crate) fn has_relays(seed: u64) -> bool {
        seed % 16 < 4
    }

    /// Draws the scenario of a seed. Odd seeds check liveness, and every other pair of seeds has leases.
    ///
    /// The order of the draws is fixed: a change makes every recorded seed a different scenario.
    pub(crate) fn draw(seed: u64, rng: &mut fastrand::Rng) -> Self {
        let (first, relays) = Fault::ALL.split_at(Fault::StreamUnavailable as usize);
        let (relays, _) = relays.split_at(Fault::StoreBusy as usize - Fault::StreamUnavailable as usize);
        let rate = |rng: &mut fastrand::Rng, most| if rng.bool() { 0 } else { rng.u64(1..=most) };
        let mut rates: Vec<u64> = first.iter().map(|_| rate(rng, 12)).collect();
        // Some steps are left out, so that others coincide in ways that an even mix would rarely produce.
        let step_weights =
            STEP_WEIGHTS.into_iter().filter(|(step, _)| *step == Step::Book || rng.u8(..4) > 0).collect();
        let no_faults = rng.u8(..8) == 0;
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
        // From a separate generator, and only without relays, so that regression seeds still draw the same
        // scenario.
        if !scenario.relay {
            let mut windows = fastrand::Rng::with_seed(seed ^ 0x0c10_c4ed);
            let starts = scenario.starts_after.as_secs();
            scenario.sales_start_after =
                (windows.u8(..3) == 0).then(|| Duration::from_secs(windows.u64(1..=starts / 2)));
            scenario.sales_end_after =
                (windows.u8(..3) == 0).then(|| Duration::from_secs(windows.u64(starts / 2 + 1..=starts)));
        }
        // Drawn last, so that scenarios without a relay are the same as before relays existed.
        if scenario.relay {
            // Messages are few, so their rates are higher.
            rates.extend(relays.iter().map(|_| rate(rng, 30)));
            // This fault adds an entry to a ledger and removes it again, which no ledger does.
            rates[Fault::PoisonEvent as usize] = 0;
        }
        scenario.rates = if no_faults { Vec::new() } else { rates };
        // Not drawn, so that scenarios without this fault are the same as before it existed.
        if !no_faults && [9, 14].contains(&(seed % 16)) {
            scenario.rates.resize(Fault::ALL.len(), 0);
            scenario.rates[Fault::StoreBusy as usize] = 25;
        }
        scenario
    }

    /// Returns the probability of a fault at each of its injection points, in percent.
    pub(crate) fn rate(&self, fault: Fault) -> u64 {
        self.rates.get(fault as usize).copied().unwrap_or_default()
    }

    /// Returns the step for a number drawn below [`Scenario::total_weight`].
    pub(crate) fn step(&self, mut drawn: u64) -> Step {
        for (step, weight) in &self.step_weights {
            match drawn.checked_sub(*weight) {
                None => return *step,
                Some(rest) => drawn = rest,
            }
        }
        Step::Book
    }

    /// Returns the sum of the weights of all steps.
    pub(crate) fn total_weight(&self) -> u64 {
        self.step_weights.iter().map(|(_, weight)| weight).sum()
    }
}
