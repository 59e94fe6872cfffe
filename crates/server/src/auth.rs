//! Who somebody is: JSON Web Tokens (RFC 7519), signed by a shared secret (HS256) or checked against a
//! public key (RS256, ES256, `EdDSA`).

use domain::{Actor, Clock, UserId};
use engine::Reader;
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation, decode, decode_header, encode};
use serde::{Deserialize, Serialize};

use crate::limit::TOKEN_BYTES_MAX;

/// What a caller may do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "camelCase", try_from = "String")]
pub(crate) enum Role {
    /// Books, and sees what is theirs.
    #[default]
    User,
    /// A trusted program: confirms payments, books and cancels for others.
    Service,
    /// An organiser or operator: everything.
    Admin,
}

/// From the word alone; serde would also take an object for a variant.
impl TryFrom<String> for Role {
    type Error = String;

    fn try_from(word: String) -> Result<Self, String> {
        clap::ValueEnum::from_str(&word, false)
    }
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

    /// With whom it takes turns when it reads.
    pub(crate) fn reader(&self) -> Reader {
        match self.role {
            Role::User => Reader::User(self.user.clone()),
            Role::Service | Role::Admin => Reader::Service(self.user.clone()),
        }
    }
}

/// Checks tokens, and signs them where there is a secret.
///
/// The algorithm follows from the key, never from the token: a token of another algorithm, or of none, is
/// not accepted. Several keys are all accepted, so that keys can be rotated.
pub(crate) struct Tokens {
    keys: Vec<Key>,
    signing_key: Option<EncodingKey>,
}

struct Key {
    decoding: DecodingKey,
    validation: Validation,
}

/// What a token must name besides its bearer; unchecked where unset.
#[derive(Clone, Debug, Default)]
pub(crate) struct ExpectedClaims {
    pub(crate) issuer: Option<String>,
    pub(crate) audience: Option<String>,
}

/// A public key that checks tokens.
#[derive(Clone)]
pub(crate) struct PublicKey {
    decoding: DecodingKey,
    algorithm: Algorithm,
}

/// Bytes of an uncompressed point on P-256, the curve of ES256 (RFC 7518 §3.4).
const P256_POINT_BYTES: usize = 65;

impl PublicKey {
    /// Reads a public key in PEM: RSA for RS256, P-256 for ES256, Ed25519 for `EdDSA`.
    pub(crate) fn from_pem(pem: &[u8]) -> Result<Self, &'static str> {
        if let Ok(decoding) = DecodingKey::from_rsa_pem(pem) {
            return Ok(Self { decoding, algorithm: Algorithm::RS256 });
        }
        if let Ok(decoding) = DecodingKey::from_ec_pem(pem) {
            let point = decoding.try_get_as_bytes().map(<[u8]>::len);
            let p256 = point.is_ok_and(|bytes| bytes == P256_POINT_BYTES);
            let key = Self { decoding, algorithm: Algorithm::ES256 };
            return p256.then_some(key).ok_or("holds an elliptic curve key, but not one on P-256");
        }
        let decoding = DecodingKey::from_ed_pem(pem);
        let decoding = decoding.map_err(|_| "holds no RSA, P-256 or Ed25519 public key in PEM")?;
        Ok(Self { decoding, algorithm: Algorithm::EdDSA })
    }
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
    /// Accepts tokens of every one of these secrets and keys; signs with the first secret.
    pub(crate) fn new(secrets: &[Vec<u8>], keys: &[PublicKey], expected: &ExpectedClaims) -> Self {
        let of_secret = |secret: &Vec<u8>| PublicKey {
            decoding: DecodingKey::from_secret(secret),
            algorithm: Algorithm::HS256,
        };
        let key =
            |PublicKey { decoding, algorithm }| Key { decoding, validation: validation(algorithm, expected) };
        Self {
            keys: secrets.iter().map(of_secret).chain(keys.iter().cloned()).map(key).collect(),
            signing_key: secrets.first().map(|secret| EncodingKey::from_secret(secret)),
        }
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
        let key = self.signing_key.as_ref().ok_or("there is no secret to sign with")?;
        encode(&Header::new(Algorithm::HS256), &claims, key).map_err(|error| error.to_string())
    }

    /// Who a token speaks for, or why it is not accepted.
    pub(crate) fn check(&self, token: &str, clock: &dyn Clock) -> Result<Identity, &'static str> {
        if token.len() > TOKEN_BYTES_MAX {
            return Err("The token is too long.");
        }
        // A header may demand that its reader knows more than the standard (RFC 7515 §4.1.11); we do not.
        if decode_header(token).is_ok_and(|header| header.crit.is_some()) {
            return Err("The token demands an extension that is not known here.");
        }
        let claims = self.keys.iter().find_map(|key| decode(token, &key.decoding, &key.validation).ok());
        let claims: Claims = claims.ok_or("The token is not valid.")?.claims;
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

fn validation(algorithm: Algorithm, expected: &ExpectedClaims) -> Validation {
    let mut validation = Validation::new(algorithm);
    // The times are compared by the injected clock.
    validation.validate_exp = false;
    validation.validate_aud = expected.audience.is_some();
    let mut required = vec!["exp", "sub"];
    if let Some(issuer) = &expected.issuer {
        validation.set_issuer(&[issuer]);
        required.push("iss");
    }
    if let Some(audience) = &expected.audience {
        validation.set_audience(&[audience]);
        required.push("aud");
    }
    validation.set_required_spec_claims(&required);
    validation
}
