//! The workload: the steps of clients, the outcomes of their calls, and the state that they know.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use domain::{
    Actor, Answer, BookingId, CapturedPayment, EventId, EventPatch, EventStatus, Money, RefundId,
    RefundOutcome, Refusal, RequestId, TicketSelection, TransactionId, UserId,
};
use engine::{Caller, CommandOutput, Engine, Error, Reader};
use store::{Fault as StoreFault, Idempotency};
use testkit::history::{Call, CallResult, Operation, Outcome};
use tokio::time::sleep;

use crate::fleet::Fleet;
use crate::scenario::{Fault, Step};
use crate::world::World;

/// All clients of a simulation, and their shared knowledge.
pub(crate) struct Workload {
    pub(crate) world: Arc<World>,
    pub(crate) fleet: Arc<Fleet>,
    known: Mutex<Known>,
}

/// The client-visible state: recorded calls, and the ids that results have named.
#[derive(Default)]
pub(crate) struct Known {
    pub(crate) calls: Vec<Call>,
    pub(crate) events: Vec<EventId>,
    bookings: Vec<KnownBooking>,
    payments: Vec<KnownPayment>,
    refunds: Vec<RefundId>,
    orders: Vec<Order>,
    requests: u64,
}

/// A booking that a result has named.
#[derive(Clone)]
struct KnownBooking {
    id: BookingId,
    event: EventId,
    user: UserId,
    total: Money,
}

/// A captured payment.
#[derive(Clone)]
struct KnownPayment {
    booking: BookingId,
    event: EventId,
    transaction: TransactionId,
    amount: Option<Money>,
    /// True once a webhook of it had a definite outcome.
    settled: bool,
}

/// An order, with its idempotency key if it has one.
#[derive(Clone)]
struct Order {
    user: UserId,
    event: EventId,
    quantity: u32,
    key: Option<String>,
}

/// Actor, event and operation of a call, and the scope, key and digest of its idempotency key.
type CallSpec = (Actor, Option<EventId>, Operation, Option<(String, String, u64)>);

fn parse<T: std::str::FromStr>(text: &str) -> T {
    text.parse().unwrap_or_else(|_| unreachable!("{text} is well formed"))
}

impl Workload {
    pub(crate) fn new(world: Arc<World>, fleet: Arc<Fleet>) -> Arc<Self> {
        Arc::new(Self { world, fleet, known: Mutex::default() })
    }

    pub(crate) fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns a new request id.
    pub(crate) fn new_request_id(&self) -> RequestId {
        let mut known = self.known();
        known.requests += 1;
        parse(&format!("req-{}", known.requests))
    }

    fn random_user(&self) -> UserId {
        parse(&format!("user-{}", self.world.random_below(self.world.scenario.users)))
    }

    pub(crate) fn service() -> Actor {
        Actor::Service(parse("gateway"))
    }

    fn reader() -> Reader {
        Reader::Service(parse("gateway"))
    }

    pub(crate) fn admin() -> Actor {
        Actor::Admin(parse("organiser"))
    }

    /// Runs one client: the steps of the scenario, with random pauses.
    pub(crate) async fn run_client(self: Arc<Self>) {
        let world = self.world.clone();
        for _ in 0..world.scenario.steps {
            sleep(world.random_duration(world.scenario.hold + world.scenario.hold / 2)).await;
            let step = world.scenario.step(world.random_below(world.scenario.total_weight()));
            self.run_step(step).await;
        }
    }

    async fn run_step(&self, step: Step) {
        match step {
            Step::Book => self.book().await,
            Step::ReuseKey => self.reuse_key().await,
            Step::Pay => self.pay(false).await,
            Step::PayWrongAmount => self.pay(true).await,
            Step::ResendWebhook => {
                let payment = self.world.choose(&self.known().payments);
                if let Some(payment) = payment {
                    self.send_payment_webhook(&payment).await;
                }
            }
            Step::Cancel | Step::CancelAsService | Step::CancelForeign => self.cancel(step).await,
            Step::SettleRefund => self.settle_refund().await,
            Step::ReadAvailability => self.read_availability().await,
            Step::EditEvent | Step::CancelEvent => self.edit_event(step == Step::CancelEvent).await,
        }
    }

    /// Calls a random process and records the outcome. The client may disconnect first.
    pub(crate) async fn call<F>(
        &self,
        (actor, event, operation, key): CallSpec,
        work: impl FnOnce(Arc<Engine>, Caller) -> F,
    ) -> (Outcome, Option<CommandOutput>)
    where
        F: Future<Output = Result<CommandOutput, Error>>,
    {
        let (engine, process) = self.fleet.any_instance(&self.world).await;
        let (request, start) = (self.new_request_id(), self.world.elapsed());
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
        let (request, actor) = (request.as_str().to_owned(), actor.to_string());
        let event = event.map(|event| event.to_string());
        let call = Call { request, actor, event, operation, key, start, end, outcome: outcome.clone() };
        self.known().calls.push(call);
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
    fn record_result(&self, output: &CommandOutput) -> CallResult {
        match output {
            CommandOutput::Fresh(Answer::Booking(booking)) => {
                let (id, event, user, total) =
                    (booking.id, booking.event_id, booking.user.clone(), booking.total);
                let mut known = self.known();
                if !known.bookings.iter().any(|booking| booking.id == id) {
                    known.bookings.push(KnownBooking { id, event, user, total });
                }
                let status = Some(booking.status().to_string());
                CallResult { booking: Some(id.to_string()), status, ..CallResult::default() }
            }
            CommandOutput::Fresh(Answer::Refund(refund)) => {
                CallResult { refund: Some(refund.id.to_string()), ..CallResult::default() }
            }
            CommandOutput::Fresh(Answer::Event(_) | Answer::Refused(_)) => CallResult::default(),
            CommandOutput::Stored { response, replayed } => {
                let text = String::from_utf8_lossy(response);
                let (id, status) = text.split_once(' ').unwrap_or((&text, ""));
                let (booking, status) = (Some(id.to_owned()), Some(status.to_owned()));
                if *replayed {
                    self.world.record_coverage("outcome: replayed");
                }
                CallResult { booking, status, replayed: *replayed, ..CallResult::default() }
            }
        }
    }

    async fn book(&self) {
        let (Some(event), user) = (self.world.choose(&self.known().events), self.random_user()) else {
            return;
        };
        let quantity = 1 + u32::try_from(self.world.random_below(3)).unwrap_or(0);
        let key = (self.world.scenario.keys && self.world.chance_percent(50))
            .then(|| format!("key-{}", self.world.random_below(1 << 20)));
        let order = Order { user, event, quantity, key };
        self.known().orders.push(order.clone());
        // After an unknown outcome the client retries, if it has a key: then nothing can happen twice.
        for _ in 0..3 {
            let outcome = self.order(&order).await;
            if outcome != Outcome::Unknown || order.key.is_none() {
                return;
            }
            sleep(self.world.random_duration(Duration::from_secs(10))).await;
        }
    }

    /// Sends an order's key again: with the same order, with another quantity, or as another user.
    async fn reuse_key(&self) {
        let Some(order) = self.world.choose(&self.known().orders) else { return };
        let variant = match self.world.random_below(3) {
            0 => order,
            1 => Order { quantity: order.quantity + 1, ..order },
            _ => Order { user: parse("stranger"), ..order },
        };
        self.order(&variant).await;
    }

    async fn order(&self, order: &Order) -> Outcome {
        let Order { user, event, quantity, key } = order.clone();
        let by_service = self.world.chance_percent(20);
        let actor = if by_service { Self::service() } else { Actor::User(user.clone()) };
        let digest = u64::from(quantity);
        let key = key.map(|key| (user.to_string(), key, digest));
        let idempotency = key.as_ref().map(|(scope, key, digest)| {
            let mut fingerprint = [0; 32];
            fingerprint[..8].copy_from_slice(&digest.to_be_bytes());
            let render = Box::new(|answer: &Answer, _| match answer {
                Answer::Booking(booking) => Some(format!("{} {}", booking.id, booking.status()).into_bytes()),
                Answer::Event(_) | Answer::Refund(_) | Answer::Refused(_) => None,
            });
            Arc::new(Idempotency {
                scope: scope.clone(),
                key: key.clone(),
                fingerprint,
                serialize_response: render,
            })
        });
        let operation = Operation::Book { user: user.to_string(), quantity };
        let (outcome, output) = self
            .call((actor, Some(event), operation, key), |engine, caller| async move {
                let order = domain::Order {
                    event_id: event,
                    booking_id: engine.booking_id(),
                    user,
                    selection: TicketSelection::Quantity(quantity),
                    expected_total: None,
                    payment_method: None,
                };
                engine.book(caller, order, idempotency).await.outcome
            })
            .await;
        if let (Some(CommandOutput::Stored { .. }), Outcome::Done(result)) = (output, &outcome)
            && let Some(id) = result.booking.as_ref().and_then(|id| id.parse().ok())
        {
            self.fetch_booking(id).await;
        }
        outcome
    }

    /// Reads a booking that a replayed response has named only by its id.
    async fn fetch_booking(&self, id: BookingId) {
        let (engine, process) = self.fleet.any_instance(&self.world).await;
        let reader = Self::reader();
        let found = tokio::select! {
            biased;
            () = process.wait_until_killed() => None,
            found = engine.booking(&reader, &Actor::System, id) => found.ok(),
        };
        if let Some(booking) = found {
            let _ = self.record_result(&CommandOutput::Fresh(Answer::Booking(Arc::new(booking))));
        }
    }

    async fn pay(&self, wrong_amount: bool) {
        let Some(booking) = self.world.choose(&self.known().bookings) else { return };
        let transaction = {
            let known = self.known();
            // One time in ten a transaction pays several bookings, or another transaction pays the same
            // booking.
            let number = if self.world.chance_percent(10) { 0 } else { known.payments.len() };
            parse(&format!("pay-{number}"))
        };
        let amount = match self.world.random_below(2) {
            _ if wrong_amount => booking.total.times(2).ok(),
            0 => None,
            _ => Some(booking.total),
        };
        let KnownBooking { id: booking, event, .. } = booking;
        let payment = KnownPayment { booking, event, transaction, amount, settled: wrong_amount };
        self.known().payments.push(payment.clone());
        let times = if self.world.chance_percent(30) { 1 + self.world.random_below(4) } else { 1 };
        for _ in 0..times {
            self.send_payment_webhook(&payment).await;
            sleep(self.world.random_duration(Duration::from_secs(5))).await;
        }
    }

    /// Sends the webhook of a payment. Returns true if its outcome is definite.
    async fn send_payment_webhook(&self, known_payment: &KnownPayment) -> bool {
        let KnownPayment { booking, event, transaction, amount, .. } = known_payment.clone();
        let operation = Operation::Confirm {
            booking: booking.to_string(),
            transaction: transaction.to_string(),
            amount: amount.map(Money::amount),
        };
        let payment = CapturedPayment { transaction, amount };
        let (outcome, _) = self
            .call((Self::service(), Some(event), operation, None), |engine, caller| async move {
                engine.confirm(caller, booking, payment, None).await
            })
            .await;
        let settled = matches!(outcome, Outcome::Done(_) | Outcome::Refused { .. });
        if settled {
            for known in &mut self.known().payments {
                if known.booking == known_payment.booking && known.transaction == known_payment.transaction {
                    known.settled = true;
                }
            }
        }
        settled
    }

    /// Resends the webhook of every payment without a definite outcome, until it has one.
    pub(crate) async fn resend_open_webhooks(&self) {
        let open: Vec<KnownPayment> =
            self.known().payments.iter().filter(|payment| !payment.settled).cloned().collect();
        for payment in open {
            let mut tries = 0;
            while !self.send_payment_webhook(&payment).await {
                tries += 1;
                if tries > 20 {
                    self.world.report_violation(format!("no definite outcome of {}", payment.transaction));
                    break;
                }
                sleep(Duration::from_secs(1)).await;
            }
        }
    }

    async fn cancel(&self, step: Step) {
        let Some(booking) = self.world.choose(&self.known().bookings) else { return };
        let actor = match step {
            Step::CancelAsService => Self::service(),
            Step::CancelForeign => Actor::User(parse("stranger")),
            _ => Actor::User(booking.user.clone()),
        };
        let operation = Operation::Cancel { booking: booking.id.to_string() };
        let id = booking.id;
        self.call((actor, Some(booking.event), operation, None), |engine, caller| async move {
            engine.cancel(caller, id, None, None).await.outcome
        })
        .await;
    }

    async fn settle_refund(&self) {
        let (engine, process) = self.fleet.any_instance(&self.world).await;
        let reader = Self::reader();
        let listed = tokio::select! {
            biased;
            () = process.wait_until_killed() => None,
            listed = engine.refunds(&reader, None, None, 20) => listed.ok(),
        };
        if let Some(page) = listed {
            self.known().refunds.extend(page.rows.iter().map(|refund| refund.id));
        }
        let Some(id) = self.world.choose(&self.known().refunds) else { return };
        let outcome =
            RefundOutcome { succeeded: self.world.chance_percent(70), provider_reference: parse("payout") };
        let operation = Operation::Settle { refund: id.to_string() };
        self.call((Self::service(), None, operation, None), |engine, caller| async move {
            engine.settle(caller, id, outcome, None).await
        })
        .await;
    }

    async fn read_availability(&self) {
        let Some(id) = self.world.choose(&self.known().events) else { return };
        let (engine, process) = self.fleet.any_instance(&self.world).await;
        let start = self.world.elapsed();
        let reader = Self::reader();
        let found = tokio::select! {
            biased;
            () = process.wait_until_killed() => return,
            found = engine.event(&reader, id) => found,
        };
        let Ok(event) = found else { return };
        let result = CallResult {
            availability: Some((event.inventory.seq, event.available())),
            ..CallResult::default()
        };
        let (request, actor) = (self.new_request_id().as_str().to_owned(), "system".to_owned());
        let (event, end, outcome) = (Some(id.to_string()), Some(self.world.elapsed()), Outcome::Done(result));
        self.known().calls.push(Call {
            request,
            actor,
            event,
            operation: Operation::ReadAvailability,
            key: None,
            start,
            end,
            outcome,
        });
    }

    async fn edit_event(&self, cancels: bool) {
        let Some(id) = self.world.choose(&self.known().events) else { return };
        let patch = match self.world.random_below(4) {
            _ if cancels => EventPatch { status: Some(EventStatus::Cancelled), ..EventPatch::default() },
            0 => EventPatch { status: Some(EventStatus::Paused), ..EventPatch::default() },
            1 => EventPatch { status: Some(EventStatus::OnSale), ..EventPatch::default() },
            _ => EventPatch {
                capacity: u32::try_from(1 + self.world.random_below(8)).ok(),
                ..EventPatch::default()
            },
        };
        self.update_event(id, patch).await;
    }

    /// Records a call that was not made with [`Workload::call`].
    pub(crate) fn record_call(
        &self,
        (request, actor): (RequestId, Actor),
        operation: Operation,
        start: u64,
        outcome: Outcome,
    ) {
        let (request, actor) = (request.as_str().to_owned(), actor.to_string());
        let call = Call { request, actor, event: None, operation, key: None, start, end: None, outcome };
        self.known().calls.push(call);
    }

    pub(crate) async fn update_event(&self, id: EventId, patch: EventPatch) -> Outcome {
        let call = (Self::admin(), Some(id), Operation::Edit, None);
        self.call(call, |engine, caller| async move { engine.update_event(caller, id, patch).await }).await.0
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
