//! Calls of clients, and the outcomes that they record.

use std::sync::Arc;
use std::time::Duration;

use domain::{Actor, Answer, EventId, RefundId, Refusal, RequestId};
use engine::{Caller, CommandOutput, Engine, Error};
use store::Fault as StoreFault;
use testkit::history::{Call, CallResult, Operation, Outcome};
use tokio::time::sleep;

use super::{KnownBooking, Workload};
use crate::scenario::Fault;

/// A call of a client.
pub(crate) struct CallSpec {
    pub(crate) actor: Actor,
    pub(crate) event: Option<EventId>,
    pub(crate) operation: Operation,
    /// With an idempotency key: its scope, the key, and the digest of the request.
    pub(crate) key: Option<(String, String, u64)>,
}

impl Workload {
    /// Calls a random process and records the outcome. The client may disconnect first.
    pub(crate) async fn call<F>(
        &self,
        call: CallSpec,
        work: impl FnOnce(Arc<Engine>, Caller) -> F,
    ) -> (Outcome, Option<CommandOutput>)
    where
        F: Future<Output = Result<CommandOutput, Error>>,
    {
        let (engine, process) = self.fleet.any_instance(&self.world).await;
        let request = self.new_request_id();
        let start = self.world.elapsed();
        let CallSpec { actor, event, operation, key } = call;
        let caller = Caller { actor: actor.clone(), request: request.clone(), trace: None, deadline: None };
        self.world.log(format_args!("{request}: {actor}: {operation:?}"));
        let patience = if self.world.should_inject(Fault::ClientDisconnect) {
            self.world.random_duration(Duration::from_millis(300))
        } else {
            Duration::from_mins(3)
        };
        let result = tokio::select! {
            biased;
            () = process.wait_until_killed() => None,
            result = work(engine, caller) => Some(result),
            () = sleep(patience) => None,
        };
        let outcome = result.as_ref().map_or(Outcome::Unknown, |result| self.classify(result));
        let end = result.is_some().then(|| self.world.elapsed());
        self.world.log(format_args!("{request}: outcome {outcome:?}"));
        self.known().calls.push(Call {
            request: request.as_str().to_owned(),
            actor: actor.to_string(),
            event: event.map(|event| event.to_string()),
            operation,
            key,
            start,
            end,
            outcome: outcome.clone(),
        });
        (outcome, result.and_then(Result::ok))
    }

    /// Classifies the result of a call. Reports a failure as a violation if no injected fault explains it.
    fn classify(&self, result: &Result<CommandOutput, Error>) -> Outcome {
        match result {
            Ok(output) => Outcome::Done(self.record_result(output)),
            Err(Error::Refused(refusal)) => {
                let refund = refund_in(refusal);
                if let Some(id) = refund {
                    self.known().refunds.push(id);
                }
                let refund = refund.map(|id| id.to_string());
                Outcome::Refused { code: refusal.code().to_owned(), refund }
            }
            Err(Error::KeyReused) => {
                self.world.record_coverage("outcome: key reused");
                Outcome::Refused { code: "idempotency_key_reused".to_owned(), refund: None }
            }
            Err(Error::Limited(_)) => Outcome::Failed,
            Err(Error::Overloaded) => {
                self.world.record_coverage("outcome: overloaded");
                Outcome::Failed
            }
            Err(Error::Fault(StoreFault::Broken(cause))) => {
                let is_damaged = self.world.damaged_rows(|damaged| {
                    !damaged.bookings_ever.is_empty() || !damaged.events_ever.is_empty()
                });
                if !is_damaged {
                    self.world.report_violation(format!("failed without an injected fault: {cause}"));
                }
                Outcome::Failed
            }
            Err(Error::Fault(StoreFault::Unavailable(cause))) => {
                // The limiter and the desk give causes of their own; here they follow from injected faults
                // only.
                let expected = [
                    "injected",
                    "interrupted",
                    "coordination is unavailable",
                    "another session has locked its event",
                ];
                if !expected.iter().any(|expected| cause.to_string().contains(expected)) {
                    self.world.report_violation(format!("unavailable without an injected fault: {cause}"));
                }
                self.world.record_coverage("outcome: unavailable");
                Outcome::Failed
            }
            Err(Error::Fault(StoreFault::OutcomeUnknown(cause))) => {
                if !["injected", "interrupted"].iter().any(|expected| cause.to_string().contains(expected)) {
                    self.world.report_violation(format!("unknown without an injected fault: {cause}"));
                }
                self.world.record_coverage("outcome: unknown");
                Outcome::Unknown
            }
        }
    }

    /// Adds the ids in a result to the known state, and converts it for the history.
    pub(super) fn record_result(&self, output: &CommandOutput) -> CallResult {
        match output {
            CommandOutput::Fresh(Answer::Booking(booking)) => {
                let mut known = self.known();
                if !known.bookings.iter().any(|known| known.id == booking.id) {
                    known.bookings.push(KnownBooking {
                        id: booking.id,
                        event: booking.event_id,
                        user: booking.user.clone(),
                        total: booking.total,
                    });
                }
                let status = Some(booking.status().to_string());
                CallResult { booking: Some(booking.id.to_string()), status, ..CallResult::default() }
            }
            CommandOutput::Fresh(Answer::Refund(refund)) => {
                CallResult { refund: Some(refund.id.to_string()), ..CallResult::default() }
            }
            CommandOutput::Fresh(Answer::Event(_) | Answer::Refused(_)) => CallResult::default(),
            CommandOutput::Stored { response, replayed } => {
                let text = String::from_utf8_lossy(response);
                let (id, status) = text.split_once(' ').unwrap_or((&text, ""));
                let booking = Some(id.to_owned());
                let status = Some(status.to_owned());
                if *replayed {
                    self.world.record_coverage("outcome: replayed");
                }
                CallResult { booking, status, replayed: *replayed, ..CallResult::default() }
            }
        }
    }

    /// Records a call that was not made with [`Workload::call`], and has no response.
    pub(crate) fn record_call(&self, call: CallSpec, request: &RequestId, start: u64, outcome: Outcome) {
        let CallSpec { actor, event, operation, key } = call;
        self.known().calls.push(Call {
            request: request.as_str().to_owned(),
            actor: actor.to_string(),
            event: event.map(|event| event.to_string()),
            operation,
            key,
            start,
            end: None,
            outcome,
        });
    }
}

/// Returns the refund that a refusal names.
fn refund_in(refusal: &Refusal) -> Option<RefundId> {
    match refusal {
        Refusal::EventCancelled { refund, .. } | Refusal::InvalidState { refund, .. } => {
            refund.as_ref().map(|refund| refund.id)
        }
        Refusal::HoldExpired { refund, .. } => Some(refund.id),
        _ => None,
    }
}
