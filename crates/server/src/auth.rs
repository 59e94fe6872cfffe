//! Who somebody is: JSON Web Tokens (RFC 7519), signed with HMAC SHA-256.

use domain::{Actor, Clock, UserId};
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation, decode, encode};
use serde::{Deserialize, Serialize};

use crate::limit::TOKEN_BYTES_MAX;

/// What a caller may do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "camelCase")]
pub(crate) enum Role {
    /// Books, and sees what is theirs.
    #[default]
    User,
    /// A trusted program: confirms payments, books and cancels for others.
    Service,
    /// An organiser or operator: everything.
    Admin,
}

/// A caller whose token was checked.
#[derive(Clone, Debug)]
pub(crate) struct Identity {
    pub(crate) user: UserId,
    pub(crate) role: Role,
}

impl Identity {
    pub(crate) fn actor(&self) -> Actor {
        match self.role {
            Role::User => Actor::User(self.user.clone()),
            Role::Service => Actor::Service(self.user.clone()),
            Role::Admin => Actor::Admin(self.user.clone()),
        }
    }
}

/// Signs and checks tokens with one secret.
pub(crate) struct Tokens {
    decoding: DecodingKey,
    encoding: EncodingKey,
    validation: Validation,
}

#[derive(Serialize, Deserialize)]
struct Claims {
    sub: String,
    /// Seconds since the Unix epoch; RFC 7519 allows a fraction.
    exp: serde_json::Number,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    nbf: Option<serde_json::Number>,
    #[serde(default)]
    role: Role,
}

/// How far ahead the clock of the issuer may be, in seconds, before its tokens are not valid yet.
const NOT_BEFORE_LEEWAY_SECONDS: f64 = 60.0;

impl Tokens {
    pub(crate) fn new(secret: &[u8]) -> Self {
        let mut validation = Validation::new(Algorithm::HS256);
        // The times are compared below, by the injected clock.
        validation.validate_exp = false;
        validation.validate_aud = false;
        let (decoding, encoding) = (DecodingKey::from_secret(secret), EncodingKey::from_secret(secret));
        Self { decoding, encoding, validation }
    }

    /// A token for a user, valid for `seconds` from now.
    pub(crate) fn sign(
        &self,
        identity: &Identity,
        clock: &dyn Clock,
        seconds: u64,
    ) -> Result<String, String> {
        let now = u64::try_from(clock.now().micros() / 1_000_000).unwrap_or(0);
        let exp = now.saturating_add(seconds).into();
        let claims = Claims { sub: identity.user.to_string(), exp, nbf: None, role: identity.role };
        encode(&Header::new(Algorithm::HS256), &claims, &self.encoding).map_err(|error| error.to_string())
    }

    /// Who a token speaks for, or why it is not accepted.
    pub(crate) fn check(&self, token: &str, clock: &dyn Clock) -> Result<Identity, &'static str> {
        if token.len() > TOKEN_BYTES_MAX {
            return Err("The token is too long.");
        }
        let claims = decode::<Claims>(token, &self.decoding, &self.validation)
            .map_err(|_| "The token is not valid: it must be a JWT signed with HS256, with sub and exp.")?
            .claims;
        let seconds = |number: &serde_json::Number| number.as_f64().filter(|seconds| *seconds >= 0.0);
        // Exact to some microseconds, which is finer than any token says.
        #[expect(clippy::cast_precision_loss, reason = "seconds since 1970 need 31 of the 53 bits")]
        let now = clock.now().micros() as f64 / 1_000_000.0;
        if seconds(&claims.exp).is_none_or(|exp| exp <= now) {
            return Err("The token has expired.");
        }
        let too_early = |nbf: f64| nbf > now + NOT_BEFORE_LEEWAY_SECONDS;
        if claims.nbf.is_some_and(|nbf| seconds(&nbf).is_none_or(too_early)) {
            return Err("The token is not valid yet.");
        }
        let user = claims.sub.parse().map_err(|_| "The token's sub is no user id.")?;
        Ok(Identity { user, role: claims.role })
    }
}
