//! The caller of a request: its token and its address.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use api::Problem;
use axum::extract::FromRequestParts;
use axum::http::header::AUTHORIZATION;
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderName, HeaderValue};
use domain::{Actor, RequestId, TraceParent};

use crate::auth::{Identity, Role};
use crate::listener::Peer;
use crate::rejection::Rejection;
use crate::state::HttpState;

const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");

/// A caller with a valid token. As an argument of a handler it means that the route needs one.
pub(crate) struct Caller {
    identity: Identity,
    request: RequestId,
    trace: Option<TraceParent>,
}

/// Verifies the token in `Authorization: Bearer …`, if there is one.
pub(crate) fn authenticate(state: &HttpState, headers: &HeaderMap) -> Result<Option<Identity>, Problem> {
    let mut values = headers.get_all(AUTHORIZATION).iter();
    match (values.next(), values.next()) {
        (None, _) => Ok(None),
        (Some(value), None) => verify(state, value).map(Some),
        (Some(_), Some(_)) => Err(Problem::unauthenticated("Send one token, not several.")),
    }
}

fn verify(state: &HttpState, value: &HeaderValue) -> Result<Identity, Problem> {
    let text = value.to_str().map_err(|_| Problem::unauthenticated("The token is not text."))?;
    let token = text.split_once(' ').filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"));
    let (_, token) = token.ok_or_else(|| Problem::unauthenticated("Send Authorization: Bearer <token>."))?;
    state.tokens.check(token.trim(), &*state.clock).map_err(Problem::unauthenticated)
}

impl FromRequestParts<HttpState> for Caller {
    type Rejection = Rejection;

    async fn from_request_parts(parts: &mut Parts, _: &HttpState) -> Result<Self, Rejection> {
        let identity = parts.extensions.get::<Option<Identity>>().cloned().flatten();
        let identity =
            identity.ok_or_else(|| Problem::unauthenticated("Send Authorization: Bearer <token>."))?;
        let request = parts.extensions.get::<RequestId>().cloned();
        let request = request.ok_or_else(|| Problem::malformed("The request has no id."))?;
        let trace = parts.extensions.get::<TraceParent>().cloned();
        Ok(Self { identity, request, trace })
    }
}

/// The client address of a request: the peer of the connection or, behind a trusted proxy, the last address
/// in `X-Forwarded-For` that is not a trusted proxy itself.
pub(crate) struct Client(pub(crate) IpAddr);

/// The identity under which a request that needs no token queues its reads: its token's or its client
/// address.
pub(crate) struct AnyReader(pub(crate) engine::Reader);

impl FromRequestParts<HttpState> for Client {
    type Rejection = Rejection;

    async fn from_request_parts(parts: &mut Parts, state: &HttpState) -> Result<Self, Rejection> {
        let peer = parts.extensions.get::<Peer>().map_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED), |peer| peer.0);
        let trusted = |address: &IpAddr| state.trusted_proxies.iter().any(|net| net.contains(address));
        if !trusted(&peer) {
            return Ok(Self(peer));
        }
        let lines = parts.headers.get_all(FORWARDED_FOR).iter().filter_map(|line| line.to_str().ok());
        let addresses: Vec<&str> = lines.flat_map(|line| line.split(',')).map(str::trim).collect();
        // From right to left: the trusted proxy appended the last address, the client may have forged the
        // first.
        let hops =
            addresses.iter().rev().map_while(|text| text.parse::<IpAddr>().ok().map(|a| a.to_canonical()));
        Ok(Self(hops.into_iter().find(|address| !trusted(address)).unwrap_or(peer)))
    }
}

impl FromRequestParts<HttpState> for AnyReader {
    type Rejection = Rejection;

    async fn from_request_parts(parts: &mut Parts, state: &HttpState) -> Result<Self, Rejection> {
        if let Some(identity) = parts.extensions.get::<Option<Identity>>().and_then(Option::as_ref) {
            return Ok(Self(identity.reader()));
        }
        let Client(address) = Client::from_request_parts(parts, state).await?;
        Ok(Self(engine::Reader::Address(network(address))))
    }
}

/// The network of one subscriber: an IPv4 address, or the /64 prefix of an IPv6 address (RFC 6177).
fn network(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V4(_) => address,
        IpAddr::V6(address) => {
            let [a, b, c, d, ..] = address.segments();
            IpAddr::V6(Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0))
        }
    }
}

impl Caller {
    /// The identity under which its reads are queued.
    pub(crate) fn reader(&self) -> engine::Reader {
        self.identity.reader()
    }

    pub(crate) fn identity(&self) -> &Identity {
        &self.identity
    }

    pub(crate) fn request(&self) -> &RequestId {
        &self.request
    }

    pub(crate) fn actor(&self) -> Actor {
        self.identity.actor()
    }

    /// The engine's representation of the caller.
    pub(crate) fn into_engine_caller(self) -> engine::Caller {
        engine::Caller {
            actor: self.identity.actor(),
            request: self.request,
            trace: self.trace,
            deadline: None,
        }
    }

    /// Fails unless the role is `admin`.
    pub(crate) fn require_admin(&self) -> Result<(), Problem> {
        match self.identity.role {
            Role::Admin => Ok(()),
            Role::User | Role::Service => Err(Problem::forbidden("Only role admin may do this.")),
        }
    }

    /// Fails unless the role is `service` or `admin`.
    pub(crate) fn require_service(&self) -> Result<(), Problem> {
        match self.identity.role {
            Role::Admin | Role::Service => Ok(()),
            Role::User => Err(Problem::forbidden("Only roles service and admin may do this.")),
        }
    }
}
