//! `/v1/stats`.

use axum::extract::State;
use axum::response::{IntoResponse, Response};

use super::App;
use super::caller::Caller;
use super::payload::Json;
use crate::problem::Problem;
use crate::wire::StatsView;

pub(super) async fn show(State(app): State<App>, caller: Caller) -> Result<Response, Problem> {
    caller.require_admin()?;
    let stats = app.engine.stats(&caller.reader()).await?;
    Ok(Json(StatsView::from(&stats)).into_response())
}
