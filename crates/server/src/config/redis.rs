//! How Redis is reached.

use std::path::PathBuf;

use clap::Args;
use coordination::redis::RedisOptions;
use domain::Ids;

#[derive(Args)]
pub(crate) struct Redis {
    /// Redis for limits and locks that hold across processes: redis://… or rediss://…; in this process when unset
    #[arg(id = "redis", long = "redis", env = "BOXOFFICE_REDIS", value_name = "URL", hide_env_values = true)]
    text: Option<String>,
    /// The authorities that the certificate of Redis is checked with, in PEM; the system's when unset
    #[arg(
        id = "redis_ca",
        long = "redis-ca",
        env = "BOXOFFICE_REDIS_CA",
        value_name = "FILE",
        requires = "redis"
    )]
    ca: Option<PathBuf>,
}

/// What becomes of requests while Redis is away.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum OnRedisDown {
    /// Go on under the database's guards; each process counts attempts for itself.
    #[default]
    Database,
    /// Refuse what is limited, with 503.
    Refuse,
}

impl Redis {
    /// What is wrong with the address. Said here and not by the parser, which would repeat a password.
    pub(super) fn check(&self) -> Result<(), String> {
        self.named("check")?;
        if self.ca.is_some() && !self.text.as_deref().is_some_and(|text| text.starts_with("rediss://")) {
            return Err("--redis-ca is for an address that begins with rediss://".to_owned());
        }
        Ok(())
    }

    /// How to reach it, for an instance with a fresh name; `None` where there is no Redis. Reads the file of
    /// authorities.
    pub(crate) fn options(&self, ids: &dyn Ids) -> Result<Option<RedisOptions>, String> {
        let mut wide = [0; 16];
        wide[6..].copy_from_slice(&ids.random());
        let Some(options) = self.named(&format!("{:020x}", u128::from_be_bytes(wide)))? else {
            return Ok(None);
        };
        let Some(file) = &self.ca else { return Ok(Some(options)) };
        let unusable = |why: String| format!("--redis-ca {}: {why}", file.display());
        let authorities = std::fs::read(file).map_err(|error| unusable(error.to_string()))?;
        options.with_authorities(&authorities).map(Some).map_err(|error| unusable(error.to_string()))
    }

    /// The address, for an instance of this name.
    fn named(&self, instance: &str) -> Result<Option<RedisOptions>, String> {
        let options = self.text.as_deref().map(|text| RedisOptions::new(text, instance));
        options.transpose().map_err(|error| format!("--redis: {error}"))
    }

    /// The address without its credentials.
    pub(crate) fn public(&self) -> String {
        let text = self.text.as_deref().unwrap_or_default();
        match text.split_once("://").and_then(|(scheme, rest)| Some((scheme, rest.rsplit_once('@')?.1))) {
            Some((scheme, rest)) => format!("{scheme}://{rest}"),
            None => text.to_owned(),
        }
    }
}
