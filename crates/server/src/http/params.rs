//! What stands in the address of a request: ids and the parameters of a list.

use std::fmt;
use std::str::FromStr;

use axum::extract::{FromRequestParts, Path, Query};
use axum::http::request::Parts;
use domain::Invalid;

use super::App;
use crate::limit::{LIST_ROWS_DEFAULT, LIST_ROWS_MAX};
use crate::problem::Problem;

/// The parameters of a list, each at most once.
pub(super) struct Params(Vec<(String, String)>);

impl FromRequestParts<App> for Params {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _app: &App) -> Result<Self, Problem> {
        let pairs = Query::<Vec<(String, String)>>::try_from_uri(&parts.uri);
        pairs.map(|Query(pairs)| Self(pairs)).map_err(|_| Problem::malformed("The query cannot be read."))
    }
}

impl Params {
    /// Refuses parameters that are not among `known`, and those that stand twice.
    pub(super) fn allow_only(&self, known: &[&str]) -> Result<(), Problem> {
        for (place, (name, _)) in self.0.iter().enumerate() {
            if !known.contains(&name.as_str()) {
                return Err(invalid_parameter(name, "is no parameter of this list"));
            }
            if self.0[..place].iter().any(|(before, _)| before == name) {
                return Err(invalid_parameter(name, "stands twice"));
            }
        }
        Ok(())
    }

    /// The value of a parameter, parsed.
    pub(super) fn get<T: FromStr<Err: fmt::Display>>(&self, name: &str) -> Result<Option<T>, Problem> {
        let value = self.0.iter().find(|(each, _)| each == name).map(|(_, value)| value.parse());
        value.transpose().map_err(|error: T::Err| invalid_parameter(name, &error.to_string()))
    }

    /// The value of a parameter that must be there, parsed.
    pub(super) fn required<T: FromStr<Err: fmt::Display>>(&self, name: &str) -> Result<T, Problem> {
        self.get(name)?.ok_or_else(|| invalid_parameter(name, "is required"))
    }

    /// Whether a parameter is there, with or without a value.
    pub(super) fn has(&self, name: &str) -> bool {
        self.0.iter().any(|(each, _)| each == name)
    }

    /// How many rows are wanted.
    pub(super) fn limit(&self) -> Result<u32, Problem> {
        let bounds = || invalid_parameter("limit", &format!("must be a number from 1 to {LIST_ROWS_MAX}"));
        let limit = self.get::<u32>("limit").map_err(|_| bounds())?.unwrap_or(LIST_ROWS_DEFAULT);
        if (1..=LIST_ROWS_MAX).contains(&limit) { Ok(limit) } else { Err(bounds()) }
    }
}

fn invalid_parameter(name: &str, detail: &str) -> Problem {
    Problem::invalid(&[Invalid::new(format!("?{name}"), detail)])
}

/// What a path names; nothing where it cannot be read, which is said only when it is asked for: whether the
/// caller may ask at all comes first.
pub(super) struct PathId(Option<String>);

impl FromRequestParts<App> for PathId {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, Problem> {
        let name = Path::<String>::from_request_parts(parts, app).await;
        Ok(Self(name.ok().map(|Path(name)| name)))
    }
}

impl PathId {
    /// What stands in the path; empty where it is no text.
    pub(super) fn as_str(&self) -> &str {
        self.0.as_deref().unwrap_or_default()
    }

    /// The id that the path names, of such a thing.
    pub(super) fn id<T: FromStr>(&self, what: &str) -> Result<T, Problem> {
        self.as_str().parse().map_err(|_| Problem::not_found(what))
    }
}
