//! The rule of a rate limit: attempts per window.

use std::fmt;
use std::time::Duration;

use crate::limit::{RULE_LIMIT_MAX, RULE_NAME_BYTES_MAX, RULE_WINDOW_MAX};

/// At most `limit` admissions in any window of length `window`, wherever it begins.
///
/// Invariants: the name is 1 to 32 characters of `a–z 0–9 _`, the limit within `1..=`[`Rule::LIMIT_MAX`], the
/// window a whole number of microseconds from 1 µs to 24 h. Admissions are counted per name and key, so two
/// rules of one limiter need two names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rule {
    name: &'static str,
    limit: u16,
    window_micros: u64,
}

impl Rule {
    /// Maximum limit.
    pub const LIMIT_MAX: u16 = RULE_LIMIT_MAX;

    /// A rule of valid parts. [`InvalidRule`] identifies the first invalid one.
    pub fn new(name: &'static str, limit: u16, window: Duration) -> Result<Self, InvalidRule> {
        let name_fits = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_';
        if !(1..=RULE_NAME_BYTES_MAX).contains(&name.len()) || !name.bytes().all(name_fits) {
            return Err(InvalidRule::Name);
        }
        if !(1..=Self::LIMIT_MAX).contains(&limit) {
            return Err(InvalidRule::Limit);
        }
        if window.is_zero() || window > RULE_WINDOW_MAX || !window.subsec_nanos().is_multiple_of(1_000) {
            return Err(InvalidRule::Window);
        }
        let window_micros = u64::try_from(window.as_micros()).map_err(|_| InvalidRule::Window)?;
        Ok(Self { name, limit, window_micros })
    }

    /// Parses `<limit>/<number><unit>` with a unit of `us`, `ms`, `s`, `m` or `h`, for example `5/10s`.
    ///
    /// [`InvalidRule::Syntax`] for any other form, otherwise the errors of [`Rule::new`].
    pub fn parse(name: &'static str, text: &str) -> Result<Self, InvalidRule> {
        let (limit, window) = text.split_once('/').ok_or(InvalidRule::Syntax)?;
        let unit_at = window.find(|c: char| !c.is_ascii_digit()).ok_or(InvalidRule::Syntax)?;
        let (count, unit) = window.split_at(unit_at);
        let micros_per_unit: u64 = match unit {
            "us" => 1,
            "ms" => 1_000,
            "s" => 1_000_000,
            "m" => 60_000_000,
            "h" => 3_600_000_000,
            _ => return Err(InvalidRule::Syntax),
        };
        let micros = number(count)?.checked_mul(micros_per_unit).ok_or(InvalidRule::Window)?;
        let limit = u16::try_from(number(limit)?).map_err(|_| InvalidRule::Limit)?;
        Self::new(name, limit, Duration::from_micros(micros))
    }

    /// The name, as used in keys and metrics.
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// Admissions per window, `1..=`[`Rule::LIMIT_MAX`].
    pub fn limit(&self) -> u16 {
        self.limit
    }

    /// Length of the window, from 1 µs to 24 h, in whole microseconds.
    pub fn window(&self) -> Duration {
        Duration::from_micros(self.window_micros)
    }

    /// The window in microseconds, the unit limiters count in.
    pub fn window_micros(&self) -> u64 {
        self.window_micros
    }
}

/// Parses one or more digits; no sign, no white space.
fn number(digits: &str) -> Result<u64, InvalidRule> {
    if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(InvalidRule::Syntax);
    }
    digits.parse().map_err(|_| InvalidRule::Syntax)
}

/// `limit/window` in the form of [`Rule::parse`], in the largest unit that divides the window.
impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let units = [(3_600_000_000, "h"), (60_000_000, "m"), (1_000_000, "s"), (1_000, "ms")];
        let divides = |(size, _): &(u64, &str)| self.window_micros.is_multiple_of(*size);
        let (size, unit) = units.into_iter().find(divides).unwrap_or((1, "us"));
        write!(f, "{}/{}{unit}", self.limit, self.window_micros / size)
    }
}

/// An invalid part of a [`Rule`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum InvalidRule {
    /// The name is empty, too long or contains a character outside `a–z 0–9 _`.
    #[error("a rule's name is 1 to 32 characters of a-z, 0-9 and _")]
    Name,
    /// The limit is zero or above [`Rule::LIMIT_MAX`].
    #[error("a rule's limit is from 1 to {}", Rule::LIMIT_MAX)]
    Limit,
    /// The window is zero, longer than a day or not a whole number of microseconds.
    #[error("a rule's window is from 1us to 24h")]
    Window,
    /// The text is not `<limit>/<number><unit>`.
    #[error("a rule has the form <limit>/<number><us|ms|s|m|h>, for example 5/10s")]
    Syntax,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_display_as_they_parse() {
        for text in ["5/10s", "3/30s", "1/1us", "512/24h", "7/1500ms", "2/90m"] {
            assert_eq!(Rule::parse("r", text).unwrap().to_string(), text);
        }
        assert_eq!(Rule::parse("r", "5/60000ms").unwrap().to_string(), "5/1m");
        assert_eq!(Rule::parse("r", "5/10s").unwrap().window_micros(), 10_000_000);
    }

    #[test]
    fn invalid_rules_are_rejected() {
        use InvalidRule::{Limit, Name, Syntax, Window};
        let table = [
            ("", Syntax),
            ("5", Syntax),
            ("5/10", Syntax),
            ("5/s", Syntax),
            ("/10s", Syntax),
            ("+5/10s", Syntax),
            ("5/-1s", Syntax),
            ("5/10 s", Syntax),
            ("5/10d", Syntax),
            ("5/10s/1", Syntax),
            ("99999999999999999999/1s", Syntax),
            ("0/10s", Limit),
            ("513/10s", Limit),
            ("70000/10s", Limit),
            ("5/0s", Window),
            ("5/25h", Window),
            ("5/18446744073709551615h", Window),
        ];
        for (text, error) in table {
            assert_eq!(Rule::parse("r", text), Err(error), "{text:?}");
        }
        assert_eq!(Rule::new("r:x", 1, Duration::from_secs(1)), Err(Name));
        assert_eq!(Rule::new("", 1, Duration::from_secs(1)), Err(Name));
        assert_eq!(Rule::new("r", 1, Duration::from_nanos(1_500)), Err(Window));
    }
}
