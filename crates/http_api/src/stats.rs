//! `/v1/stats`.

use api::App;
use api::wire::StatsView;
use axum::extract::State;
use axum::response::{IntoResponse, Response};

use crate::caller::Caller;
use crate::payload::Json;
use crate::rejection::Rejection;

pub(crate) async fn show(State(app): State<App>, caller: Caller) -> Result<Response, Rejection> {
    caller.require_admin()?;
    let stats = app.engine.stats(&caller.reader()).await?;
    Ok(Json(StatsView::from(&stats)).into_response())
}
