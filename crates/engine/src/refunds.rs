//! The use cases of refunds.

use std::sync::Arc;

use domain::{Action, Refund, RefundId, RefundOutcome, RefundStatus, Refusal, Settlement};
use store::{Idempotency, Page};

use crate::{Caller, CommandOutput, Engine, Error, Reader};

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
        self.run_detached(async move {
            let refund = engine.ports.store.refund(id).await?.ok_or(Refusal::NotFound("refund"))?;
            let Refund { event_id, booking_id, transaction, .. } = refund;
            let settlement = Settlement { event_id, booking_id, transaction, outcome };
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
