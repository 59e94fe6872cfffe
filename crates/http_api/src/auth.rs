//! Authentication by JSON Web Tokens (RFC 7519), signed with a shared secret (HS256) or verified with a
//! public key (RS256, ES256, EdDSA).

use domain::{Actor, Clock, UserId};
use engine::Reader;
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation, decode, decode_header, encode};
use serde::{Deserialize, Serialize};

use crate::limit::TOKEN_BYTES_MAX;

/// The role of a caller, which determines its permissions.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", try_from = "String")]
pub enum Role {
    /// Books tickets, and sees its own bookings.
    #[default]
    User,
    /// A trusted program: confirms payments; books and cancels for any user.
    Service,
    /// An organiser or operator: all operations.
    Admin,
}

/// Accepts only a string; the derived implementation would also accept an object for a variant.
impl TryFrom<String> for Role {
    type Error = String;

    fn try_from(name: String) -> Result<Self, String> {
        match name.as_str() {
            "user" => Ok(Self::User),
            "service" => Ok(Self::Service),
            "admin" => Ok(Self::Admin),
            _ => Err("must be user, service or admin".to_owned()),
        }
    }
}

/// The user and role of a verified token.
#[derive(Clone, Debug)]
pub struct Identity {
    /// The subject.
    pub user: UserId,
    /// Its role.
    pub role: Role,
}

impl Identity {
    /// The identity on whose behalf its commands run.
    pub fn actor(&self) -> Actor {
        match self.role {
            Role::User => Actor::User(self.user.clone()),
            Role::Service => Actor::Service(self.user.clone()),
            Role::Admin => Actor::Admin(self.user.clone()),
        }
    }

    /// The identity under which its reads are queued.
    pub fn reader(&self) -> Reader {
        match self.role {
            Role::User => Reader::User(self.user.clone()),
            Role::Service | Role::Admin => Reader::Service(self.user.clone()),
        }
    }
}

/// Verifies tokens, and signs them if there is a secret.
///
/// The key determines the algorithm, never the token: a token with another algorithm, or with `none`, is
/// rejected. A token is accepted if any of the keys verifies it, so keys can be rotated.
pub struct Tokens {
    keys: Vec<Key>,
    signing_key: Option<EncodingKey>,
}

struct Key {
    decoding: DecodingKey,
    validation: Validation,
}

/// Claims that a token must have besides `sub` and `exp`. An unset one is not checked.
#[derive(Clone, Debug, Default)]
pub struct ExpectedClaims {
    /// The required `iss`.
    pub issuer: Option<String>,
    /// The required `aud`.
    pub audience: Option<String>,
}

/// A public key that verifies tokens.
#[derive(Clone)]
pub struct PublicKey {
    decoding: DecodingKey,
    algorithm: Algorithm,
}

/// Bytes of an uncompressed point on P-256, the curve of ES256 (RFC 7518 §3.4).
const P256_POINT_BYTES: usize = 65;

impl PublicKey {
    /// Parses a public key in PEM: RSA for RS256, P-256 for ES256, Ed25519 for EdDSA. The error is a
    /// predicate whose subject is the file.
    pub fn from_pem(pem: &[u8]) -> Result<Self, &'static str> {
        if let Ok(decoding) = DecodingKey::from_rsa_pem(pem) {
            return Ok(Self { decoding, algorithm: Algorithm::RS256 });
        }
        if let Ok(decoding) = DecodingKey::from_ec_pem(pem) {
            let point = decoding.try_get_as_bytes().map(<[u8]>::len);
            let p256 = point.is_ok_and(|bytes| bytes == P256_POINT_BYTES);
            let key = Self { decoding, algorithm: Algorithm::ES256 };
            return p256.then_some(key).ok_or("contains an elliptic curve key that is not on P-256");
        }
        let decoding = DecodingKey::from_ed_pem(pem);
        let decoding = decoding.map_err(|_| "contains no RSA, P-256 or Ed25519 public key in PEM")?;
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

/// Tolerated clock skew of the issuer for `nbf`, in seconds.
const NOT_BEFORE_LEEWAY_SECONDS: f64 = 60.0;

impl Tokens {
    /// Accepts tokens signed with any of these secrets and keys; signs with the first secret.
    pub fn new(secrets: &[Vec<u8>], keys: &[PublicKey], expected: &ExpectedClaims) -> Self {
        let from_secret = |secret: &Vec<u8>| PublicKey {
            decoding: DecodingKey::from_secret(secret),
            algorithm: Algorithm::HS256,
        };
        let key =
            |PublicKey { decoding, algorithm }| Key { decoding, validation: validation(algorithm, expected) };
        Self {
            keys: secrets.iter().map(from_secret).chain(keys.iter().cloned()).map(key).collect(),
            signing_key: secrets.first().map(|secret| EncodingKey::from_secret(secret)),
        }
    }

    /// Signs a token that is valid for `seconds` from now. Fails if there is no secret.
    pub fn sign(&self, identity: &Identity, clock: &dyn Clock, seconds: u64) -> Result<String, String> {
        let now = u64::try_from(clock.now().micros() / 1_000_000).unwrap_or(0);
        let exp = now.saturating_add(seconds).into();
        let claims = Claims { sub: identity.user.to_string(), exp, nbf: None, role: identity.role };
        let key = self.signing_key.as_ref().ok_or("there is no secret to sign with")?;
        encode(&Header::new(Algorithm::HS256), &claims, key).map_err(|error| error.to_string())
    }

    /// Verifies a token and returns its identity. The error is a sentence for the caller.
    pub fn check(&self, token: &str, clock: &dyn Clock) -> Result<Identity, &'static str> {
        if token.len() > TOKEN_BYTES_MAX {
            return Err("The token is too long.");
        }
        // `crit` lists extensions that the recipient must understand (RFC 7515 §4.1.11). None are supported.
        if decode_header(token).is_ok_and(|header| header.crit.is_some()) {
            return Err("The token requires an extension that is not supported.");
        }
        let claims = self.keys.iter().find_map(|key| decode(token, &key.decoding, &key.validation).ok());
        let claims: Claims = claims.ok_or("The token is not valid.")?.claims;
        let seconds = |number: &serde_json::Number| number.as_f64().filter(|seconds| *seconds >= 0.0);
        // Rounded by less than a microsecond, which is finer than the times in any token.
        #[expect(clippy::cast_precision_loss, reason = "seconds since 1970 need 31 of the 53 bits")]
        let now = clock.now().micros() as f64 / 1_000_000.0;
        if seconds(&claims.exp).is_none_or(|exp| exp <= now) {
            return Err("The token has expired.");
        }
        let too_early = |nbf: f64| nbf > now + NOT_BEFORE_LEEWAY_SECONDS;
        if claims.nbf.is_some_and(|nbf| seconds(&nbf).is_none_or(too_early)) {
            return Err("The token is not valid yet.");
        }
        let user = claims.sub.parse().map_err(|_| "The token's sub is not a user id.")?;
        Ok(Identity { user, role: claims.role })
    }
}

fn validation(algorithm: Algorithm, expected: &ExpectedClaims) -> Validation {
    let mut validation = Validation::new(algorithm);
    // `exp` and `nbf` are checked in `check`, against the injected clock.
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
