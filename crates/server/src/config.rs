//! What the operator says: flags, each with an environment variable. The only place that reads either.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};
use coordination::Rule;
use domain::{CANCEL_CUTOFF_SECONDS_MAX, HOLD_SECONDS_MAX, HOLD_SECONDS_MIN, UserId};
use engine::Policy;

use crate::auth::Role;
use crate::limit::SECRET_BYTES_MIN;

/// A self-hosted ticket-booking engine.
#[derive(Parser)]
#[command(name = "boxoffice", version, disable_help_subcommand = true)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Subcommand)]
pub(crate) enum Command {
    /// Try it out: everything in one process on this machine, with a sample event and tokens
    Dev(Dev),
    /// Sell tickets
    Serve(Serve),
    /// Derive every count again from bookings and ledger, and compare
    Audit(Audit),
    /// Bring the database up to date
    Migrate(Migrate),
    /// Sign a token
    Token(Token),
}

#[derive(Args)]
pub(crate) struct Dev {
    /// Address to listen on; only this machine's own
    #[arg(long, env = "BOXOFFICE_LISTEN", default_value = "127.0.0.1:8080", value_parser = loopback)]
    pub(crate) listen: SocketAddr,
    /// Keep the data in this directory; a temporary one, removed at the end, without it
    #[arg(long, value_name = "DIR")]
    pub(crate) data: Option<PathBuf>,
}

#[derive(Args)]
pub(crate) struct Serve {
    /// Address to listen on
    #[arg(long, env = "BOXOFFICE_LISTEN", default_value = "127.0.0.1:8080")]
    pub(crate) listen: SocketAddr,
    #[command(flatten)]
    pub(crate) database: Database,
    #[command(flatten)]
    pub(crate) secret: Secret,
    /// How long a booking of a new event may stay unpaid, where the event does not say
    #[arg(long, env = "BOXOFFICE_HOLD", default_value = "1h", value_parser = hold)]
    pub(crate) hold: Duration,
    /// How long before the start a user may last give back a paid booking of a new event, where it does not say
    #[arg(long, env = "BOXOFFICE_CANCEL_CUTOFF", default_value = "24h", value_parser = cutoff)]
    pub(crate) cancel_cutoff: Duration,
    /// How long requests under way may take to finish when the program is told to stop
    #[arg(long, env = "BOXOFFICE_SHUTDOWN_TIMEOUT", default_value = "20s", value_parser = duration)]
    pub(crate) shutdown_timeout: Duration,
    /// Refuse to start on a database that is not up to date, instead of bringing it up to date
    #[arg(long)]
    pub(crate) no_migrate: bool,
    /// Least severe messages to log: error, warn, info, debug or trace
    #[arg(long, env = "BOXOFFICE_LOG", default_value = "info")]
    pub(crate) log: tracing::Level,
}

#[derive(Args)]
pub(crate) struct Audit {
    #[command(flatten)]
    pub(crate) database: Database,
    /// Print the report as JSON
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Args)]
pub(crate) struct Migrate {
    #[command(flatten)]
    pub(crate) database: Database,
}

#[derive(Args)]
pub(crate) struct Token {
    /// Whom the token speaks for: 1 to 128 characters of A-Z a-z 0-9 . _ : @ -
    #[arg(long, value_name = "USER")]
    pub(crate) sub: UserId,
    /// What its bearer may do
    #[arg(long, value_enum, default_value_t)]
    pub(crate) role: Role,
    /// How long it is valid
    #[arg(long, default_value = "1h", value_parser = duration)]
    pub(crate) ttl: Duration,
    #[command(flatten)]
    pub(crate) secret: Secret,
}

#[derive(Args)]
pub(crate) struct Database {
    /// Where bookings are kept: `sqlite://FILE`
    #[arg(
        long = "database",
        env = "BOXOFFICE_DATABASE",
        default_value = "sqlite://boxoffice.db",
        value_name = "URL"
    )]
    pub(crate) file: SqliteFile,
}

#[derive(Args)]
#[group(required = true, multiple = false)]
pub(crate) struct Secret {
    /// The secret that signs tokens, at least 32 bytes
    #[arg(long, env = "BOXOFFICE_JWT_SECRET", hide_env_values = true, value_parser = secret)]
    jwt_secret: Option<String>,
    /// A file that holds the secret; line ends around it do not count
    #[arg(long, env = "BOXOFFICE_JWT_SECRET_FILE", value_name = "FILE", value_parser = secret_file)]
    jwt_secret_file: Option<String>,
}

impl Secret {
    pub(crate) fn bytes(&self) -> &[u8] {
        self.jwt_secret.as_ref().or(self.jwt_secret_file.as_ref()).map_or(&[], |secret| secret.as_bytes())
    }
}

/// The path in `sqlite://FILE`.
#[derive(Clone, Debug)]
pub(crate) struct SqliteFile(pub(crate) PathBuf);

impl FromStr for SqliteFile {
    type Err = &'static str;

    fn from_str(url: &str) -> Result<Self, Self::Err> {
        match url.strip_prefix("sqlite://") {
            Some("") | None => Err("must be sqlite://FILE"),
            Some(path) => Ok(Self(path.into())),
        }
    }
}

/// What the operator decides about bookings.
pub(crate) fn policy(hold: Duration, cancel_cutoff: Duration) -> Policy {
    let seconds = |duration: Duration| u32::try_from(duration.as_secs()).unwrap_or(u32::MAX);
    let rule = |name, limit, seconds| {
        let rule = Rule::new(name, limit, Duration::from_secs(seconds));
        rule.unwrap_or_else(|error| unreachable!("the default limits are valid: {error}"))
    };
    Policy {
        hold_seconds: seconds(hold),
        cancel_cutoff_seconds: seconds(cancel_cutoff),
        book: rule("book", 5, 10),
        cancel: rule("cancel", 3, 30),
    }
}

fn duration(text: &str) -> Result<Duration, String> {
    let wrong = |_| "must be a length of time such as 90s, 15m or 1h30m".to_owned();
    let span: jiff::SignedDuration = text.parse().map_err(wrong)?;
    span.try_into().map_err(|_| "must not be negative".to_owned())
}

fn whole_seconds(text: &str, min: u32, max: u32) -> Result<Duration, String> {
    let span = duration(text)?;
    let bounds = Duration::from_secs(min.into())..=Duration::from_secs(max.into());
    if span.subsec_nanos() == 0 && bounds.contains(&span) {
        Ok(span)
    } else {
        Err(format!("must be whole seconds, from {min} to {max}"))
    }
}

fn hold(text: &str) -> Result<Duration, String> {
    whole_seconds(text, HOLD_SECONDS_MIN, HOLD_SECONDS_MAX)
}

fn cutoff(text: &str) -> Result<Duration, String> {
    whole_seconds(text, 0, CANCEL_CUTOFF_SECONDS_MAX)
}

fn loopback(text: &str) -> Result<SocketAddr, String> {
    let address: SocketAddr =
        text.parse().map_err(|_| "must be an address such as 127.0.0.1:8080".to_owned())?;
    let reachable =
        "must be an address of this machine only, such as 127.0.0.1:8080; `serve` may listen elsewhere";
    if address.ip().is_loopback() { Ok(address) } else { Err(reachable.to_owned()) }
}

fn secret(text: &str) -> Result<String, String> {
    if text.len() < SECRET_BYTES_MIN {
        return Err(format!("must have at least {SECRET_BYTES_MIN} bytes; try `openssl rand -base64 32`"));
    }
    Ok(text.to_owned())
}

fn secret_file(path: &str) -> Result<String, String> {
    let text = std::fs::read_to_string(path).map_err(|error| error.to_string())?;
    secret(text.trim_matches(['\r', '\n']))
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_command_line_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn lengths_of_time_are_read_as_people_write_them() {
        for (text, seconds) in [("1h", 3_600), ("90s", 90), ("15m", 900), ("1h30m", 5_400)] {
            assert_eq!(hold(text), Ok(Duration::from_secs(seconds)), "{text}");
        }
        for text in ["", "soon", "-1h", "0s", "31days", "1500ms"] {
            assert!(hold(text).is_err(), "{text}");
        }
    }
}
