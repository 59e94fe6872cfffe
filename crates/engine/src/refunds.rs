//! The use cases of refunds.

use std::sync::Arc;

use domain::{Action, ProviderReference, Refund, RefundId, RefundStatus, Refusal, Settlement};
use store::{Idempotency, Page};

use crate::{Caller, CommandOutput, Engine, Error, Reader};

/// The outcome of a pay-out, as a trusted service reports it.
#[derive(Clone, Debug)]
pub struct RefundOutcome {
    /// True if the money was paid out.
    pub succeeded: bool,
    /// The payment provider's reference of the pay-out.
    pub provider_reference: ProviderReference,
}

impl Engine {
    /// Records the outcome of a refund. A repeated outcome changes nothing; a failed refund may succeed
    /// later, but not vice versa.
    pub async fn settle(
        self: &Arc<Self>,
        caller: Caller,
        id: RefundId,
        outcome: RefundOutcome,
        idempotency: Option<Arc<Idempotency>>,
    ) -> Result<CommandOutput, Error> {
        let engine = self.clone();
        self.run_detached_unlimited(async move {
            let refund = engine.ports.store.refund(id).await?.ok_or(Refusal::NotFound("refund"))?;
            let Refund { event_id, booking_id, transaction, .. } = refund;
            let RefundOutcome { succeeded, provider_reference } = outcome;
            let settlement = Settlement { event_id, booking_id, transaction, succeeded, provider_reference };
            engine.submit(caller, Action::Settle(Box::new(settlement)), idempotency).await
        })
        .await
    }

    /// Up to `limit` refunds with ids below `after`, newest first.
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
