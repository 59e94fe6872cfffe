//! `/livez`, `/readyz` and `/metrics`.

use std::error::Error as _;
use std::sync::Arc;

use axum::extract::State;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use serde_json::{Map, Value, json};
use store::{Cause, Fault, StoreHealth};
use supervisor::Task;

use super::App;
use super::params::Params;
use super::payload::Json;
use crate::problem::Problem;
use crate::wire::HealthView;

/// Reports that the process is running. Checks nothing else: a restart would not repair a database.
pub(super) async fn alive() -> Response {
    Json(HealthView { status: "alive", parts: Map::new() }).into_response()
}

/// Reports whether the service can sell now; with `?verbose`, the state of each component, too.
pub(super) async fn ready(State(app): State<App>, params: Params) -> Result<Response, Problem> {
    params.allow_only(&["verbose"])?;
    let store = app.engine.health().await;
    let stopping = app.stop.is_cancelled();
    let down: Vec<_> = app.tasks().into_iter().filter(|task| task.is_down()).collect();
    let cannot_sell = down.iter().any(|task| task.is_essential());
    let reason = match (&store, stopping, cannot_sell) {
        (_, true, _) => Some("The server is shutting down."),
        (Err(_), false, _) => Some("The database is unavailable."),
        (Ok(_), false, true) => Some("An essential background task is being restarted."),
        (Ok(_), false, false) => None,
    };
    let parts = if params.has("verbose") { parts(&app, &store) } else { Map::new() };
    if let Some(reason) = reason {
        let problem = Problem::unavailable(reason);
        return Err(parts.into_iter().fold(problem, |problem, (name, part)| problem.with(&name, part)));
    }
    let is_degraded = !down.is_empty()
        || store.is_ok_and(|health| !health.warnings.is_empty())
        || app.redis.as_ref().is_some_and(|shared| !shared.redis.is_up())
        || app.nats.as_ref().is_some_and(|nats| nats.error().is_some());
    let status = if is_degraded { "degraded" } else { "ready" };
    Ok(Json(HealthView { status, parts }).into_response())
}

/// The state of each component.
fn parts(app: &App, store: &Result<StoreHealth, engine::Error>) -> Map<String, Value> {
    let chore =
        |chore: &Arc<engine::Health>| (chore.name().to_owned(), json!({"lastSuccess": chore.last_success()}));
    let database = match store {
        Ok(health) if health.warnings.is_empty() => "ok".to_owned(),
        Ok(health) => health.warnings.join("; "),
        Err(error) => error.source().map_or(error.to_string(), |cause| format!("{error}: {cause}")),
    };
    let chores: Map<String, Value> = app.engine.chores().iter().map(chore).collect();
    let redis = app.redis.as_ref().map(|shared| shared.redis.is_up());
    let redis = redis.map(|is_up| if is_up { "ok" } else { "Redis is not reachable" });
    let nats = app.nats.as_ref().map(|nats| nats.status_json());
    let task = |task: Arc<Task>| {
        let status = if task.is_down() { "down" } else { "ok" };
        (task.name().to_owned(), json!({"status": status, "restarts": task.restarts()}))
    };
    let tasks: Map<String, Value> = app.tasks().into_iter().map(task).collect();
    [
        ("database", Some(database.into())),
        ("redis", redis.map(Value::from)),
        ("nats", nats),
        ("chores", Some(chores.into())),
        ("tasks", Some(tasks.into())),
    ]
    .into_iter()
    .filter_map(|(name, part)| Some((name.to_owned(), part?)))
    .collect()
}

/// The metrics, for Prometheus.
pub(super) async fn metrics(State(app): State<App>) -> Result<Response, Problem> {
    let text = app.telemetry.render(&app).map_err(|error| Problem::from(Fault::Broken(Cause::new(error))))?;
    Ok(([(CONTENT_TYPE, crate::telemetry::CONTENT_TYPE)], text).into_response())
}
