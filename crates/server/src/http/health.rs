//! `/livez`, `/readyz` and `/metrics`.

use std::sync::Arc;

use axum::extract::State;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use serde_json::{Map, Value, json};
use store::{Cause, Fault};

use super::App;
use super::params::Params;
use super::payload::Json;
use crate::problem::Problem;
use crate::wire::HealthView;

/// The process answers. Looks at nothing else: restarting it would not bring a database back.
pub(super) async fn alive() -> Response {
    Json(HealthView { status: "alive", parts: Map::new() }).into_response()
}

/// Whether the service can sell now; with `?verbose`, what every part has to say.
pub(super) async fn ready(State(app): State<App>, params: Params) -> Result<Response, Problem> {
    params.only(&["verbose"])?;
    let store = app.engine.health().await;
    let stopping = app.stop.is_cancelled();
    let why_not = match (&store, stopping) {
        (_, true) => Some("The program is stopping."),
        (Err(_), false) => Some("The database cannot be used."),
        (Ok(()), false) => None,
    };
    let parts = if params.has("verbose") { parts(&app, store) } else { Map::new() };
    if let Some(why) = why_not {
        let problem = Problem::unavailable(why);
        return Err(parts.into_iter().fold(problem, |problem, (name, part)| problem.with(&name, part)));
    }
    let is_degraded = app.redis.as_ref().is_some_and(|shared| !shared.redis.is_up())
        || app.nats.as_ref().is_some_and(|nats| nats.trouble().is_some());
    let status = if is_degraded { "degraded" } else { "ready" };
    Ok(Json(HealthView { status, parts }).into_response())
}

/// What every part has to say.
fn parts(app: &App, store: Result<(), engine::Error>) -> Map<String, Value> {
    let chore =
        |chore: &Arc<engine::Health>| (chore.name().to_owned(), json!({"lastSuccess": chore.last_success()}));
    let database = store.map_or_else(|error| error.to_string(), |()| "ok".to_owned());
    let chores: Map<String, Value> = app.engine.chores().iter().map(chore).collect();
    let redis = app.redis.as_ref().map(|shared| shared.redis.is_up());
    let redis = redis.map(|is_up| if is_up { "ok" } else { "Redis is not reachable" });
    let nats = app.nats.as_ref().map(|nats| nats.describe());
    [
        ("database", Some(database.into())),
        ("redis", redis.map(Value::from)),
        ("nats", nats),
        ("chores", Some(chores.into())),
    ]
    .into_iter()
    .filter_map(|(name, part)| Some((name.to_owned(), part?)))
    .collect()
}

/// What Prometheus asks for.
pub(super) async fn metrics(State(app): State<App>) -> Result<Response, Problem> {
    let text =
        app.telemetry.render(&app.engine, app.streams.count(), app.redis.as_deref(), app.nats.as_deref());
    let text = text.map_err(|error| Problem::from(Fault::Broken(Cause::new(error))))?;
    Ok(([(CONTENT_TYPE, crate::telemetry::CONTENT_TYPE)], text).into_response())
}
