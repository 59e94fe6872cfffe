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
pub(crate) enum Deed {
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

const DEEDS: [(Deed, u64); 12] = [
    (Deed::Book, 30),
    (Deed::BookAgain, 6),
    (Deed::Pay, 18),
    (Deed::Report, 12),
    (Deed::PayWrongly, 2),
    (Deed::Cancel, 8),
    (Deed::CancelAsService, 5),
    (Deed::CancelForeign, 2),
    (Deed::Settle, 5),
    (Deed::Look, 5),
    (Deed::Edit, 5),
    (Deed::CancelEvent, 1),
];

/// What one seed draws.
#[derive(Clone, Debug)]
#[expect(clippy::struct_excessive_bools, reason = "each is drawn by itself")]
pub(crate) struct Mix {
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
    deeds: Vec<(Deed, u64)>,
    rates: Vec<u64>,
}

impl Mix {
    /// Whether every process of this seed has a relay: four in sixteen, since one looks around every second, which takes
    /// the simulation longer than everything else.
    pub(crate) fn has_relays(seed: u64) -> bool {
        seed % 16 < 4
    }

    /// Odd seeds demand progress, and every other pair of seeds has leases.
    pub(crate) fn draw(seed: u64, luck: &mut fastrand::Rng) -> Self {
        let (first, relays) = Fault::ALL.split_at(Fault::StreamAway as usize);
        let (relays, _) = relays.split_at(Fault::StoreBusy as usize - Fault::StreamAway as usize);
        let rate = |luck: &mut fastrand::Rng, most| if luck.bool() { 0 } else { luck.u64(1..=most) };
        let mut rates: Vec<u64> = first.iter().map(|_| rate(luck, 12)).collect();
        // Some deeds are left out, so that others meet in ways that an even mix would hardly bring about.
        let deeds = DEEDS.into_iter().filter(|(deed, _)| *deed == Deed::Book || luck.u8(..4) > 0).collect();
        let calm = luck.u8(..8) == 0;
        let mut mix = Self {
            liveness: seed % 2 == 1,
            instances: luck.u64(1..=3),
            leases: seed % 4 < 2,
            events: luck.u64(1..=2),
            clients: luck.u64(2..=5),
            steps: luck.u64(6..=16),
            users: luck.u64(1..=4),
            capacity: luck.u32(1..=6),
            per_user: luck.bool().then(|| luck.u32(1..=4)),
            hold: Duration::from_secs(luck.u64(5..=90)),
            sweep_every: Duration::from_secs(luck.u64(2..=40)),
            starts_after: Duration::from_secs(luck.u64(60..=900)),
            cut_off: Duration::from_secs(luck.u64(0..=600)),
            sales_start_after: None,
            sales_end_after: None,
            pause: Duration::from_secs(luck.u64(1..=60)),
            keys: luck.u8(..4) > 0,
            relay: Self::has_relays(seed),
            deeds,
            rates: Vec::new(),
        };
        // From luck of its own, and without relays, so that seeds that once found something still draw the same.
        if !mix.relay {
            let mut windows = fastrand::Rng::with_seed(seed ^ 0x0c10_c4ed);
            let starts = mix.starts_after.as_secs();
            mix.sales_start_after =
                (windows.u8(..3) == 0).then(|| Duration::from_secs(windows.u64(1..=starts / 2)));
            mix.sales_end_after =
                (windows.u8(..3) == 0).then(|| Duration::from_secs(windows.u64(starts / 2 + 1..=starts)));
        }
        // Drawn last, so that seeds without a relay are what they were before there was one.
        if mix.relay {
            // Messages are few.
            rates.extend(relays.iter().map(|_| rate(luck, 30)));
            // It adds an entry to a ledger and takes it away again, which no ledger does.
            rates[Fault::PoisonEvent as usize] = 0;
        }
        mix.rates = if calm { Vec::new() } else { rates };
        // Not drawn, so that seeds without it are what they were before there was one.
        if !calm && [9, 14].contains(&(seed % 16)) {
            mix.rates.resize(Fault::ALL.len(), 0);
            mix.rates[Fault::StoreBusy as usize] = 25;
        }
        mix
    }

    /// How often a fault strikes where it can, in percent.
    pub(crate) fn rate(&self, fault: Fault) -> u64 {
        self.rates.get(fault as usize).copied().unwrap_or_default()
    }

    /// The deed at `place` below [`Mix::deeds`].
    pub(crate) fn deed(&self, mut place: u64) -> Deed {
        for (deed, weight) in &self.deeds {
            match place.checked_sub(*weight) {
                None => return *deed,
                Some(rest) => place = rest,
            }
        }
        Deed::Book
    }

    /// The weights of all deeds together.
    pub(crate) fn deeds(&self) -> u64 {
        self.deeds.iter().map(|(_, weight)| weight).sum()
    }
}
