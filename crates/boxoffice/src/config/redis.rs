//! Settings for Redis.

use std::path::PathBuf;

use clap::Args;
use coordination::redis::RedisOptions;
use domain::Ids;

#[derive(Args)]
pub(crate) struct Redis {
    /// Redis for rate limits and locks across instances: redis://… or rediss://…; without it, they are local
    /// to each process
    #[arg(id = "redis", long = "redis", env = "BOXOFFICE_REDIS", value_name = "URL", hide_env_values = true)]
    text: Option<String>,
    /// PEM file with CA certificates for Redis; by default those of the system
    #[arg(
        id = "redis_ca",
        long = "redis-ca",
        env = "BOXOFFICE_REDIS_CA",
        value_name = "FILE",
        requires = "redis"
    )]
    ca: Option<PathBuf>,
}

/// The behaviour while Redis is unavailable.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum OnRedisDown {
    /// Continue with the guarantees of the database; each process counts rate limits on its own
    #[default]
    Database,
    /// Refuse rate-limited requests with status 503
    Refuse,
}

impl Redis {
    /// Checks the address. The parser does not, because its error would contain the password.
    pub(super) fn check(&self) -> Result<(), String> {
        self.options_for("check")?;
        if self.ca.is_some() && !self.text.as_deref().is_some_and(|text| text.starts_with("rediss://")) {
            return Err("--redis-ca requires a rediss:// address".to_owned());
        }
        Ok(())
    }

    /// Returns the options for an instance with a new random name; `None` if Redis is not configured. Reads
    /// the CA file.
    pub(crate) fn options(&self, ids: &dyn Ids) -> Result<Option<RedisOptions>, String> {
        let mut bytes = [0; 16];
        bytes[6..].copy_from_slice(&ids.random());
        let Some(options) = self.options_for(&format!("{:020x}", u128::from_be_bytes(bytes)))? else {
            return Ok(None);
        };
        let Some(file) = &self.ca else { return Ok(Some(options)) };
        let in_file = |error: String| format!("--redis-ca {}: {error}", file.display());
        let authorities = std::fs::read(file).map_err(|error| in_file(error.to_string()))?;
        options.with_authorities(&authorities).map(Some).map_err(|error| in_file(error.to_string()))
    }

    /// Returns the options for an instance with this name; `None` if Redis is not configured.
    fn options_for(&self, instance: &str) -> Result<Option<RedisOptions>, String> {
        let options = self.text.as_deref().map(|text| RedisOptions::new(text, instance));
        options.transpose().map_err(|error| format!("--redis: {error}"))
    }

    /// Returns the address without credentials.
    pub(crate) fn public(&self) -> String {
        let text = self.text.as_deref().unwrap_or_default();
        match text.split_once("://").and_then(|(scheme, rest)| Some((scheme, rest.rsplit_once('@')?.1))) {
            Some((scheme, rest)) => format!("{scheme}://{rest}"),
            None => text.to_owned(),
        }
    }
}
