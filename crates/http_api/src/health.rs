//! `/livez`, `/readyz` and `/metrics`.

use std::sync::Arc;

use api::metrics::CONTENT_TYPE;
use api::wire::HealthView;
use api::{App, Problem, Readiness, Status};
use axum::extract::State;
use axum::http::header;
use axum::response::{IntoResponse, Response};
use prometheus_client::encoding::text;
use serde_json::{Map, Value, json};
use store::{Cause, Fault};
use supervisor::Task;

use crate::params::Params;
use crate::payload::Json;
use crate::rejection::Rejection;
use crate::state::HttpState;

/// Reports that the process is running. Checks nothing else: a restart would not repair a database.
pub(crate) async fn alive() -> Response {
    Json(HealthView { status: "alive", parts: Map::new() }).into_response()
}

/// Reports whether the service can sell now; with `?verbose`, the state of each component, too.
pub(crate) async fn ready(State(app): State<App>, params: Params) -> Result<Response, Rejection> {
    params.allow_only(&["verbose"])?;
    let mut statuses = Vec::new();
    for dependency in app.dependencies.iter() {
        statuses.push((dependency.name(), dependency.status().await));
    }
    // Read once: a task may restart meanwhile, and the status must agree with the parts.
    let tasks: Vec<TaskState> = app.tasks().into_iter().map(TaskState::from).collect();
    let unavailable = statuses.iter().find_map(|(_, status)| match status.readiness {
        Readiness::Unavailable(reason) => Some(reason),
        Readiness::Ready | Readiness::Degraded => None,
    });
    let reason = if app.stop.is_cancelled() {
        Some("The server is shutting down.")
    } else if unavailable.is_none() && tasks.iter().any(|task| task.is_down && task.is_essential) {
        Some("An essential background task is being restarted.")
    } else {
        unavailable
    };
    let is_degraded = tasks.iter().any(|task| task.is_down)
        || statuses.iter().any(|(_, status)| status.readiness != Readiness::Ready);
    let parts = if params.has("verbose") { parts(&app, statuses, &tasks) } else { Map::new() };
    if let Some(reason) = reason {
        let problem = Problem::unavailable(reason);
        return Err(parts
            .into_iter()
            .fold(problem, |problem, (name, part)| problem.with(&name, part))
            .into());
    }
    let status = if is_degraded { "degraded" } else { "ready" };
    Ok(Json(HealthView { status, parts }).into_response())
}

/// The state of a background task at one instant.
struct TaskState {
    name: &'static str,
    is_essential: bool,
    is_down: bool,
    restarts: u64,
}

impl From<Arc<Task>> for TaskState {
    fn from(task: Arc<Task>) -> Self {
        Self {
            name: task.name(),
            is_essential: task.is_essential(),
            is_down: task.is_down(),
            restarts: task.restarts(),
        }
    }
}

/// The state of each component.
fn parts(app: &App, statuses: Vec<(&'static str, Status)>, tasks: &[TaskState]) -> Map<String, Value> {
    let chore =
        |chore: &Arc<engine::Health>| (chore.name().to_owned(), json!({"lastSuccess": chore.last_success()}));
    let task = |task: &TaskState| {
        let status = if task.is_down { "down" } else { "ok" };
        (task.name.to_owned(), json!({"status": status, "restarts": task.restarts}))
    };
    let chores: Map<String, Value> = app.engine.chores().iter().map(chore).collect();
    let tasks: Map<String, Value> = tasks.iter().map(task).collect();
    let dependencies = statuses.into_iter().map(|(name, status)| (name.to_owned(), status.report));
    dependencies.chain([("chores".to_owned(), chores.into()), ("tasks".to_owned(), tasks.into())]).collect()
}

/// The metrics, for Prometheus.
pub(crate) async fn metrics(State(state): State<HttpState>) -> Result<Response, Rejection> {
    let mut encoded = String::new();
    text::encode(&mut encoded, &state.registry).map_err(|error| Fault::Broken(Cause::new(error)))?;
    Ok(([(header::CONTENT_TYPE, CONTENT_TYPE)], encoded).into_response())
}
