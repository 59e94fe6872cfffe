//! The clock and the random numbers of the operating system. This is the only module that reads them.

use domain::{Clock, Ids, Timestamp};

/// The clock of the operating system.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemClock;

/// Random bytes of the operating system.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemIds;

impl SystemClock {
    #[expect(clippy::disallowed_methods, reason = "the only source of the time")]
    fn since_epoch() -> std::time::Duration {
        std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default()
    }
}

impl Clock for SystemClock {
    fn now(&self) -> Timestamp {
        let micros = i64::try_from(Self::since_epoch().as_micros()).unwrap_or(i64::MAX);
        Timestamp::from_micros(micros).unwrap_or_else(|_| panic!("the system clock is past the year 9999"))
    }
}

impl coordination::Clock for SystemClock {
    fn unix_micros(&self) -> u64 {
        u64::try_from(Self::since_epoch().as_micros()).unwrap_or(u64::MAX)
    }
}

impl Ids for SystemIds {
    #[expect(clippy::disallowed_methods, reason = "the only source of randomness")]
    fn random(&self) -> [u8; 10] {
        let mut bytes = [0; 10];
        getrandom::fill(&mut bytes)
            .unwrap_or_else(|error| panic!("the system returned no random bytes: {error}"));
        bytes
    }
}
