//! The options of [`Redis`](super::Redis).

use std::fmt;
use std::time::Duration;

use redis::{Client, TlsCertificates};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;

use super::scripts::Scripts;
use crate::limit::{
    CLAIM_DEFAULT, CONNECT_TIMEOUT_DEFAULT, INSTANCE_BYTES_MAX, LEASE_DEFAULT, REPLY_TIMEOUT_DEFAULT,
};

/// The server's address, the name of this instance, and durations.
#[derive(Clone)]
pub struct RedisOptions {
    pub(super) client: Client,
    pub(super) instance: String,
    pub(super) scripts: Scripts,
    /// Time after which the server frees a key, or removes a waiter, that its process no longer renews. A
    /// process renews after a third of it. Default 2 s; at least 100 ms.
    pub lease: Duration,
    /// The short lease of a key after a hand-over, until its new owner first renews it. Default 500 ms; from
    /// 50 ms to `lease`.
    pub claim: Duration,
    /// Longest wait for a reply. Default 100 ms, because a user is waiting for the response.
    pub reply_timeout: Duration,
    /// Timeout of an attempt to connect. Default 500 ms.
    pub connect_timeout: Duration,
}

/// Invalid [`RedisOptions`].
#[derive(Debug, Clone, thiserror::Error)]
pub enum InvalidOptions {
    /// The address is not a Redis URL.
    #[error("a Redis address must be redis://[user:password@]host[:port][/database], or rediss:// for TLS")]
    Address,
    /// The name is empty, too long or contains a character that is not allowed.
    #[error("an instance name is 1 to 64 characters of A-Z, a-z, 0-9, _ and -")]
    Instance,
    /// The text contains no certificate, or one that cannot be parsed, or the address does not use TLS.
    #[error("no CA certificates in PEM, or the address does not begin with rediss://")]
    Authorities,
}

impl RedisOptions {
    /// Options for the server at `address`, `redis://…` or `rediss://…` (TLS). `instance` is the name of this
    /// process: 1 to 64 characters of `A–Z a–z 0–9 _ -`, which no other process uses now or within a lease.
    pub fn new(address: &str, instance: &str) -> Result<Self, InvalidOptions> {
        let is_allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"_-".contains(&byte);
        if !(1..=INSTANCE_BYTES_MAX).contains(&instance.len()) || !instance.bytes().all(is_allowed) {
            return Err(InvalidOptions::Instance);
        }
        Ok(Self {
            client: Client::open(address).map_err(|_| InvalidOptions::Address)?,
            instance: instance.to_owned(),
            scripts: Scripts::default(),
            lease: LEASE_DEFAULT,
            claim: CLAIM_DEFAULT,
            reply_timeout: REPLY_TIMEOUT_DEFAULT,
            connect_timeout: CONNECT_TIMEOUT_DEFAULT,
        })
    }

    /// Verifies the server's certificate against these certificate authorities (PEM) instead of the system's.
    /// The address must be `rediss://…`.
    pub fn with_authorities(mut self, authorities: &[u8]) -> Result<Self, InvalidOptions> {
        if CertificateDer::pem_slice_iter(authorities).next().is_none() {
            return Err(InvalidOptions::Authorities);
        }
        let info = self.client.get_connection_info().clone();
        let tls = TlsCertificates { client_tls: None, root_cert: Some(authorities.to_vec()) };
        self.client = Client::build_with_tls(info, tls).map_err(|_| InvalidOptions::Authorities)?;
        Ok(self)
    }

    /// Replaces the scripts, for tests.
    #[cfg(feature = "conformance")]
    #[must_use]
    pub fn with_scripts(self, scripts: Scripts) -> Self {
        Self { scripts, ..self }
    }
}

impl fmt::Debug for RedisOptions {
    /// Without the address, which may contain a password.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedisOptions").field("instance", &self.instance).finish_non_exhaustive()
    }
}
