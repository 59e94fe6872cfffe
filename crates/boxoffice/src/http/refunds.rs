//! `/v1/refunds`.

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use domain::RefundOutcome;

use super::App;
use super::caller::Caller;
use super::command_request::CommandRequest;
use super::params::{Params, PathId};
use super::payload::Json;
use super::response::respond;
use crate::problem::Problem;
use crate::wire::{PageView, RefundView, SettleRequest};

pub(super) async fn settle(
    State(app): State<App>,
    refund: PathId,
    command: CommandRequest,
) -> Result<Response, Problem> {
    command.caller.require_service()?;
    let SettleRequest { outcome, provider_reference } = command.parse()?;
    let outcome =
        RefundOutcome { succeeded: outcome.0.succeeded(), provider_reference: provider_reference.0 };
    let idempotency = command.idempotency(StatusCode::OK)?;
    let output = app
        .engine
        .settle(command.caller.into_engine_caller(), refund.id("refund")?, outcome, idempotency)
        .await?;
    respond(&app, output, StatusCode::OK)
}

pub(super) async fn list(
    State(app): State<App>,
    caller: Caller,
    params: Params,
) -> Result<Response, Problem> {
    caller.require_service()?;
    params.allow_only(&["limit", "after", "status"])?;
    let (status, after, limit) = (params.get("status")?, params.get("after")?, params.limit()?);
    let page = app.engine.refunds(&caller.reader(), status, after, limit).await?;
    let data = page.rows.iter().map(RefundView::from).collect();
    Ok(Json(PageView { data, next_cursor: page.next }).into_response())
}
