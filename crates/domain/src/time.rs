//! Instants in UTC, and the clock port.

use std::fmt;
use std::str::FromStr;

/// An instant, in whole microseconds since the Unix epoch.
///
/// The range is the years −9999 to 9999. The text format is RFC 3339: any offset is parsed, and UTC is
/// written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp(i64);

/// The text is not an RFC 3339 instant, or the instant is outside the supported years.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("must be an RFC 3339 instant such as 2030-06-01T18:00:00Z")]
pub struct TimestampError;

impl Timestamp {
    /// Converts microseconds since the Unix epoch; fails outside the years −9999 to 9999.
    pub fn from_micros(micros: i64) -> Result<Self, TimestampError> {
        jiff::Timestamp::from_microsecond(micros)
            .map(|at| Self(at.as_microsecond()))
            .map_err(|_| TimestampError)
    }

    /// Microseconds since the Unix epoch; negative before 1970.
    pub fn micros(self) -> i64 {
        self.0
    }

    /// This instant plus `seconds`; saturates at the last instant of the range.
    #[must_use]
    pub fn plus_seconds(self, seconds: u32) -> Self {
        let latest = jiff::Timestamp::MAX.as_microsecond();
        Self(self.0.saturating_add(i64::from(seconds).saturating_mul(1_000_000)).min(latest))
    }

    /// This instant minus `seconds`; saturates at the first instant of the range.
    #[must_use]
    pub fn minus_seconds(self, seconds: u32) -> Self {
        let earliest = jiff::Timestamp::MIN.as_microsecond();
        Self(self.0.saturating_sub(i64::from(seconds).saturating_mul(1_000_000)).max(earliest))
    }

    /// Whole seconds from this instant until `later`, rounded up; 0 if `later` is not after this instant.
    pub fn seconds_until(self, later: Self) -> u64 {
        u64::try_from(later.0.saturating_sub(self.0)).unwrap_or(0).div_ceil(1_000_000)
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match jiff::Timestamp::from_microsecond(self.0) {
            Ok(at) => write!(f, "{at}"),
            // Both constructors check the range, so this is unreachable.
            Err(_) => write!(f, "{}µs", self.0),
        }
    }
}

impl serde::Serialize for Timestamp {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl FromStr for Timestamp {
    type Err = TimestampError;

    fn from_str(text: &str) -> Result<Self, TimestampError> {
        let at: jiff::Timestamp = text.parse().map_err(|_| TimestampError)?;
        Self::from_micros(at.as_microsecond())
    }
}

/// The source of the current time. The simulator and tests that must not sleep provide their own.
///
/// A database with a clock decides deadlines by its own; the embedded store uses this port.
pub trait Clock: Send + Sync {
    /// The current instant. It may step back; callers that need an order keep their own last value.
    fn now(&self) -> Timestamp;
}

/// A function is a clock, so that a test needs no type for one.
impl<F: Fn() -> Timestamp + Send + Sync> Clock for F {
    fn now(&self) -> Timestamp {
        self()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_any_offset_and_writes_utc() {
        let check = |text: &str, written: &str| {
            let at: Timestamp = text.parse().unwrap();
            assert_eq!(at.to_string(), written);
        };
        check("2030-06-01T20:00:00+02:00", "2030-06-01T18:00:00Z");
        check("2030-06-01T18:00:00.5Z", "2030-06-01T18:00:00.5Z");
        check("1969-12-31T23:59:59Z", "1969-12-31T23:59:59Z");
    }

    #[test]
    fn rejects_texts_that_are_not_rfc_3339() {
        for text in ["", "tomorrow", "2030-06-01", "2030-13-01T00:00:00Z", "2030-06-01T18:00:00"] {
            assert_eq!(text.parse::<Timestamp>(), Err(TimestampError), "{text}");
        }
    }

    #[test]
    fn remaining_seconds_are_rounded_up_and_never_negative() {
        let at = Timestamp::from_micros(1_000_000).unwrap();
        assert_eq!(at.seconds_until(Timestamp::from_micros(1_000_001).unwrap()), 1);
        assert_eq!(at.seconds_until(at.plus_seconds(60)), 60);
        assert_eq!(at.plus_seconds(60).seconds_until(at), 0);
    }
}
