//! The use cases of a refund.

use std::sync::Arc;

use domain::{Action, Answer, Name, Refund, RefundId, RefundStatus, Refusal, Settlement};
use store::{Cause, Fault, Page};

use crate::{Caller, Engine, Error};

impl Engine {
    /// Records the outcome of a refund. The same outcome again is one settlement; one that failed may later
    /// succeed, never the other way round.
    pub async fn settle(
        self: &Arc<Self>,
        caller: Caller,
        id: RefundId,
        succeeded: bool,
        provider_reference: Name,
    ) -> Result<Refund, Error> {
        let engine = self.clone();
        self.detached(async move {
            let refund = engine.ports.store.refund(id).await?.ok_or(Refusal::NotFound("refund"))?;
            let Refund { event_id, booking_id, transaction, .. } = refund;
            let settlement = Settlement { event_id, booking_id, transaction, succeeded, provider_reference };
            match engine.submit(caller, Action::Settle(Box::new(settlement))).await? {
                Answer::Refund(refund) => Ok(*refund),
                Answer::Refused(refusal) => Err(refusal.into()),
                Answer::Booking(_) | Answer::Event(_) => {
                    Err(Fault::Broken(Cause::new("a settlement was answered with something else")).into())
                }
            }
        })
        .await
    }

    /// Up to `limit` refunds made before `after`, newest first.
    pub async fn refunds(
        &self,
        status: Option<RefundStatus>,
        after: Option<RefundId>,
        limit: u32,
    ) -> Result<Page<Refund>, Error> {
        Ok(self.ports.store.refunds(status, after, limit).await?)
    }
}
