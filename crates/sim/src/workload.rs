//! The people: what they do, what they hear, and what they know of it.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use domain::{
    Actor, Answer, BookingId, EventId, EventPatch, EventStatus, Money, RefundId, Refusal, RequestId,
    TicketSelection as Wish, TransactionId, UserId,
};
use engine::{Caller, CapturedPayment, CommandOutput, Engine, Error, OrderRequest, Reader, RefundOutcome};
use store::{Fault as StoreFault, Idempotency};
use testkit::history::{Call, CallResult, Operation, Outcome};
use tokio::time::sleep;

use crate::fleet::Fleet;
use crate::scenario::{Fault, Step};
use crate::world::World;

/// Everybody, and everything they know.
pub(crate) struct Workload {
    pub(crate) world: Arc<World>,
    pub(crate) fleet: Arc<Fleet>,
    known: Mutex<Known>,
}

/// What is known outside.
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

/// A booking that somebody was told of.
#[derive(Clone)]
struct KnownBooking {
    id: BookingId,
    event: EventId,
    user: UserId,
    total: Money,
}

/// A payment that was captured.
#[derive(Clone)]
struct KnownPayment {
    booking: BookingId,
    event: EventId,
    transaction: TransactionId,
    amount: Option<Money>,
    /// Whether its report was answered definitely.
    settled: bool,
}

/// An order under a key.
#[derive(Clone)]
struct Order {
    user: UserId,
    event: EventId,
    quantity: u32,
    key: Option<String>,
}

/// Who asks, about which event, what, and under which scope, key and digest.
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

    /// The name of a new request.
    pub(crate) fn request(&self) -> RequestId {
        let mut known = self.known();
        known.requests += 1;
        parse(&format!("req-{}", known.requests))
    }

    pub(crate) fn user(&self) -> UserId {
        parse(&format!("user-{}", self.world.below(self.world.scenario.users)))
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

    /// One client's day.
    pub(crate) async fn live(self: Arc<Self>) {
        let world = self.world.clone();
        for _ in 0..world.scenario.steps {
            sleep(world.moment(world.scenario.hold + world.scenario.hold / 2)).await;
            let step = world.scenario.step(world.below(world.scenario.total_weight()));
            self.act(step).await;
        }
    }

    async fn act(&self, step: Step) {
        match step {
            Step::Book => self.book().await,
            Step::BookAgain => self.book_again().await,
            Step::Pay => self.pay(false).await,
            Step::PayWrongly => self.pay(true).await,
            Step::Report => {
                let paid = self.world.one_of(&self.known().payments);
                if let Some(paid) = paid {
                    self.report(&paid).await;
                }
            }
            Step::Cancel | Step::CancelAsService | Step::CancelForeign => self.cancel(step).await,
            Step::Settle => self.settle().await,
            Step::Look => self.look().await,
            Step::Edit | Step::CancelEvent => self.edit(step == Step::CancelEvent).await,
        }
    }

    /// Asks some process, unless the client hangs up first, and keeps what was heard.
    pub(crate) async fn ask<F>(
        &self,
        (actor, event, ask, key): CallSpec,
        work: impl FnOnce(Arc<Engine>, Caller) -> F,
    ) -> (Outcome, Option<CommandOutput>)
    where
        F: Future<Output = Result<CommandOutput, Error>>,
    {
        let (engine, life) = self.fleet.any(&self.world).await;
        let (request, start) = (self.request(), self.world.elapsed());
        let caller = Caller { actor: actor.clone(), request: request.clone(), trace: None, deadline: None };
        self.world.note(format_args!("{request}: {actor}: {ask:?}"));
        let patience = if self.world.should_inject(Fault::HangUp) {
            self.world.moment(Duration::from_millis(300))
        } else {
            Duration::from_mins(3)
        };
        let answer = tokio::select! {
            biased;
            () = life.death() => None,
            answer = work(engine, caller) => Some(answer),
            () = sleep(patience) => None,
        };
        let outcome = answer.as_ref().map_or(Outcome::Unknown, |answer| self.heard(answer));
        let end = answer.is_some().then(|| self.world.elapsed());
        self.world.note(format_args!("{request}: heard {outcome:?}"));
        let (request, actor) = (request.as_str().to_owned(), actor.to_string());
        let event = event.map(|event| event.to_string());
        let heard = outcome.clone();
        self.known().calls.push(Call { request, actor, event, operation: ask, key, start, end, outcome });
        (heard, answer.and_then(Result::ok))
    }

    /// What an answer means, after a look at whether it may be.
    fn heard(&self, answer: &Result<CommandOutput, Error>) -> Outcome {
        match answer {
            Ok(given) => Outcome::Done(self.learn(given)),
            Err(Error::Refused(refusal)) => {
                let refund = named(refusal);
                if let Some(id) = refund {
                    self.known().refunds.push(id);
                }
                let refund = refund.map(|id| id.to_string());
                Outcome::Refused { code: refusal.code().to_owned(), refund }
            }
            Err(Error::KeyReused) => {
                self.world.saw("heard: key reused");
                Outcome::Refused { code: "idempotency_key_reused".to_owned(), refund: None }
            }
            Err(Error::Limited(_)) => Outcome::Failed,
            Err(Error::Overloaded) => {
                self.world.saw("heard: overloaded");
                Outcome::Failed
            }
            Err(Error::Fault(StoreFault::Broken(cause))) => {
                let declared = self.world.poisoned(|poisoned| {
                    !poisoned.bookings_ever.is_empty() || !poisoned.events_ever.is_empty()
                });
                if !declared {
                    self.world.wrong(format!("failed, and nothing explains it: {cause}"));
                }
                Outcome::Failed
            }
            Err(Error::Fault(StoreFault::Unavailable(cause))) => {
                // The limiter and a locked row say so themselves, here only where a fault was injected.
                let known = [
                    "injected",
                    "interrupted",
                    "coordination is unavailable",
                    "others keep its event locked",
                ];
                if !known.iter().any(|known| cause.to_string().contains(known)) {
                    self.world.wrong(format!("unavailable, and nothing explains it: {cause}"));
                }
                self.world.saw("heard: unavailable");
                Outcome::Failed
            }
            Err(Error::Fault(StoreFault::OutcomeUnknown(cause))) => {
                if !["injected", "interrupted"].iter().any(|known| cause.to_string().contains(known)) {
                    self.world.wrong(format!("unknown, and nothing explains it: {cause}"));
                }
                self.world.saw("heard: unknown");
                Outcome::Unknown
            }
        }
    }

    fn learn(&self, given: &CommandOutput) -> CallResult {
        match given {
            CommandOutput::Fresh(Answer::Booking(booking)) => {
                let (id, event, user, total) =
                    (booking.id, booking.event_id, booking.user.clone(), booking.total);
                let mut known = self.known();
                if !known.bookings.iter().any(|bought| bought.id == id) {
                    known.bookings.push(KnownBooking { id, event, user, total });
                }
                let status = Some(booking.status().to_string());
                CallResult { booking: Some(id.to_string()), status, ..CallResult::default() }
            }
            CommandOutput::Fresh(Answer::Refund(refund)) => {
                CallResult { refund: Some(refund.id.to_string()), ..CallResult::default() }
            }
            CommandOutput::Fresh(Answer::Event(_) | Answer::Refused(_)) => CallResult::default(),
            CommandOutput::Stored { answer, replayed } => {
                let text = String::from_utf8_lossy(answer);
                let (id, status) = text.split_once(' ').unwrap_or((&text, ""));
                let (booking, status) = (Some(id.to_owned()), Some(status.to_owned()));
                if *replayed {
                    self.world.saw("heard: replayed");
                }
                CallResult { booking, status, replayed: *replayed, ..CallResult::default() }
            }
        }
    }

    async fn book(&self) {
        let (Some(event), user) = (self.world.one_of(&self.known().events), self.user()) else { return };
        let quantity = 1 + u32::try_from(self.world.below(3)).unwrap_or(0);
        let key = (self.world.scenario.keys && self.world.percent(50))
            .then(|| format!("key-{}", self.world.below(1 << 20)));
        let order = Order { user, event, quantity, key };
        self.known().orders.push(order.clone());
        // Whoever does not know asks again: under a key nothing can happen twice.
        for _ in 0..3 {
            let outcome = self.order(&order).await;
            if outcome != Outcome::Unknown || order.key.is_none() {
                return;
            }
            sleep(self.world.moment(Duration::from_secs(10))).await;
        }
    }

    /// A key that comes again: for the same, for something else, or from somebody else.
    async fn book_again(&self) {
        let Some(order) = self.world.one_of(&self.known().orders) else { return };
        let variant = match self.world.below(3) {
            0 => order,
            1 => Order { quantity: order.quantity + 1, ..order },
            _ => Order { user: parse("stranger"), ..order },
        };
        self.order(&variant).await;
    }

    async fn order(&self, order: &Order) -> Outcome {
        let Order { user, event, quantity, key } = order.clone();
        let by_service = self.world.percent(20);
        let actor = if by_service { Self::service() } else { Actor::User(user.clone()) };
        let digest = u64::from(quantity);
        let key = key.map(|key| (user.to_string(), key, digest));
        let keep = key.as_ref().map(|(scope, key, digest)| {
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
        let ask = Operation::Book { user: user.to_string(), quantity };
        let (outcome, given) = self
            .ask((actor, Some(event), ask, key), |engine, caller| async move {
                let ask = Wish::Quantity(quantity);
                let request = OrderRequest {
                    event_id: event,
                    user,
                    selection: ask,
                    expected_total: None,
                    payment_method: None,
                };
                engine.book(caller, request, keep).await.outcome
            })
            .await;
        if let (Some(CommandOutput::Stored { .. }), Outcome::Done(told)) = (given, &outcome)
            && let Some(id) = told.booking.as_ref().and_then(|id| id.parse().ok())
        {
            self.fetch_booking(id).await;
        }
        outcome
    }

    /// Reads a booking that was told of by name only.
    async fn fetch_booking(&self, id: BookingId) {
        let (engine, life) = self.fleet.any(&self.world).await;
        let reader = Self::reader();
        let found = tokio::select! {
            biased;
            () = life.death() => None,
            found = engine.booking(&reader, &Actor::System, id) => found.ok(),
        };
        if let Some(booking) = found {
            let _ = self.learn(&CommandOutput::Fresh(Answer::Booking(Arc::new(booking))));
        }
    }

    async fn pay(&self, wrongly: bool) {
        let Some(bought) = self.world.one_of(&self.known().bookings) else { return };
        let transaction = {
            let known = self.known();
            // Now and then one transaction pays several bookings, or the same one under a new name.
            let number = if self.world.percent(10) { 0 } else { known.payments.len() };
            parse(&format!("pay-{number}"))
        };
        let amount = match self.world.below(2) {
            _ if wrongly => bought.total.times(2).ok(),
            0 => None,
            _ => Some(bought.total),
        };
        let KnownBooking { id: booking, event, .. } = bought;
        let paid = KnownPayment { booking, event, transaction, amount, settled: wrongly };
        self.known().payments.push(paid.clone());
        let times = if self.world.percent(30) { 1 + self.world.below(4) } else { 1 };
        for _ in 0..times {
            self.report(&paid).await;
            sleep(self.world.moment(Duration::from_secs(5))).await;
        }
    }

    /// A webhook: whether its answer was definite.
    async fn report(&self, paid: &KnownPayment) -> bool {
        let KnownPayment { booking, event, transaction, amount, .. } = paid.clone();
        let ask = Operation::Confirm {
            booking: booking.to_string(),
            transaction: transaction.to_string(),
            amount: amount.map(Money::amount),
        };
        let payment = CapturedPayment { transaction, amount };
        let (outcome, _) = self
            .ask((Self::service(), Some(event), ask, None), |engine, caller| async move {
                engine.confirm(caller, booking, payment, None).await
            })
            .await;
        let settled = matches!(outcome, Outcome::Done(_) | Outcome::Refused { .. });
        if settled {
            for known in &mut self.known().payments {
                if known.booking == paid.booking && known.transaction == paid.transaction {
                    known.settled = true;
                }
            }
        }
        settled
    }

    /// Every payment whose report was never answered definitely is reported again, until it is.
    pub(crate) async fn resend_open_webhooks(&self) {
        let open: Vec<KnownPayment> =
            self.known().payments.iter().filter(|paid| !paid.settled).cloned().collect();
        for paid in open {
            let mut tries = 0;
            while !self.report(&paid).await {
                tries += 1;
                if tries > 20 {
                    self.world.wrong(format!("no definite answer to {}", paid.transaction));
                    break;
                }
                sleep(Duration::from_secs(1)).await;
            }
        }
    }

    async fn cancel(&self, step: Step) {
        let Some(bought) = self.world.one_of(&self.known().bookings) else { return };
        let actor = match step {
            Step::CancelAsService => Self::service(),
            Step::CancelForeign => Actor::User(parse("stranger")),
            _ => Actor::User(bought.user.clone()),
        };
        let ask = Operation::Cancel { booking: bought.id.to_string() };
        let id = bought.id;
        self.ask((actor, Some(bought.event), ask, None), |engine, caller| async move {
            engine.cancel(caller, id, None, None).await.outcome
        })
        .await;
    }

    async fn settle(&self) {
        let (engine, life) = self.fleet.any(&self.world).await;
        let reader = Self::reader();
        let listed = tokio::select! {
            biased;
            () = life.death() => None,
            listed = engine.refunds(&reader, None, None, 20) => listed.ok(),
        };
        if let Some(page) = listed {
            self.known().refunds.extend(page.rows.iter().map(|refund| refund.id));
        }
        let Some(id) = self.world.one_of(&self.known().refunds) else { return };
        let outcome =
            RefundOutcome { succeeded: self.world.percent(70), provider_reference: parse("payout") };
        let ask = Operation::Settle { refund: id.to_string() };
        self.ask((Self::service(), None, ask, None), |engine, caller| async move {
            engine.settle(caller, id, outcome, None).await
        })
        .await;
    }

    async fn look(&self) {
        let Some(id) = self.world.one_of(&self.known().events) else { return };
        let (engine, life) = self.fleet.any(&self.world).await;
        let start = self.world.elapsed();
        let reader = Self::reader();
        let seen = tokio::select! {
            biased;
            () = life.death() => return,
            seen = engine.event(&reader, id) => seen,
        };
        let Ok(event) = seen else { return };
        let told = CallResult {
            availability: Some((event.inventory.seq, event.available())),
            ..CallResult::default()
        };
        let (request, actor) = (self.request().as_str().to_owned(), "system".to_owned());
        let (event, end, outcome) = (Some(id.to_string()), Some(self.world.elapsed()), Outcome::Done(told));
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

    async fn edit(&self, ends: bool) {
        let Some(id) = self.world.one_of(&self.known().events) else { return };
        let patch = match self.world.below(4) {
            _ if ends => EventPatch { status: Some(EventStatus::Cancelled), ..EventPatch::default() },
            0 => EventPatch { status: Some(EventStatus::Paused), ..EventPatch::default() },
            1 => EventPatch { status: Some(EventStatus::OnSale), ..EventPatch::default() },
            _ => {
                EventPatch { capacity: u32::try_from(1 + self.world.below(8)).ok(), ..EventPatch::default() }
            }
        };
        self.change(id, patch).await;
    }

    /// Keeps a call that was made otherwise than by [`Workload::ask`].
    pub(crate) fn note(
        &self,
        (request, actor): (RequestId, Actor),
        ask: Operation,
        start: u64,
        outcome: Outcome,
    ) {
        let (request, actor) = (request.as_str().to_owned(), actor.to_string());
        let call = Call { request, actor, event: None, operation: ask, key: None, start, end: None, outcome };
        self.known().calls.push(call);
    }

    pub(crate) async fn change(&self, id: EventId, patch: EventPatch) -> Outcome {
        let asked = (Self::admin(), Some(id), Operation::Edit, None);
        self.ask(asked, |engine, caller| async move { engine.update_event(caller, id, patch).await }).await.0
    }
}

/// The refund that a refusal names.
fn named(refusal: &Refusal) -> Option<RefundId> {
    match refusal {
        Refusal::EventCancelled { refund, .. } | Refusal::InvalidState { refund, .. } => {
            refund.as_ref().map(|refund| refund.id)
        }
        Refusal::HoldExpired { refund, .. } => Some(refund.id),
        _ => None,
    }
}
