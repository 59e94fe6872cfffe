//! `/v1/refunds`.

use axum::extract::State;
use axum::response::{IntoResponse, Response};

use super::App;
use super::caller::Caller;
use super::params::Params;
use super::payload::Json;
use crate::problem::Problem;
use crate::wire::{PageView, RefundView};

pub(super) async fn list(
    State(app): State<App>,
    caller: Caller,
    params: Params,
) -> Result<Response, Problem> {
    caller.require_service()?;
    params.only(&["limit", "after", "status"])?;
    let page = app.engine.refunds(params.get("status")?, params.get("after")?, params.limit()?).await?;
    let data = page.rows.iter().map(RefundView::from).collect();
    Ok(Json(PageView { data, next_cursor: page.next }).into_response())
}
