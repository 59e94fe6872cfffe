//! The id in the path and the parameters in the query of a request.

use std::fmt;
use std::str::FromStr;

use api::Problem;
use api::limit::{LIST_ROWS_DEFAULT, LIST_ROWS_MAX};
use axum::extract::{FromRequestParts, Path, Query};
use axum::http::request::Parts;
use domain::Invalid;

use crate::rejection::Rejection;
use crate::state::HttpState;

/// The query parameters of a request.
pub(crate) struct Params(Vec<(String, String)>);

impl FromRequestParts<HttpState> for Params {
    type Rejection = Rejection;

    async fn from_request_parts(parts: &mut Parts, _: &HttpState) -> Result<Self, Rejection> {
        let pairs = Query::<Vec<(String, String)>>::try_from_uri(&parts.uri);
        pairs
            .map(|Query(pairs)| Self(pairs))
            .map_err(|_| Problem::malformed("The query string cannot be parsed.").into())
    }
}

impl Params {
    /// Rejects parameters that are not in `known`, and repeated ones.
    pub(crate) fn allow_only(&self, known: &[&str]) -> Result<(), Problem> {
        for (index, (name, _)) in self.0.iter().enumerate() {
            if !known.contains(&name.as_str()) {
                return Err(invalid_parameter(name, "is not a parameter of this operation"));
            }
            if self.0[..index].iter().any(|(earlier, _)| earlier == name) {
                return Err(invalid_parameter(name, "must not be repeated"));
            }
        }
        Ok(())
    }

    /// The parsed value of a parameter, or `None` if it is absent.
    pub(crate) fn get<T: FromStr<Err: fmt::Display>>(&self, name: &str) -> Result<Option<T>, Problem> {
        let value = self.0.iter().find(|(each, _)| each == name).map(|(_, value)| value.parse());
        value.transpose().map_err(|error: T::Err| invalid_parameter(name, &error.to_string()))
    }

    /// The parsed value of a required parameter.
    pub(crate) fn required<T: FromStr<Err: fmt::Display>>(&self, name: &str) -> Result<T, Problem> {
        self.get(name)?.ok_or_else(|| invalid_parameter(name, "is required"))
    }

    /// True if a parameter is present, with or without a value.
    pub(crate) fn has(&self, name: &str) -> bool {
        self.0.iter().any(|(each, _)| each == name)
    }

    /// The maximum number of rows to return: `limit` or its default.
    pub(crate) fn limit(&self) -> Result<u32, Problem> {
        let out_of_range =
            || invalid_parameter("limit", &format!("must be a number from 1 to {LIST_ROWS_MAX}"));
        let limit = self.get::<u32>("limit").map_err(|_| out_of_range())?.unwrap_or(LIST_ROWS_DEFAULT);
        if (1..=LIST_ROWS_MAX).contains(&limit) { Ok(limit) } else { Err(out_of_range()) }
    }
}

fn invalid_parameter(name: &str, detail: &str) -> Problem {
    Problem::invalid(&[Invalid::new(format!("?{name}"), detail)])
}

/// The id in the path, not yet parsed. An invalid one is reported by [`Self::id`], so that a handler can
/// check the caller's permissions first.
pub(crate) struct PathId(Option<String>);

impl FromRequestParts<HttpState> for PathId {
    type Rejection = Rejection;

    async fn from_request_parts(parts: &mut Parts, state: &HttpState) -> Result<Self, Rejection> {
        let name = Path::<String>::from_request_parts(parts, state).await;
        Ok(Self(name.ok().map(|Path(name)| name)))
    }
}

impl PathId {
    /// The text in the path; empty if it is not valid UTF-8.
    pub(crate) fn as_str(&self) -> &str {
        self.0.as_deref().unwrap_or_default()
    }

    /// Parses the id. An invalid one is an unknown `what`: the problem is `not_found`.
    pub(crate) fn id<T: FromStr>(&self, what: &str) -> Result<T, Problem> {
        self.as_str().parse().map_err(|_| Problem::not_found(what))
    }
}
