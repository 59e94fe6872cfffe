//! `/livez`, `/readyz` and `/metrics`.

use axum::extract::State;
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};
use store::{Cause, Fault};

use super::App;
use super::params::Params;
use super::payload::Json;
use crate::problem::Problem;

/// The process answers. Looks at nothing else: restarting it would not bring a database back.
pub(super) async fn alive() -> Response {
    Json(json!({"status": "alive"})).into_response()
}

/// Whether the service can sell now; with `?verbose`, what every part has to say.
pub(super) async fn ready(State(app): State<App>, params: Params) -> Result<Response, Problem> {
    params.only(&["verbose"])?;
    let store = app.engine.health().await;
    let stopping = app.stop.is_cancelled();
    let ready = store.is_ok() && !stopping;
    let redis_is_up = app.redis.as_ref().map(|shared| shared.redis.is_up());
    let (code, status) = match (ready, stopping) {
        (true, _) if redis_is_up == Some(false) => (StatusCode::OK, "degraded"),
        (true, _) => (StatusCode::OK, "ready"),
        (false, true) => (StatusCode::SERVICE_UNAVAILABLE, "stopping"),
        (false, false) => (StatusCode::SERVICE_UNAVAILABLE, "unavailable"),
    };
    let mut body = json!({"status": status});
    if params.has("verbose") {
        let chore = |chore: &std::sync::Arc<engine::Health>| {
            (chore.name().to_owned(), json!({"lastSuccess": chore.last_success()}))
        };
        let database = store.map_or_else(|error| error.to_string(), |()| "ok".to_owned());
        body["database"] = Value::from(database);
        if let Some(is_up) = redis_is_up {
            body["redis"] = Value::from(if is_up { "ok" } else { "Redis is not reachable" });
        }
        body["chores"] = app.engine.chores().iter().map(chore).collect::<serde_json::Map<_, _>>().into();
    }
    Ok((code, Json(body)).into_response())
}

/// What Prometheus asks for.
pub(super) async fn metrics(State(app): State<App>) -> Result<Response, Problem> {
    let text = app.telemetry.render(&app.engine, app.streams.count(), app.redis.as_deref());
    let text = text.map_err(|error| Problem::from(Fault::Broken(Cause::new(error))))?;
    Ok(([(CONTENT_TYPE, crate::telemetry::CONTENT_TYPE)], text).into_response())
}
