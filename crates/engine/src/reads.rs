//! Reads of callers: a few at a time, fair among callers, and bounded. A crowd of readers leaves the database to
//! commands, to readiness and to the background tasks.
//!
//! A read waits twice: for one of its caller's own slots, then for one of all callers' slots, first come, first
//! served. A caller has no more reads in the second queue than slots of its own, so callers take turns there,
//! however many reads one of them sends. Services have slots apart from everybody else's.
//!
//! What a command looks up on its way is no read of a caller and waits for no slot.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};

use domain::UserId;
use store::{Cause, Fault, Store};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;

use crate::limit::{
    CALLER_READS_MAX, CALLER_READS_WAITING_MAX, PUBLIC_READS_MAX, READ_WAIT_MAX, READS_WAITING_MAX,
    SERVICE_READS_MAX,
};
use crate::{Engine, Error};

/// Who reads: what it may see, and with whom it takes turns.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Reader {
    /// A user, who sees its own bookings.
    User(UserId),
    /// Somebody without a token, by the network that its address belongs to.
    Address(IpAddr),
    /// A service, an admin, or the program itself: sees everything.
    Service,
}

/// The slots in which callers read.
pub(crate) struct Reads {
    public: Lane,
    services: Lane,
    callers: Arc<Callers>,
}

/// Slots of one kind of callers, and the places of those who wait for one.
struct Lane {
    slots: Arc<Semaphore>,
    places: Arc<Semaphore>,
}

/// Callers that read or wait.
#[derive(Default)]
struct Callers(Mutex<HashMap<Reader, Caller>>);

struct Caller {
    slots: Arc<Semaphore>,
    reads: usize,
}

/// Counts one read of a caller, waiting or under way, until it is dropped.
struct CallerGuard {
    callers: Arc<Callers>,
    reader: Reader,
}

/// The right to read, until it is dropped.
pub(crate) struct Slot {
    _permit: OwnedSemaphorePermit,
    _caller_permit: OwnedSemaphorePermit,
    _caller: CallerGuard,
}

impl Default for Reads {
    fn default() -> Self {
        let lane = |slots| Lane {
            slots: Arc::new(Semaphore::new(slots)),
            places: Arc::new(Semaphore::new(READS_WAITING_MAX)),
        };
        Self { public: lane(PUBLIC_READS_MAX), services: lane(SERVICE_READS_MAX), callers: Arc::default() }
    }
}

impl Reads {
    /// How many reads wait for a slot.
    pub(crate) fn waiting(&self) -> usize {
        let waiting = |lane: &Lane| READS_WAITING_MAX - lane.places.available_permits();
        waiting(&self.public) + waiting(&self.services)
    }

    /// Waits for a slot, at most [`READ_WAIT_MAX`].
    async fn slot(&self, reader: &Reader) -> Result<Slot, Error> {
        let lane = if *reader == Reader::Service { &self.services } else { &self.public };
        let _place = lane.places.clone().try_acquire_owned().map_err(|_| Error::Overloaded)?;
        let (caller, caller_slots) = self.callers.enter(reader)?;
        let wait = async {
            let caller_permit = caller_slots.acquire_owned().await.ok()?;
            let permit = lane.slots.clone().acquire_owned().await.ok()?;
            Some(Slot { _permit: permit, _caller_permit: caller_permit, _caller: caller })
        };
        let waited = timeout(READ_WAIT_MAX, wait).await;
        waited.ok().flatten().ok_or(Error::Overloaded)
    }
}

impl Callers {
    /// Counts one more read of a caller, where it may have one more; its slots are the caller's own.
    fn enter(self: &Arc<Self>, reader: &Reader) -> Result<(CallerGuard, Arc<Semaphore>), Error> {
        let mut callers = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let new = || Caller { slots: Arc::new(Semaphore::new(CALLER_READS_MAX)), reads: 0 };
        let caller = callers.entry(reader.clone()).or_insert_with(new);
        // The places of services bound their reads.
        if *reader != Reader::Service && caller.reads >= CALLER_READS_WAITING_MAX {
            return Err(Error::Overloaded);
        }
        caller.reads += 1;
        let slots = caller.slots.clone();
        Ok((CallerGuard { callers: self.clone(), reader: reader.clone() }, slots))
    }
}

impl Drop for CallerGuard {
    fn drop(&mut self) {
        let mut callers = self.callers.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Entry::Occupied(mut caller) = callers.entry(self.reader.clone()) {
            caller.get_mut().reads -= 1;
            if caller.get().reads == 0 {
                caller.remove();
            }
        }
    }
}

impl Engine {
    /// Reads for a caller once it has a slot, and keeps the slot until the database has answered, also when the
    /// caller goes away before: the database does not notice that.
    #[expect(
        clippy::disallowed_methods,
        reason = "it belongs to one request, which gets the panic for an answer"
    )]
    pub(crate) async fn read<T, R>(
        &self,
        reader: &Reader,
        read: impl FnOnce(Arc<dyn Store>) -> R,
    ) -> Result<T, Error>
    where
        T: Send + 'static,
        R: Future<Output = Result<T, Fault>> + Send + 'static,
    {
        let slot = self.reads.slot(reader).await?;
        let read = read(self.ports.store.clone());
        let finished = self.tasks.spawn(async move {
            let answer = read.await;
            drop(slot);
            answer
        });
        let failed = |error| Err(Fault::Broken(Cause::new(error)));
        Ok(finished.await.unwrap_or_else(failed)?)
    }
}

#[cfg(test)]
mod tests {
    use coordination::Rule;
    use coordination::local::{LocalLimiter, LocalLock};
    use domain::{Actor, Answer, BookingId, Money, NewEvent, NewTicketType};
    use store::{Sqlite, SqliteOptions};
    use tokio::time::Instant;

    use super::*;
    use crate::{
        Caller as Sender, CapturedPayment, Given, OrderRequest, Policy, Ports, Silent, SystemClock, SystemIds,
    };

    fn user(name: &str) -> Reader {
        Reader::User(name.parse().unwrap())
    }

    /// Waits until `count` reads are waiting.
    async fn waiting(reads: &Reads, count: usize) {
        for _ in 0..1_000_000 {
            if reads.waiting() == count {
                return;
            }
            tokio::task::yield_now().await;
        }
        panic!("{} reads are waiting, not {count}", reads.waiting());
    }

    /// Sends a read that takes no time; the answer names it.
    fn send(reads: &Arc<Reads>, reader: &Reader, name: u32, done: &Arc<Mutex<Vec<u32>>>) {
        let (reads, reader, done) = (reads.clone(), reader.clone(), done.clone());
        #[expect(clippy::disallowed_methods, reason = "a test waits for it")]
        tokio::spawn(async move {
            let _slot = reads.slot(&reader).await.unwrap();
            done.lock().unwrap().push(name);
            tokio::task::yield_now().await;
        });
    }

    #[tokio::test(start_paused = true)]
    async fn s1_a_caller_that_sends_many_reads_lets_others_go_first() {
        let (reads, done) = (Arc::new(Reads::default()), Arc::default());
        let mut slow = Vec::new();
        for name in ["a", "a", "b", "b"] {
            slow.push(reads.slot(&user(name)).await.unwrap());
        }
        for name in 0..1_000 {
            send(&reads, &user("crowd"), name, &done);
        }
        waiting(&reads, 1_000).await;
        for name in 1_000..1_010 {
            send(&reads, &user(&format!("single-{name}")), name, &done);
        }
        waiting(&reads, 1_010).await;
        drop(slow);
        waiting(&reads, 0).await;
        tokio::task::yield_now().await;
        let done = done.lock().unwrap().clone();
        let last_single = done.iter().rposition(|name| *name >= 1_000).unwrap();
        assert_eq!(done.len(), 1_010);
        // Those of the crowd that were in the queue before, and as many again as single ones were done at a time.
        assert!(last_single < 2 * CALLER_READS_MAX + 10 + CALLER_READS_MAX * 5, "{last_single}");
    }

    #[tokio::test(start_paused = true)]
    async fn s1_no_caller_has_all_slots_and_services_have_their_own() {
        let reads = Reads::default();
        let begun = Instant::now();
        let mut slots = Vec::new();
        for _ in 0..CALLER_READS_MAX {
            slots.push(reads.slot(&user("a")).await.unwrap());
        }
        assert!(matches!(reads.slot(&user("a")).await, Err(Error::Overloaded)));
        assert_eq!(begun.elapsed(), READ_WAIT_MAX);
        for name in ["b", "c"] {
            slots.push(reads.slot(&user(name)).await.unwrap());
        }
        assert!(matches!(reads.slot(&user("d")).await, Err(Error::Overloaded)));
        assert_eq!(begun.elapsed(), 2 * READ_WAIT_MAX);
        for _ in 0..SERVICE_READS_MAX {
            slots.push(reads.slot(&Reader::Service).await.unwrap());
        }
        assert_eq!(begun.elapsed(), 2 * READ_WAIT_MAX);
        drop(slots);
        assert_eq!(reads.waiting(), 0);
        assert!(reads.callers.0.lock().unwrap().is_empty(), "no caller is remembered");
    }

    #[tokio::test(start_paused = true)]
    async fn s1_a_caller_waits_with_so_many_reads_and_is_refused_more() {
        let (reads, done) = (Arc::new(Reads::default()), Arc::default());
        let slots = (reads.slot(&user("a")).await.unwrap(), reads.slot(&user("a")).await.unwrap());
        let waits = CALLER_READS_WAITING_MAX - CALLER_READS_MAX;
        for name in 0..waits {
            send(&reads, &user("a"), u32::try_from(name).unwrap(), &done);
        }
        waiting(&reads, waits).await;
        let begun = Instant::now();
        assert!(matches!(reads.slot(&user("a")).await, Err(Error::Overloaded)));
        assert!(reads.slot(&user("b")).await.is_ok());
        assert_eq!(begun.elapsed(), std::time::Duration::ZERO);
        drop(slots);
        waiting(&reads, 0).await;
    }

    /// An engine, and a booking that can be paid.
    async fn engine_with_booking() -> (Arc<Engine>, Sender, BookingId) {
        let clock = Arc::new(SystemClock);
        let options = SqliteOptions { clock: clock.clone(), inline: true };
        let ports = Ports {
            store: Arc::new(Sqlite::in_memory(&options).unwrap()),
            lock: Arc::new(LocalLock::new(clock.clone())),
            lease: None,
            limiter: Arc::new(LocalLimiter::new(clock.clone())),
            clock,
            ids: Arc::new(SystemIds),
            publish: Arc::new(Silent),
        };
        let rule = |name| Rule::parse(name, "9/10s").unwrap();
        let policy = Policy {
            hold_seconds: 600,
            cancel_cutoff_seconds: 60,
            book: rule("book"),
            cancel: rule("cancel"),
        };
        let engine = Engine::start(ports, policy);
        let name = || "Night of the Open Doors".parse().unwrap();
        let price = Money::new(4_500, "EUR".parse().unwrap()).unwrap();
        let event = NewEvent {
            id: engine.event_id(),
            name: name(),
            venue: name(),
            starts_at: engine.now().plus_seconds(86_400),
            time_zone: None,
            capacity: 10,
            ticket_types: vec![NewTicketType {
                id: engine.ticket_type_id(),
                name: name(),
                price,
                capacity: None,
            }],
            single_price: true,
            sales_start_at: None,
            sales_end_at: None,
            hold_seconds: 600,
            cancel_cutoff_seconds: 60,
            max_tickets_per_booking: 10,
            max_tickets_per_user: None,
        };
        let buyer: UserId = "ann".parse().unwrap();
        let admin = Sender {
            actor: Actor::Admin(buyer.clone()),
            request: "req-test".parse().unwrap(),
            trace: None,
            gives_up: None,
        };
        let event_id = event.id;
        engine.create_event(admin.clone(), event, None).await.unwrap();
        let ask = domain::Ask::Quantity(1);
        let order = OrderRequest { event_id, user: buyer, ask, expected_total: None, payment_method: None };
        match engine.book(admin.clone(), order, None).await.outcome {
            Ok(Given::Fresh(Answer::Booking(booking))) => (engine, admin, booking.id),
            other => panic!("no booking: {other:?}"),
        }
    }

    #[tokio::test(start_paused = true)]
    async fn s1_payments_cancellations_and_readiness_wait_for_no_read() {
        let (engine, admin, booking) = engine_with_booking().await;
        let mut slots = Vec::new();
        for reader in [user("a"), user("a"), user("b"), user("b"), Reader::Service, Reader::Service] {
            slots.push(engine.reads.slot(&reader).await.unwrap());
        }
        let begun = Instant::now();
        let transaction = "pay-1".parse().unwrap();
        let payment = CapturedPayment { transaction, amount: None };
        engine.confirm(admin.clone(), booking, payment, None).await.unwrap();
        engine.cancel(admin, booking, None, None).await.outcome.unwrap();
        engine.health().await.unwrap();
        assert!(begun.elapsed() < READ_WAIT_MAX);
        for reader in [user("c"), Reader::Service] {
            assert!(matches!(engine.booking(&reader, booking).await, Err(Error::Overloaded)));
        }
        slots.clear();
        engine.booking(&Reader::Service, booking).await.unwrap();
    }

    /// A caller that goes away leaves its read behind, which still works on a connection.
    #[tokio::test(start_paused = true)]
    async fn s1_a_read_keeps_its_slot_until_it_is_finished() {
        let (engine, ..) = engine_with_booking().await;
        let finish = Arc::new(tokio::sync::Notify::new());
        let read = || {
            let finish = finish.clone();
            engine.read(&Reader::Service, move |_| async move {
                finish.notified().await;
                Ok(())
            })
        };
        for _ in 0..SERVICE_READS_MAX {
            assert!(timeout(READ_WAIT_MAX / 4, read()).await.is_err());
        }
        assert!(matches!(engine.stats(&Reader::Service).await, Err(Error::Overloaded)));
        finish.notify_waiters();
        engine.stats(&Reader::Service).await.unwrap();
    }
}
