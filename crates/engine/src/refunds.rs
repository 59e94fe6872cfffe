//! The use cases of a refund.

use std::sync::Arc;

use domain::{Action, Name, Refund, RefundId, RefundStatus, Refusal, Settlement};
use store::{Idempotency, Page};

use crate::{Caller, CommandOutput, Engine, Error, Reader};

/// What became of a pay-out, as a trusted service reports it.
#[derive(Clone, Debug)]
pub struct RefundOutcome {
    /// Whether the money was paid out.
    pub succeeded: bool,
    /// The payment provider's name for the pay-out.
    pub provider_reference: Name,
}

impl Engine {
    /// Records the outcome of a refund. The same outcome again is one settlement; one that failed may later
    /// succeed, never the other way round.
    pub async fn settle(
        self: &Arc<Self>,
        caller: Caller,
        id: RefundId,
        outcome: RefundOutcome,
        keep: Option<Arc<Idempotency>>,
    ) -> Result<CommandOutput, Error> {
        let engine = self.clone();
        self.run_detached_unlimited(async move {
            let refund = engine.ports.store.refund(id).await?.ok_or(Refusal::NotFound("refund"))?;
            let Refund { event_id, booking_id, transaction, .. } = refund;
            let RefundOutcome { succeeded, provider_reference } = outcome;
            let settlement = Settlement { event_id, booking_id, transaction, succeeded, provider_reference };
            engine.submit(caller, Action::Settle(Box::new(settlement)), keep).await
        })
        .await
    }

    /// Up to `limit` refunds made before `after`, newest first.
    pub async fn refunds(
        &self,
        reader: &Reader,
        status: Option<RefundStatus>,
        after: Option<RefundId>,
        limit: u32,
    ) -> Result<Page<Refund>, Error> {
        self.read(reader, |store| async move { store.refunds(status, after, limit).await }).await
    }
}
