//! `/v1/refunds`.

use api::App;
use api::wire::{PageView, RefundView, SettleRequest};
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use domain::RefundOutcome;

use crate::caller::Caller;
use crate::command_request::CommandRequest;
use crate::params::{Params, PathId};
use crate::payload::Json;
use crate::rejection::Rejection;
use crate::response::respond;

pub(crate) async fn settle(
    State(app): State<App>,
    refund: PathId,
    command: CommandRequest,
) -> Result<Response, Rejection> {
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

pub(crate) async fn list(
    State(app): State<App>,
    caller: Caller,
    params: Params,
) -> Result<Response, Rejection> {
    caller.require_service()?;
    params.allow_only(&["limit", "after", "status"])?;
    let (status, after, limit) = (params.get("status")?, params.get("after")?, params.limit()?);
    let page = app.engine.refunds(&caller.reader(), status, after, limit).await?;
    let data = page.rows.iter().map(RefundView::from).collect();
    Ok(Json(PageView { data, next_cursor: page.next }).into_response())
}
