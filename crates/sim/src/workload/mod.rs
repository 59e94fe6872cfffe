//! The workload: the steps of clients, and the state that they know.

mod call;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use domain::{
    Actor, Answer, BookingId, CapturedPayment, EventId, EventPatch, EventStatus, Money, RefundId,
    RefundOutcome, RequestId, TicketSelection, TransactionId, UserId,
};
use engine::{CommandOutput, Reader};
use store::Idempotency;
use testkit::history::{Call, CallResult, Operation, Outcome};
use tokio::time::sleep;

pub(crate) use self::call::CallSpec;
use crate::fleet::Fleet;
use crate::scenario::Step;
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
            .call(CallSpec { actor, event: Some(event), operation, key }, |engine, caller| async move {
                let order =
                    domain::Order::new(event, engine.booking_id(), user, TicketSelection::Quantity(quantity));
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
            .call(
                CallSpec { actor: Self::service(), event: Some(event), operation, key: None },
                |engine, caller| async move { engine.confirm(caller, booking, payment, None).await },
            )
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
        self.call(
            CallSpec { actor, event: Some(booking.event), operation, key: None },
            |engine, caller| async move { engine.cancel(caller, id, None, None).await.outcome },
        )
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
        self.call(
            CallSpec { actor: Self::service(), event: None, operation, key: None },
            |engine, caller| async move { engine.settle(caller, id, outcome, None).await },
        )
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
        let request = self.new_request_id().as_str().to_owned();
        self.known().calls.push(Call {
            request,
            actor: "system".to_owned(),
            event: Some(id.to_string()),
            operation: Operation::ReadAvailability,
            key: None,
            start,
            end: Some(self.world.elapsed()),
            outcome: Outcome::Done(result),
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

    pub(crate) async fn update_event(&self, id: EventId, patch: EventPatch) -> Outcome {
        let call = CallSpec { actor: Self::admin(), event: Some(id), operation: Operation::Edit, key: None };
        self.call(call, |engine, caller| async move { engine.update_event(caller, id, patch).await }).await.0
    }
}
