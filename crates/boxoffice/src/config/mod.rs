//! Settings. A flag takes precedence over its environment variable, that over the configuration file, and
//! that over the default. Only this module reads any of them.

mod commands;
mod file;
mod nats;
mod operations;
mod parse;
mod redis;

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use clap::builder::Resettable;
use clap::error::ErrorKind;
use clap::{ArgMatches, Args, CommandFactory as _, FromArgMatches as _, Parser, Subcommand};
use coordination::Rule;
use domain::UserId;
use engine::Policy;
use http_api::auth::{self, ExpectedClaims, PublicKey, Tokens};
use http_api::limit::SECRET_BYTES_MIN;
use ipnet::IpNet;
use store::{PostgresUrl, UrlError};

pub(crate) use self::commands::{Backup, Bench, Completions, Demo, Doctor, Sweep, colours_allowed};
use self::nats::Nats;
pub(crate) use self::operations::Operation;
use self::parse::{
    book_limit, cancel_cutoff, cancel_limit, duration, hold_duration, interval, loopback, network,
    public_key_file, secret_file,
};
pub(crate) use self::redis::{OnRedisDown, Redis};

/// A self-hosted ticket-booking engine.
#[derive(Parser)]
#[command(name = "boxoffice", version, disable_help_subcommand = true)]
pub(crate) struct Cli {
    /// TOML file with settings; its keys are flag names without dashes
    #[arg(long, global = true, env = "BOXOFFICE_CONFIG", value_name = "FILE")]
    config: Option<PathBuf>,
    #[command(subcommand)]
    pub(crate) command: Command,
}

impl Cli {
    /// Reads the command line, the environment and the configuration file. Exits with code 2 and a message if
    /// one of them is invalid.
    pub(crate) fn read() -> Self {
        let (cli, _, _) = Self::read_with_sources();
        cli
    }

    fn read_with_sources() -> (Self, ArgMatches, file::Values) {
        let first = Self::command().ignore_errors(true).get_matches();
        let path = first.get_one::<PathBuf>("config");
        let values = path.map_or(Ok(file::Values::new()), |path| file::read(path, &Self::command()));
        let usage = |message: String| Self::command().error(ErrorKind::ValueValidation, message).exit();
        let values = values.unwrap_or_else(usage);
        let matches = file::apply(Self::command(), &values).get_matches();
        let cli = Self::from_arg_matches(&matches).unwrap_or_else(|error| error.exit());
        if let Err(message) = cli.command.check() {
            usage(message);
        }
        (cli, matches, values)
    }

    /// Returns every setting of `serve` as `[name, value, source]`. Secrets are masked.
    pub(crate) fn settings() -> Vec<[String; 3]> {
        let (_, matches, values) = Self::read_with_sources();
        let command = Self::command();
        let (name, matches) = matches.subcommand().unwrap_or_else(|| unreachable!("a command is required"));
        command
            .find_subcommand(name)
            .map_or_else(Vec::new, |command| file::effective(command, matches, &values))
    }
}

#[derive(Subcommand)]
pub(crate) enum Command {
    /// Run a server on this machine only, with a sample event, tokens and commands to try
    Dev(Dev),
    /// Run the server
    Serve(Serve),
    /// Recompute every count from bookings and ledger, and list violations
    Audit(Audit),
    /// Simulate an on-sale in this process with many buyers and few tickets, and audit the result
    Demo(Demo),
    /// Expire overdue bookings once
    Sweep(Sweep),
    /// Copy the SQLite file, even of a running server, and audit the copy
    Backup(Backup),
    /// Measure running servers under load, and compare their counters with the responses
    Bench(Bench),
    /// Check the database, Redis and NATS, and print the next step for each problem
    Doctor(Doctor),
    /// Migrate the database to the current schema
    Migrate(Migrate),
    /// Print the OpenAPI 3.1 description of the HTTP API
    Openapi,
    /// Print the AsyncAPI 3 description of the NATS interface
    Asyncapi,
    /// Sign a token
    Token(Token),
    /// Print every setting of `serve` with its value and source
    Config(Config),
    /// Print shell completions
    Completions(Completions),
}

impl Command {
    /// Returns the database of the command.
    fn database(&self) -> Option<&Database> {
        match self {
            Self::Serve(Serve { database, .. })
            | Self::Audit(Audit { database, .. })
            | Self::Sweep(Sweep { database, .. })
            | Self::Backup(Backup { database, .. })
            | Self::Doctor(Doctor { database, .. })
            | Self::Migrate(Migrate { database, .. })
            | Self::Config(Config { serve: Serve { database, .. }, .. }) => Some(database),
            Self::Dev(_)
            | Self::Demo(_)
            | Self::Bench(_)
            | Self::Openapi
            | Self::Asyncapi
            | Self::Token(_)
            | Self::Completions(_) => None,
        }
    }

    /// Returns the Redis and NATS settings of the command.
    fn servers(&self) -> Option<(&Redis, &Nats)> {
        match self {
            Self::Serve(Serve { redis, nats, .. })
            | Self::Doctor(Doctor { redis, nats, .. })
            | Self::Config(Config { serve: Serve { redis, nats, .. }, .. }) => Some((redis, nats)),
            Self::Dev(_)
            | Self::Audit(_)
            | Self::Demo(_)
            | Self::Sweep(_)
            | Self::Backup(_)
            | Self::Bench(_)
            | Self::Migrate(_)
            | Self::Openapi
            | Self::Asyncapi
            | Self::Token(_)
            | Self::Completions(_) => None,
        }
    }

    /// Checks what clap cannot: values without their content in the error, and combinations of values.
    fn check(&self) -> Result<(), String> {
        if let Some(database) = self.database() {
            database.check()?;
        }
        if let Some((redis, nats)) = self.servers() {
            redis.check()?;
            nats.check()?;
        }
        if let Self::Bench(bench) = self {
            bench.database()?;
        }
        match self {
            Self::Serve(Serve { identity: Identity { secret, .. }, .. })
            | Self::Token(Token { secret, .. })
            | Self::Bench(Bench { secret, .. })
                if secret.all().iter().any(|secret| secret.len() < SECRET_BYTES_MIN) =>
            {
                // Checked here and not by the parser, whose error would contain the secret.
                Err(format!(
                    "--jwt-secret must have at least {SECRET_BYTES_MIN} bytes; try `openssl rand -base64 32`"
                ))
            }
            Self::Serve(Serve { identity, .. }) if identity.is_empty() => {
                Err("no key to verify tokens: set --jwt-secret, --jwt-secret-file or --jwt-public-key-file"
                    .into())
            }
            Self::Token(Token { secret, .. }) | Self::Bench(Bench { secret, .. })
                if secret.all().is_empty() =>
            {
                Err("no secret to sign with: set --jwt-secret or --jwt-secret-file".into())
            }
            Self::Serve(_)
            | Self::Token(_)
            | Self::Bench(_)
            | Self::Dev(_)
            | Self::Audit(_)
            | Self::Migrate(_)
            | Self::Openapi
            | Self::Asyncapi
            | Self::Demo(_)
            | Self::Sweep(_)
            | Self::Backup(_)
            | Self::Doctor(_)
            | Self::Completions(_)
            | Self::Config(_) => Ok(()),
        }
    }
}

#[derive(Args)]
pub(crate) struct Dev {
    /// Address to listen on; loopback only [default: 127.0.0.1:8080, or a free port if 8080 is in use]
    #[arg(long, env = "BOXOFFICE_LISTEN", value_name = "ADDRESS", value_parser = loopback)]
    pub(crate) listen: Option<SocketAddr>,
    /// Directory for the data [default: a temporary directory, deleted on exit]
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
    pub(crate) identity: Identity,
    #[command(flatten)]
    pub(crate) redis: Redis,
    /// Behaviour while Redis is unavailable
    #[arg(long, env = "BOXOFFICE_ON_REDIS_DOWN", value_enum, default_value_t)]
    pub(crate) on_redis_down: OnRedisDown,
    #[command(flatten)]
    pub(crate) nats: Nats,
    /// Time in which bookings must be paid; default for new events
    #[arg(long, env = "BOXOFFICE_HOLD", default_value = "1h", value_parser = hold_duration)]
    hold: Duration,
    /// Time before the start of an event from which users cannot cancel paid bookings; default for new events
    #[arg(long, env = "BOXOFFICE_CANCEL_CUTOFF", default_value = "24h", value_parser = cancel_cutoff)]
    cancel_cutoff: Duration,
    /// Booking attempts per user, as COUNT/WINDOW
    #[arg(long, env = "BOXOFFICE_BOOK_LIMIT", default_value = "5/10s", value_parser = book_limit)]
    book_limit: Rule,
    /// Cancellation attempts per user, as COUNT/WINDOW
    #[arg(long, env = "BOXOFFICE_CANCEL_LIMIT", default_value = "3/30s", value_parser = cancel_limit)]
    cancel_limit: Rule,
    /// Interval at which overdue bookings are expired
    #[arg(long, env = "BOXOFFICE_SWEEP_EVERY", default_value = "30s", value_parser = interval)]
    pub(crate) sweep_every: Duration,
    /// Time for requests in progress to complete on shutdown
    #[arg(long, env = "BOXOFFICE_SHUTDOWN_TIMEOUT", default_value = "20s", value_parser = duration)]
    pub(crate) shutdown_timeout: Duration,
    /// Do not migrate the database; refuse to start if its schema is outdated
    #[arg(long)]
    pub(crate) no_migrate: bool,
    /// Separate address for /metrics, which is then not served on the main address
    #[arg(long, env = "BOXOFFICE_METRICS_LISTEN")]
    pub(crate) metrics_listen: Option<SocketAddr>,
    /// Addresses or networks of proxies whose X-Forwarded-For is trusted, separated by commas
    #[arg(long, env = "BOXOFFICE_TRUSTED_PROXIES", value_delimiter = ',', value_parser = network)]
    pub(crate) trusted_proxies: Vec<IpNet>,
    /// Minimum log level: error, warn, info, debug or trace
    #[arg(long, env = "BOXOFFICE_LOG", default_value = "info")]
    pub(crate) log: tracing::Level,
    /// Log format
    #[arg(long, env = "BOXOFFICE_LOG_FORMAT", value_enum, default_value_t)]
    pub(crate) log_format: LogFormat,
}

/// The format of log messages.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum LogFormat {
    /// Human-readable
    #[default]
    Text,
    /// One JSON object per line
    Json,
}

/// The role of a user.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Role {
    /// Books tickets, and sees its own bookings
    #[default]
    User,
    /// A trusted program: confirms payments; books and cancels for any user
    Service,
    /// An organiser or operator: all operations
    Admin,
}

impl From<Role> for auth::Role {
    fn from(role: Role) -> Self {
        match role {
            Role::User => Self::User,
            Role::Service => Self::Service,
            Role::Admin => Self::Admin,
        }
    }
}

impl Serve {
    /// Returns the settings for bookings.
    pub(crate) fn policy(&self) -> Policy {
        let seconds = |duration: Duration| u32::try_from(duration.as_secs()).unwrap_or(u32::MAX);
        Policy {
            hold_seconds: seconds(self.hold),
            cancel_cutoff_seconds: seconds(self.cancel_cutoff),
            book: self.book_limit,
            cancel: self.cancel_limit,
        }
    }
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
    /// Print the result as JSON
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Args)]
pub(crate) struct Token {
    /// User id (subject): 1 to 128 characters of A-Z a-z 0-9 . _ : @ -
    #[arg(long, value_name = "USER")]
    pub(crate) sub: UserId,
    /// Role of the user
    #[arg(long, value_enum, default_value_t)]
    pub(crate) role: Role,
    /// Lifetime of the token
    #[arg(long, default_value = "1h", value_parser = duration)]
    pub(crate) ttl: Duration,
    #[command(flatten)]
    pub(crate) secret: Secret,
}

#[derive(Args)]
pub(crate) struct Database {
    /// Database: `sqlite://FILE`, or `postgres://USER:PASSWORD@HOST/NAME` for many instances
    #[arg(
        id = "database",
        long = "database",
        env = "BOXOFFICE_DATABASE",
        hide_env_values = true,
        default_value = "sqlite://boxoffice.db",
        value_name = "URL"
    )]
    text: String,
}

impl Database {
    /// Checks the address. The parser does not, because its error would contain the password.
    fn check(&self) -> Result<(), String> {
        DatabaseUrl::from_str(&self.text).map(drop).map_err(|error| format!("--database {error}"))
    }

    /// Returns the parsed address.
    pub(crate) fn url(&self) -> DatabaseUrl {
        self.text.parse().unwrap_or_else(|_| unreachable!("checked when the command line was read"))
    }
}

#[derive(Args)]
pub(crate) struct Config {
    /// Print the settings as JSON
    #[arg(long)]
    pub(crate) json: bool,
    #[command(flatten)]
    serve: Serve,
}

#[derive(Args)]
pub(crate) struct Secret {
    /// Secret that signs tokens (HS256), at least 32 bytes; to rotate, give two: the first signs
    #[arg(long, env = "BOXOFFICE_JWT_SECRET", hide_env_values = true)]
    jwt_secret: Vec<String>,
    /// File with the secret; leading and trailing line breaks are ignored
    #[arg(long, env = "BOXOFFICE_JWT_SECRET_FILE", value_name = "FILE", value_parser = secret_file)]
    jwt_secret_file: Vec<String>,
}

impl Secret {
    fn all(&self) -> Vec<Vec<u8>> {
        self.jwt_secret
            .iter()
            .chain(&self.jwt_secret_file)
            .map(|secret| secret.clone().into_bytes())
            .collect()
    }

    /// Returns tokens that are signed and verified with these secrets only.
    pub(crate) fn tokens(&self) -> Tokens {
        Tokens::new(&self.all(), &[], &ExpectedClaims::default())
    }
}

#[derive(Args)]
pub(crate) struct Identity {
    #[command(flatten)]
    secret: Secret,
    /// PEM file with a public key that verifies tokens: RSA (RS256), P-256 (ES256) or Ed25519 (EdDSA); to
    /// rotate, give two
    #[arg(long, env = "BOXOFFICE_JWT_PUBLIC_KEY_FILE", value_name = "FILE", value_parser = public_key_file)]
    jwt_public_key_file: Vec<PublicKey>,
    /// Required issuer of tokens; not checked by default
    #[arg(long, env = "BOXOFFICE_JWT_ISSUER")]
    jwt_issuer: Option<String>,
    /// Required audience of tokens; not checked by default
    #[arg(long, env = "BOXOFFICE_JWT_AUDIENCE")]
    jwt_audience: Option<String>,
}

impl Identity {
    fn is_empty(&self) -> bool {
        self.secret.all().is_empty() && self.jwt_public_key_file.is_empty()
    }

    /// Returns tokens that are verified with any of the secrets and keys.
    pub(crate) fn tokens(&self) -> Tokens {
        let expected =
            ExpectedClaims { issuer: self.jwt_issuer.clone(), audience: self.jwt_audience.clone() };
        Tokens::new(&self.secret.all(), &self.jwt_public_key_file, &expected)
    }
}

/// The address of a database. `Display` masks the password.
#[derive(Clone, Debug)]
pub(crate) enum DatabaseUrl {
    /// A file, used by one process.
    Sqlite(PathBuf),
    /// A server, shared by many instances.
    Postgres(Box<PostgresUrl>),
}

impl FromStr for DatabaseUrl {
    type Err = String;

    fn from_str(url: &str) -> Result<Self, String> {
        if url.starts_with("postgres") {
            return url
                .parse()
                .map(Box::new)
                .map(Self::Postgres)
                .map_err(|error: UrlError| error.to_string());
        }
        match url.strip_prefix("sqlite://") {
            Some("") | None => Err("must be sqlite://FILE or postgres://…".to_owned()),
            Some(path) => Ok(Self::Sqlite(path.into())),
        }
    }
}

impl fmt::Display for DatabaseUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Sqlite(file) => write!(f, "sqlite://{}", file.display()),
            Self::Postgres(url) => url.fmt(f),
        }
    }
}

/// Returns the settings for bookings of `dev` and `demo`: the defaults of `serve`.
pub(crate) fn default_policy() -> Policy {
    let arguments = ["boxoffice", "serve", "--jwt-secret", "not used, but required by the parser"];
    // These commands take no settings, so the environment is ignored.
    let without_environment = |command: clap::Command| command.mut_args(|each| each.env(Resettable::Reset));
    let matches = Cli::command().mut_subcommand("serve", without_environment).try_get_matches_from(arguments);
    match matches.and_then(|matches| Cli::from_arg_matches(&matches)).map(|cli| cli.command) {
        Ok(Command::Serve(serve)) => serve.policy(),
        Ok(_) | Err(_) => unreachable!("the defaults are valid"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_definition_is_valid() {
        Cli::command().debug_assert();
    }

    #[test]
    fn the_defaults_are_the_documented_ones() {
        let Policy { hold_seconds, cancel_cutoff_seconds, book, cancel } = default_policy();
        assert_eq!((hold_seconds, cancel_cutoff_seconds), (3_600, 86_400));
        assert_eq!((book.to_string().as_str(), cancel.to_string().as_str()), ("5/10s", "3/30s"));
    }
}
