//! Parsers of command-line values.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use coordination::Rule;
use domain::{CANCEL_CUTOFF_SECONDS_MAX, HOLD_SECONDS_MAX, HOLD_SECONDS_MIN};
use http_api::auth::PublicKey;
use ipnet::IpNet;

pub(super) fn duration(text: &str) -> Result<Duration, String> {
    let invalid = |_| "must be a duration such as 90s, 15m or 1h30m".to_owned();
    let span: jiff::SignedDuration = text.parse().map_err(invalid)?;
    span.try_into().map_err(|_| "must not be negative".to_owned())
}

pub(super) fn whole_seconds(text: &str, min: u32, max: u32) -> Result<Duration, String> {
    let span = duration(text)?;
    let bounds = Duration::from_secs(min.into())..=Duration::from_secs(max.into());
    if span.subsec_nanos() == 0 && bounds.contains(&span) {
        Ok(span)
    } else {
        Err(format!("must be whole seconds, from {min} to {max}"))
    }
}

pub(super) fn hold_duration(text: &str) -> Result<Duration, String> {
    whole_seconds(text, HOLD_SECONDS_MIN, HOLD_SECONDS_MAX)
}

pub(super) fn cancel_cutoff(text: &str) -> Result<Duration, String> {
    whole_seconds(text, 0, CANCEL_CUTOFF_SECONDS_MAX)
}

pub(super) fn interval(text: &str) -> Result<Duration, String> {
    let every = duration(text)?;
    if every.is_zero() { Err("must be greater than zero".to_owned()) } else { Ok(every) }
}

/// Parses a Zipf exponent.
pub(super) fn exponent(text: &str) -> Result<f64, String> {
    let exponent = text.parse().ok().filter(|exponent| (0.0..=3.0).contains(exponent));
    exponent.ok_or_else(|| "must be a number from 0 to 3".to_owned())
}

/// Parses a network such as 10.0.0.0/8, or a single address.
pub(super) fn network(text: &str) -> Result<IpNet, String> {
    let address = text.parse::<IpAddr>().map(IpNet::from);
    address
        .or_else(|_| text.parse())
        .map_err(|_| "must be an address or a network such as 10.0.0.0/8".to_owned())
}

pub(super) fn book_limit(text: &str) -> Result<Rule, String> {
    Rule::parse("book", text).map_err(|error| error.to_string())
}

pub(super) fn cancel_limit(text: &str) -> Result<Rule, String> {
    Rule::parse("cancel", text).map_err(|error| error.to_string())
}

pub(super) fn loopback(text: &str) -> Result<SocketAddr, String> {
    let address: SocketAddr =
        text.parse().map_err(|_| "must be an address such as 127.0.0.1:8080".to_owned())?;
    let not_loopback = "must be a loopback address such as 127.0.0.1:8080; use `serve` for other addresses";
    if address.ip().is_loopback() { Ok(address) } else { Err(not_loopback.to_owned()) }
}

/// Parses the URL of a server, `http://HOST:PORT` with an IP address as host.
pub(super) fn target(url: &str) -> Result<SocketAddr, &'static str> {
    let address = url.strip_prefix("http://").unwrap_or(url).trim_end_matches('/');
    address.parse().map_err(|_| "must be an address such as http://127.0.0.1:8080")
}

pub(super) fn secret_file(path: &str) -> Result<String, String> {
    let text = std::fs::read_to_string(path).map_err(|error| error.to_string())?;
    Ok(text.trim_matches(['\r', '\n']).to_owned())
}

pub(super) fn public_key_file(path: &str) -> Result<PublicKey, String> {
    let pem = std::fs::read(path).map_err(|error| error.to_string())?;
    Ok(PublicKey::from_pem(&pem)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_parsed() {
        for (text, seconds) in [("1h", 3_600), ("90s", 90), ("15m", 900), ("1h30m", 5_400)] {
            assert_eq!(hold_duration(text), Ok(Duration::from_secs(seconds)), "{text}");
        }
        for text in ["", "soon", "-1h", "0s", "31days", "1500ms"] {
            assert!(hold_duration(text).is_err(), "{text}");
        }
    }
}
