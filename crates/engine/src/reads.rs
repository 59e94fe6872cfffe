//! Reads of callers: few at a time, fair among callers, and bounded, so that many readers leave the database
//! to commands, readiness and the background tasks.
//!
//! A read waits twice: for one of its caller's own slots, then for one of the slots of its kind of caller,
//! first come, first served. In the second queue a caller has at most as many reads as it has slots, so
//! callers take turns there, however many reads one of them sends. Users, callers without a token, and
//! services have separate slots.
//!
//! The lookups of a command are not reads of a caller and wait for no slot.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::net::IpAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use domain::UserId;
use store::{Cause, Fault};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, timeout, timeout_at};
use tokio_util::task::TaskTracker;

use crate::Error;
use crate::limit::{CALLER_READS_MAX, CALLER_READS_QUEUED_MAX, KIND_READS_MAX, READ_MAX, READ_WAIT_MAX};

/// The caller of a read, which determines the slots that the read uses. It does not determine what may be
/// read.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Reader {
    /// A user.
    User(UserId),
    /// A caller without a token, by the network of its address.
    Address(IpAddr),
    /// A service or an admin, by the subject of its token.
    Service(UserId),
}

/// The slots for reads of callers.
#[derive(Default)]
pub(crate) struct Reads {
    users: Slots,
    addresses: Slots,
    services: Slots,
    callers: Arc<Callers>,
}

/// The slots of one kind of caller.
struct Slots {
    permits: Arc<Semaphore>,
    /// Number of reads that wait for one of these slots, or for one of their caller's own.
    waiting: AtomicUsize,
}

/// The callers that have reads waiting or running.
#[derive(Default)]
struct Callers(Mutex<HashMap<Reader, CallerReads>>);

struct CallerReads {
    slots: Arc<Semaphore>,
    /// Number of reads that wait or run.
    count: usize,
}

/// Counts one read of a caller, waiting or running, until it is dropped.
struct CallerGuard {
    callers: Arc<Callers>,
    reader: Reader,
}

/// Counts one waiting read until it is dropped.
struct WaitGuard<'s>(&'s AtomicUsize);

/// The permission to read, until it is dropped.
pub(crate) struct Slot {
    _permit: OwnedSemaphorePermit,
    _caller_permit: OwnedSemaphorePermit,
    _caller: CallerGuard,
}

impl Default for Slots {
    fn default() -> Self {
        Self { permits: Arc::new(Semaphore::new(KIND_READS_MAX)), waiting: AtomicUsize::new(0) }
    }
}

impl Reads {
    /// The number of waiting reads, per kind of caller.
    pub(crate) fn waiting(&self) -> [(&'static str, usize); 3] {
        let waiting = |slots: &Slots| slots.waiting.load(Ordering::Relaxed);
        [
            ("users", waiting(&self.users)),
            ("addresses", waiting(&self.addresses)),
            ("services", waiting(&self.services)),
        ]
    }

    /// Runs `work`, a read of a caller, in a task of `tasks` once it has a slot, and returns within
    /// [`READ_MAX`]. The read keeps its slot until the database has responded, even if the caller disconnects
    /// before: the database does not notice that.
    #[expect(
        clippy::disallowed_methods,
        reason = "the task belongs to one request, which gets an error if the task panics"
    )]
    pub(crate) async fn run<T: Send + 'static>(
        &self,
        tasks: &TaskTracker,
        reader: &Reader,
        work: impl Future<Output = Result<T, Fault>> + Send + 'static,
    ) -> Result<T, Error> {
        let latest = Instant::now() + READ_MAX;
        let slot = self.slot(reader).await?;
        let finished = tasks.spawn(async move {
            let answer = work.await;
            drop(slot);
            answer
        });
        match timeout_at(latest, finished).await {
            Ok(Ok(answer)) => Ok(answer?),
            Ok(Err(error)) => Err(Fault::Broken(Cause::new(error)).into()),
            Err(_) => Err(Fault::Unavailable(Cause::new("the database did not respond in time")).into()),
        }
    }

    /// Waits for a slot, up to [`READ_WAIT_MAX`].
    async fn slot(&self, reader: &Reader) -> Result<Slot, Error> {
        let slots = match reader {
            Reader::User(_) => &self.users,
            Reader::Address(_) => &self.addresses,
            Reader::Service(_) => &self.services,
        };
        let (caller, caller_slots) = self.callers.enter(reader)?;
        let _waiting = WaitGuard::new(&slots.waiting);
        let wait = async {
            let caller_permit = caller_slots.acquire_owned().await.ok()?;
            let permit = slots.permits.clone().acquire_owned().await.ok()?;
            Some(Slot { _permit: permit, _caller_permit: caller_permit, _caller: caller })
        };
        let waited = timeout(READ_WAIT_MAX, wait).await;
        waited.ok().flatten().ok_or(Error::Overloaded)
    }
}

impl Callers {
    /// Counts one more read of a caller, unless the caller has reached its maximum. Also returns the caller's
    /// slots.
    fn enter(self: &Arc<Self>, reader: &Reader) -> Result<(CallerGuard, Arc<Semaphore>), Error> {
        let mut callers = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let new = || CallerReads { slots: Arc::new(Semaphore::new(CALLER_READS_MAX)), count: 0 };
        let caller = callers.entry(reader.clone()).or_insert_with(new);
        if caller.count >= CALLER_READS_QUEUED_MAX {
            return Err(Error::Overloaded);
        }
        caller.count += 1;
        let slots = caller.slots.clone();
        Ok((CallerGuard { callers: self.clone(), reader: reader.clone() }, slots))
    }
}

impl Drop for CallerGuard {
    fn drop(&mut self) {
        let mut callers = self.callers.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Entry::Occupied(mut caller) = callers.entry(self.reader.clone()) {
            caller.get_mut().count -= 1;
            if caller.get().count == 0 {
                caller.remove();
            }
        }
    }
}

impl<'s> WaitGuard<'s> {
    fn new(waiting: &'s AtomicUsize) -> Self {
        waiting.fetch_add(1, Ordering::Relaxed);
        Self(waiting)
    }
}

impl Drop for WaitGuard<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use coordination::Rule;
    use coordination::local::{LocalLimiter, LocalLock};
    use domain::{Actor, Answer, BookingId, CapturedPayment, Money, NewEvent, NewTicketType, Order};
    use store::{Sqlite, SqliteOptions};
    use tokio::time::Instant;

    use super::*;
    use crate::{
        Caller as Sender, CommandOutput, Engine, NoopListener, Policy, Ports, SystemClock, SystemIds,
    };

    fn user(name: &str) -> Reader {
        Reader::User(name.parse().unwrap())
    }

    fn service(name: &str) -> Reader {
        Reader::Service(name.parse().unwrap())
    }

    fn address(number: u8) -> Reader {
        Reader::Address([192, 0, 2, number].into())
    }

    fn all_waiting(reads: &Reads) -> usize {
        reads.waiting().into_iter().map(|(_, waiting)| waiting).sum()
    }

    /// Waits until `count` reads are waiting.
    async fn wait_for_reads(reads: &Reads, count: usize) {
        for _ in 0..1_000_000 {
            if all_waiting(reads) == count {
                return;
            }
            tokio::task::yield_now().await;
        }
        panic!("{} reads are waiting, not {count}", all_waiting(reads));
    }

    /// All slots of all kinds.
    async fn all_slots(reads: &Reads) -> Vec<Slot> {
        let mut slots = Vec::new();
        for number in 0..u8::try_from(KIND_READS_MAX).unwrap() {
            let name = format!("busy-{number}");
            for reader in [user(&name), service(&name), address(number)] {
                slots.push(reads.slot(&reader).await.unwrap());
            }
        }
        slots
    }

    /// Sends a read that takes no time, and appends its name to `done` when it runs.
    fn send(reads: &Arc<Reads>, reader: &Reader, name: u32, done: &Arc<Mutex<Vec<u32>>>) {
        let reads = reads.clone();
        let reader = reader.clone();
        let done = done.clone();
        #[expect(clippy::disallowed_methods, reason = "a test waits for it")]
        tokio::spawn(async move {
            let _slot = reads.slot(&reader).await.unwrap();
            done.lock().unwrap().push(name);
            tokio::task::yield_now().await;
        });
    }

    #[tokio::test(start_paused = true)]
    async fn s1_a_caller_that_sends_many_reads_lets_others_go_first() {
        let reads = Arc::new(Reads::default());
        let done = Arc::default();
        let slots = all_slots(&reads).await;
        for name in 0..1_000 {
            send(&reads, &user("many"), name, &done);
        }
        wait_for_reads(&reads, 1_000).await;
        for name in 1_000..1_010 {
            send(&reads, &user(&format!("single-{name}")), name, &done);
        }
        wait_for_reads(&reads, 1_010).await;
        drop(slots);
        wait_for_reads(&reads, 0).await;
        tokio::task::yield_now().await;
        let done = done.lock().unwrap().clone();
        let last_single = done.iter().rposition(|name| *name >= 1_000).unwrap();
        assert_eq!(done.len(), 1_010);
        // At any time, two of the many are in the second queue.
        assert!(last_single < 3 * 10, "{last_single}");
    }

    /// One more caller waits for at most two reads of each other caller, however many reads these have sent.
    #[tokio::test(start_paused = true)]
    async fn s1_callers_that_wait_with_many_reads_keep_no_other_out() {
        let reads = Arc::new(Reads::default());
        let done = Arc::default();
        let slots = all_slots(&reads).await;
        for name in 0..20_000 {
            send(&reads, &user(&format!("many-{}", name % 10)), name, &done);
        }
        wait_for_reads(&reads, 20_000).await;
        send(&reads, &user("single"), 20_000, &done);
        wait_for_reads(&reads, 20_001).await;
        drop(slots);
        wait_for_reads(&reads, 0).await;
        tokio::task::yield_now().await;
        let position = done.lock().unwrap().iter().position(|name| *name == 20_000).unwrap();
        assert!(position < 30, "{position}");
    }

    #[tokio::test(start_paused = true)]
    async fn s1_no_caller_has_all_slots_and_each_kind_has_its_own() {
        let reads = Reads::default();
        for one in [user("a"), service("a"), address(1)] {
            let start = Instant::now();
            let mut slots = Vec::new();
            for _ in 0..CALLER_READS_MAX {
                slots.push(reads.slot(&one).await.unwrap());
            }
            assert_eq!(start.elapsed(), Duration::ZERO);
            assert!(matches!(reads.slot(&one).await, Err(Error::Overloaded)));
            assert_eq!(start.elapsed(), READ_WAIT_MAX);
        }
        let start = Instant::now();
        let mut slots = all_slots(&reads).await;
        for other in [user("b"), service("b"), address(200)] {
            assert!(matches!(reads.slot(&other).await, Err(Error::Overloaded)));
        }
        assert_eq!(start.elapsed(), 3 * READ_WAIT_MAX);
        slots.clear();
        assert_eq!(all_waiting(&reads), 0);
        assert!(reads.callers.0.lock().unwrap().is_empty(), "idle callers are removed");
    }

    #[tokio::test(start_paused = true)]
    async fn s1_a_caller_has_so_many_reads_queued_and_is_refused_more() {
        let reads = Arc::new(Reads::default());
        let done = Arc::default();
        let slots = (reads.slot(&user("a")).await.unwrap(), reads.slot(&user("a")).await.unwrap());
        let waits = CALLER_READS_QUEUED_MAX - CALLER_READS_MAX;
        for name in 0..waits {
            send(&reads, &user("a"), u32::try_from(name).unwrap(), &done);
        }
        wait_for_reads(&reads, waits).await;
        let start = Instant::now();
        assert!(matches!(reads.slot(&user("a")).await, Err(Error::Overloaded)));
        assert!(reads.slot(&user("b")).await.is_ok());
        assert_eq!(start.elapsed(), Duration::ZERO);
        drop(slots);
        wait_for_reads(&reads, 0).await;
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
            commit_listener: Arc::new(NoopListener),
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
            deadline: None,
        };
        let event_id = event.id;
        engine.create_event(admin.clone(), event, None).await.unwrap();
        let selection = domain::TicketSelection::Quantity(1);
        let order = Order::new(event_id, engine.booking_id(), buyer, selection);
        match engine.book(admin.clone(), order, None).await.outcome {
            Ok(CommandOutput::Fresh(Answer::Booking(booking))) => (engine, admin, booking.id),
            other => panic!("no booking: {other:?}"),
        }
    }

    #[tokio::test(start_paused = true)]
    async fn s1_payments_cancellations_and_readiness_wait_for_no_read() {
        let (engine, admin, booking) = engine_with_booking().await;
        let slots = all_slots(&engine.reads).await;
        let start = Instant::now();
        let transaction = "pay-1".parse().unwrap();
        let payment = CapturedPayment { transaction, amount: None };
        engine.confirm(admin.clone(), booking, payment, None).await.unwrap();
        engine.cancel(admin.clone(), booking, None, None).await.outcome.unwrap();
        engine.health().await.unwrap();
        assert!(start.elapsed() < READ_WAIT_MAX);
        for reader in [user("c"), service("c")] {
            let read = engine.booking(&reader, &admin.actor, booking).await;
            assert!(matches!(read, Err(Error::Overloaded)));
        }
        drop(slots);
        engine.booking(&service("c"), &admin.actor, booking).await.unwrap();
    }

    /// After a caller has disconnected, or its read has timed out, the read still uses a connection.
    #[tokio::test(start_paused = true)]
    async fn s1_a_read_is_answered_in_time_and_keeps_its_slot_until_it_is_finished() {
        let (engine, ..) = engine_with_booking().await;
        let slow = service("slow");
        let finish = Arc::new(tokio::sync::Notify::new());
        let read = || {
            let finish = finish.clone();
            engine.read(&slow, move |_| async move {
                finish.notified().await;
                Ok(())
            })
        };
        assert!(timeout(READ_WAIT_MAX / 4, read()).await.is_err());
        let start = Instant::now();
        assert!(matches!(read().await, Err(Error::Fault(Fault::Unavailable(_)))));
        assert_eq!(start.elapsed(), READ_MAX);
        assert!(matches!(engine.stats(&service("slow")).await, Err(Error::Overloaded)));
        engine.stats(&service("other")).await.unwrap();
        finish.notify_waiters();
        engine.stats(&service("slow")).await.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn s1_a_read_that_panics_gives_its_slot_back() {
        let (engine, ..) = engine_with_booking().await;
        let reader = user("a");
        for _ in 0..2 * KIND_READS_MAX {
            let unknown = engine.booking_id();
            let read = engine.read(&reader, |store| async move {
                let none = store.booking(unknown).await?;
                Ok(none.expect("a panic").id)
            });
            assert!(matches!(read.await, Err(Error::Fault(Fault::Broken(_)))));
        }
    }
}
