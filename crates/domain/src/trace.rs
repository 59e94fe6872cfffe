//! A request's position in a distributed trace: W3C Trace Context, level 1. It is passed on for tracing
//! tools; no decision depends on it, and a value that cannot be parsed is treated as absent.

use std::fmt;
use std::str::FromStr;

/// A `traceparent`: the trace, and the span in it that caused a change.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct TraceParent(Box<str>);

/// The text is not a `traceparent`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("is not a traceparent as W3C Trace Context defines it")]
pub struct InvalidTraceParent;

/// The flag of a trace that the caller records; the only flag that level 1 defines.
const SAMPLED: u8 = 1;

impl TraceParent {
    /// The name of the HTTP header and of the message field.
    pub const NAME: &str = "traceparent";

    /// The trace id: 32 hexadecimal digits.
    pub fn trace_id(&self) -> &str {
        &self.0[3..35]
    }

    /// The whole value, in the format of version `00`.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for TraceParent {
    type Err = InvalidTraceParent;

    /// Parses version `00`, and of a later version the part that `00` defines, as the standard requires.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let mut parts = text.splitn(5, '-');
        let mut digits = |count: usize| {
            let part = parts.next().unwrap_or_default();
            let is_hex = part.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
            if part.len() == count && is_hex { Ok(part) } else { Err(InvalidTraceParent) }
        };
        let (version, trace, parent, flags) = (digits(2)?, digits(32)?, digits(16)?, digits(2)?);
        let is_nonzero = |id: &str| id.bytes().any(|byte| byte != b'0');
        let has_valid_end = version != "00" || parts.next().is_none();
        if version == "ff" || !has_valid_end || !is_nonzero(trace) || !is_nonzero(parent) {
            return Err(InvalidTraceParent);
        }
        let flags = u8::from_str_radix(flags, 16).map_err(|_| InvalidTraceParent)? & SAMPLED;
        Ok(Self(format!("00-{trace}-{parent}-{flags:02x}").into()))
    }
}

impl fmt::Display for TraceParent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
    const PARENT: &str = "00f067aa0ba902b7";

    #[test]
    fn valid_traceparents_are_parsed() {
        for (text, flags) in [
            (format!("00-{TRACE}-{PARENT}-01"), "01"),
            (format!("00-{TRACE}-{PARENT}-00"), "00"),
            (format!("00-{TRACE}-{PARENT}-ff"), "01"),
            (format!("cc-{TRACE}-{PARENT}-01"), "01"),
            (format!("cc-{TRACE}-{PARENT}-01-later-fields"), "01"),
        ] {
            let parsed: TraceParent = text.parse().expect("valid");
            assert_eq!(parsed.as_str(), format!("00-{TRACE}-{PARENT}-{flags}"), "{text}");
            assert_eq!(parsed.to_string(), parsed.as_str());
            assert_eq!(parsed.trace_id(), TRACE);
            assert_eq!(parsed.as_str().parse(), Ok(parsed.clone()), "round trip");
        }
    }

    #[test]
    fn invalid_traceparents_are_rejected() {
        let zeros = |count: usize| "0".repeat(count);
        for text in [
            String::new(),
            "-".repeat(55),
            TRACE.to_owned(),
            format!("ff-{TRACE}-{PARENT}-01"),
            format!("00-{TRACE}-{PARENT}"),
            format!("00-{TRACE}-{PARENT}-1"),
            format!("00-{TRACE}-{PARENT}-01-"),
            format!("00-{TRACE}-{PARENT}-01-more"),
            format!("cc-{TRACE}-{PARENT}-01.more"),
            format!("00-{}-{PARENT}-01", TRACE.to_uppercase()),
            format!("00-{}-{PARENT}-01", &TRACE[1..]),
            format!("00-{}-{PARENT}-01", zeros(32)),
            format!("00-{TRACE}-{}-01", zeros(16)),
            format!("00-{TRACE}-{PARENT}-0x"),
            format!("00-{TRACE}-{PARENT}-é"),
            format!(" 00-{TRACE}-{PARENT}-01"),
        ] {
            assert_eq!(TraceParent::from_str(&text), Err(InvalidTraceParent), "{text}");
        }
    }
}
