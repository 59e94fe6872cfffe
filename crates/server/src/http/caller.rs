//! Who asks.

use axum::extract::FromRequestParts;
use axum::http::HeaderValue;
use axum::http::request::Parts;
use domain::{Actor, RequestId};

use super::App;
use crate::auth::{Identity, Role};
use crate::problem::Problem;

/// A caller with a valid token. As an argument of a handler it means that the route needs one.
pub(super) struct Caller {
    identity: Identity,
    request: RequestId,
}

/// Reads `Authorization: Bearer …`.
pub(super) fn identify(app: &App, header: &HeaderValue) -> Result<Identity, Problem> {
    let text = header.to_str().map_err(|_| Problem::unauthenticated("The token is not text."))?;
    let token = text.split_once(' ').filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"));
    let (_, token) = token.ok_or_else(|| Problem::unauthenticated("Send Authorization: Bearer <token>."))?;
    app.tokens.check(token.trim(), &*app.clock).map_err(Problem::unauthenticated)
}

impl FromRequestParts<App> for Caller {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _app: &App) -> Result<Self, Problem> {
        let identity = parts.extensions.get::<Option<Identity>>().cloned().flatten();
        let identity =
            identity.ok_or_else(|| Problem::unauthenticated("Send Authorization: Bearer <token>."))?;
        let request = parts.extensions.get::<RequestId>().cloned();
        let request = request.ok_or_else(|| Problem::malformed("The request has no id."))?;
        Ok(Self { identity, request })
    }
}

impl Caller {
    pub(super) fn identity(&self) -> &Identity {
        &self.identity
    }

    pub(super) fn request(&self) -> &RequestId {
        &self.request
    }

    pub(super) fn actor(&self) -> Actor {
        self.identity.actor()
    }

    /// The caller as the engine knows it.
    pub(super) fn engine(self) -> engine::Caller {
        engine::Caller { actor: self.identity.actor(), request: self.request }
    }

    /// Refuses whoever is no admin.
    pub(super) fn require_admin(&self) -> Result<(), Problem> {
        match self.identity.role {
            Role::Admin => Ok(()),
            Role::User | Role::Service => Err(Problem::forbidden("Only role admin may do this.")),
        }
    }

    /// Refuses users.
    pub(super) fn require_service(&self) -> Result<(), Problem> {
        match self.identity.role {
            Role::Admin | Role::Service => Ok(()),
            Role::User => Err(Problem::forbidden("Only roles service and admin may do this.")),
        }
    }
}
