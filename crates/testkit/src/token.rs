//! Tokens for the three roles, and invalid tokens.

use jsonwebtoken::{Algorithm, EncodingKey, Header, encode};
use serde_json::{Value, json};

/// The year 2100, in seconds since 1970.
const FAR_FUTURE: u64 = 4_102_444_800;

/// Signs tokens with one secret.
#[derive(Clone, Debug)]
pub struct Tokens {
    secret: String,
}

impl Tokens {
    /// Tokens for a server with this secret.
    pub fn new(secret: impl Into<String>) -> Self {
        Self { secret: secret.into() }
    }

    /// A token of role `user`.
    pub fn user(&self, sub: &str) -> String {
        self.with_role(sub, "user")
    }

    /// A token of role `service`, for a trusted program.
    pub fn service(&self) -> String {
        self.with_role("gateway", "service")
    }

    /// A token of role `admin`, for an organiser or operator.
    pub fn admin(&self) -> String {
        self.with_role("boss", "admin")
    }

    fn with_role(&self, sub: &str, role: &str) -> String {
        self.sign(&json!({"sub": sub, "role": role, "exp": FAR_FUTURE}))
    }

    /// A token with any claims, signed as the server expects.
    pub fn sign(&self, claims: &Value) -> String {
        self.sign_as(&Header::new(Algorithm::HS256), claims)
    }

    /// A token with any claims and any header of the HMAC family.
    pub fn sign_as(&self, header: &Header, claims: &Value) -> String {
        let key = EncodingKey::from_secret(self.secret.as_bytes());
        encode(header, claims, &key).unwrap_or_else(|error| panic!("cannot sign {claims}: {error}"))
    }
}
