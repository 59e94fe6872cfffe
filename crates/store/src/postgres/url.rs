//! The URL of a PostgreSQL database, and its form without the password.

use std::fmt;
use std::str::FromStr;

use tokio_postgres::Config;
use tokio_postgres::config::{SslMode, TargetSessionAttrs};

use super::tls::{Roots, Tls, Trust};

use crate::limit::{CONNECT_MAX, KEEPALIVE_IDLE};

/// A URL `postgres://USER:PASSWORD@HOST:PORT/DATABASE?sslmode=…` as in libpq. `Display` and `Debug` mask the
/// password.
///
/// `sslmode` is one of `disable`, `prefer` (the default), `require`, `verify-ca` and `verify-full`, with the
/// meaning that it has in libpq; `sslrootcert` is a file of certificates in PEM, or `system` (the default if
/// certificates are verified). Client certificates and password files are not supported.
#[derive(Clone)]
pub struct PostgresUrl {
    masked: String,
    pub(super) config: Config,
    pub(super) tls: Tls,
}

/// The reason why a text is not a URL of PostgreSQL. It does not quote the text, which may contain a
/// password.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct UrlError(String);

impl FromStr for PostgresUrl {
    type Err = UrlError;

    fn from_str(url: &str) -> Result<Self, UrlError> {
        if !is_postgres(url) {
            return Err(UrlError("must begin with postgres:// or postgresql://".to_owned()));
        }
        let (bare, mode, roots) = take_tls_parameters(url);
        let trust = trust(mode.as_deref(), roots.is_some())?;
        let roots = match roots.as_deref() {
            None | Some("system") => Roots::System,
            Some(path) => Roots::File(path.into()),
        };
        let mut config: Config = bare.parse().map_err(|error: tokio_postgres::Error| {
            use std::error::Error as _;
            let cause = error.source().map(|cause| format!(": {cause}")).unwrap_or_default();
            UrlError(format!("{error}{cause}"))
        })?;
        config.ssl_mode(match mode.as_deref() {
            Some("disable") => SslMode::Disable,
            None | Some("prefer") => SslMode::Prefer,
            Some(_) => SslMode::Require,
        });
        if config.get_connect_timeout().is_none() {
            config.connect_timeout(CONNECT_MAX);
        }
        config.keepalives_idle(KEEPALIVE_IDLE);
        config.target_session_attrs(TargetSessionAttrs::ReadWrite);
        Ok(Self { masked: masked(url), config, tls: Tls { trust, roots } })
    }
}

impl fmt::Display for PostgresUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.masked)
    }
}

impl fmt::Debug for PostgresUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.masked)
    }
}

/// True if a URL has the scheme of PostgreSQL.
fn is_postgres(url: &str) -> bool {
    url.starts_with("postgres://") || url.starts_with("postgresql://")
}

/// Splits off the TLS parameters that the driver does not support. Returns the URL without them, the mode and
/// the root certificates.
fn take_tls_parameters(url: &str) -> (String, Option<String>, Option<String>) {
    let Some((base, query)) = url.split_once('?') else { return (url.to_owned(), None, None) };
    let (mut mode, mut roots, mut rest) = (None, None, Vec::new());
    for pair in query.split('&') {
        match pair.split_once('=') {
            Some(("sslmode", value)) => mode = Some(percent_decode(value)),
            Some(("sslrootcert", value)) => roots = Some(percent_decode(value)),
            Some(_) | None => rest.push(pair),
        }
    }
    let joint = if rest.is_empty() { "" } else { "?" };
    (format!("{base}{joint}{}", rest.join("&")), mode, roots)
}

/// The verification of the server's certificate that an `sslmode` of libpq requires.
fn trust(mode: Option<&str>, has_roots: bool) -> Result<Trust, UrlError> {
    match mode {
        // As in libpq: if root certificates are given, they are used.
        Some("require") if has_roots => Ok(Trust::Chain),
        None | Some("disable" | "prefer" | "require") => Ok(Trust::Unverified),
        Some("verify-ca") => Ok(Trust::Chain),
        Some("verify-full") => Ok(Trust::ChainAndName),
        Some(_) => {
            Err(UrlError("sslmode must be disable, prefer, require, verify-ca or verify-full".to_owned()))
        }
    }
}

/// Decodes percent-encoding.
fn percent_decode(value: &str) -> String {
    let mut bytes = Vec::with_capacity(value.len());
    let mut rest = value.as_bytes();
    while let [first, tail @ ..] = rest {
        let hex = tail.get(..2).and_then(|hex| std::str::from_utf8(hex).ok());
        let byte = hex.filter(|_| *first == b'%').and_then(|hex| u8::from_str_radix(hex, 16).ok());
        bytes.push(byte.unwrap_or(*first));
        rest = if byte.is_some() { &tail[2..] } else { tail };
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// A URL with its passwords masked, for output and logs. It may be malformed.
pub fn masked(url: &str) -> String {
    const MASK: &str = "********";
    let Some((scheme, rest)) = url.split_once("://") else { return url.to_owned() };
    // The last "@": a password that is not properly encoded may contain one.
    let (user, rest) = match rest.rsplit_once('@') {
        Some((user, rest)) => (Some(user), rest),
        None => (None, rest),
    };
    let user = user.map(|user| match user.split_once(':') {
        Some((name, _)) => format!("{name}:{MASK}@"),
        None => format!("{user}@"),
    });
    let hidden = |pair: &str| match pair.split_once('=') {
        Some((name @ ("password" | "sslpassword"), _)) => format!("{name}={MASK}"),
        Some(_) | None => pair.to_owned(),
    };
    let rest = match rest.split_once('?') {
        Some((base, query)) => {
            format!("{base}?{}", query.split('&').map(hidden).collect::<Vec<_>>().join("&"))
        }
        None => rest.to_owned(),
    };
    format!("{scheme}://{}{rest}", user.unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sslmodes_match_libpq() {
        for (query, mode, trust) in [
            ("", SslMode::Prefer, Trust::Unverified),
            ("?sslmode=disable", SslMode::Disable, Trust::Unverified),
            ("?sslmode=prefer", SslMode::Prefer, Trust::Unverified),
            ("?sslmode=require", SslMode::Require, Trust::Unverified),
            ("?sslmode=require&sslrootcert=%2Fetc%2Froot.pem", SslMode::Require, Trust::Chain),
            ("?sslmode=verify-ca", SslMode::Require, Trust::Chain),
            ("?application_name=x&sslmode=verify-full", SslMode::Require, Trust::ChainAndName),
        ] {
            let url: PostgresUrl = format!("postgres://box@db.example/tickets{query}").parse().unwrap();
            assert_eq!((url.config.get_ssl_mode(), url.tls.trust), (mode, trust), "{query}");
        }
        let url: PostgresUrl =
            "postgres://h/d?sslmode=require&sslrootcert=%2Fetc%2Froot.pem".parse().unwrap();
        assert!(matches!(&url.tls.roots, Roots::File(path) if path.as_os_str() == "/etc/root.pem"));
        for wrong in ["postgres://h/d?sslmode=verify", "postgres://h/d?sslcert=x", "mysql://h/d", "h"] {
            assert!(wrong.parse::<PostgresUrl>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn passwords_are_masked() {
        for (url, shown) in [
            ("postgres://box:secret@h:5432/d", "postgres://box:********@h:5432/d"),
            ("postgres://box:se@cr/et@h/d?a=b", "postgres://box:********@h/d?a=b"),
            ("postgres://box@h/d?password=secret&a=b", "postgres://box@h/d?password=********&a=b"),
            ("postgres://h/d", "postgres://h/d"),
            ("sqlite://a.db", "sqlite://a.db"),
        ] {
            assert_eq!(masked(url), shown);
        }
        let url: PostgresUrl = "postgres://box:secret@h/d?password=secret".parse().unwrap();
        assert!(!format!("{url} {url:?} {:?}", url.config).contains("secret"));
        let wrong = "postgres://box:secret@h/d?sslmode=secret".parse::<PostgresUrl>().unwrap_err();
        assert!(!format!("{wrong} {wrong:?}").contains("secret"));
    }
}
