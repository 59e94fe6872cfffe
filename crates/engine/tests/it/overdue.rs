//! An unpaid hold is freed in time: within its deadline, two intervals of the clean-up and a second.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use coordination::{Key, Lock, LockError, LockGuard, LockOptions};
use domain::{Actor, BookingStatus};
use engine::{CommandOutput, Engine, Error, Ports};
use tokio::time::sleep;

use crate::fixture::{as_user, book, event_in, reader, start, user};

const EVERY: Duration = Duration::from_secs(30);

/// All obstacles together, for every phase of the clean-up: the user may not cancel any more, the event is
/// about to start, and a request that hangs holds the lock of the booking permanently.
#[tokio::test(start_paused = true)]
async fn an_overdue_hold_is_freed_in_time_despite_every_obstacle() {
    for phase in (0..=255).step_by(15) {
        let (engine, ports) = start(phase);
        engine.start_chores(EVERY);
        let event = event_in(&engine, 3_600).await;
        let booking = book(&engine, "ada", &event, 2).await;
        let key = Key::new("booking", &booking.id.to_string()).unwrap();
        let long_lease = LockOptions { max_lease: Duration::from_hours(24), ..LockOptions::default() };
        let stuck = ports.lock.acquire(&key, long_lease).await.unwrap();

        let nearly = engine.policy().hold_seconds - 1;
        sleep(Duration::from_secs(nearly.into())).await;
        for _ in 0..3 {
            let unknown = domain::BookingId::new(engine.now(), ports.ids.random());
            let attempt = engine.cancel(as_user("ada"), unknown, None, None).await;
            assert!(matches!(attempt.outcome, Err(Error::Refused(_))), "{attempt:?}");
        }
        let refused = engine.cancel(as_user("ada"), booking.id, None, None).await;
        assert!(matches!(refused.outcome, Err(Error::Limited(_))), "{refused:?}");
        let pending = engine.booking(&reader(), &Actor::System, booking.id).await.unwrap();
        assert_eq!(pending.status(), BookingStatus::Pending, "not before it is overdue");

        sleep(Duration::from_secs(1) + 2 * EVERY + Duration::from_secs(1)).await;
        let freed = engine.booking(&reader(), &Actor::System, booking.id).await.unwrap();
        assert_eq!(freed.status(), BookingStatus::Expired, "phase {phase}");
        assert_eq!(engine.event(&reader(), event.id).await.unwrap().inventory.held, 0);
        assert!(!stuck.is_lost(), "the lock was held throughout");
        drop(stuck);
        engine.drain().await;
        assert!(engine.audit().await.unwrap().violations.is_empty());
    }
}

/// A running request is not disturbed: the first round skips its booking.
#[tokio::test(start_paused = true)]
async fn a_locked_booking_is_left_for_the_next_round() {
    let (engine, ports) = start(0);
    let event = event_in(&engine, 3_600).await;
    let (busy, idle) = (book(&engine, "ada", &event, 1).await, book(&engine, "bob", &event, 1).await);
    sleep(Duration::from_secs(u64::from(engine.policy().hold_seconds) + 1)).await;
    let key = Key::new("booking", &busy.id.to_string()).unwrap();
    let tenure = ports.lock.acquire(&key, LockOptions::default()).await.unwrap();
    let mut sweeper = engine::Sweeper::default();
    assert_eq!(sweeper.sweep(&engine).await.unwrap().bookings, 1);
    let status = async |id| engine.booking(&reader(), &Actor::System, id).await.unwrap().status();
    assert_eq!(
        (status(busy.id).await, status(idle.id).await),
        (BookingStatus::Pending, BookingStatus::Expired)
    );
    drop(tenure);
    assert_eq!(sweeper.sweep(&engine).await.unwrap().bookings, 1);
    assert_eq!(status(busy.id).await, BookingStatus::Expired);
    // A late payment reserves the tickets again.
    let paid = domain::CapturedPayment { transaction: "pay-1".parse().unwrap(), amount: None };
    let output = engine.confirm(service(), busy.id, paid, None).await;
    assert!(matches!(output, Ok(CommandOutput::Fresh(_))), "{output:?}");
    assert_eq!(status(busy.id).await, BookingStatus::Confirmed);
}

/// A lock whose first two calls panic.
struct PanickingLock(AtomicU32, Arc<dyn Lock>);

#[async_trait]
impl Lock for PanickingLock {
    async fn acquire(&self, key: &Key, options: LockOptions) -> Result<LockGuard, LockError> {
        self.1.acquire(key, options).await
    }

    async fn try_acquire_each(
        &self,
        keys: &[Key],
        options: LockOptions,
    ) -> Result<Vec<Option<LockGuard>>, LockError> {
        assert!(self.0.fetch_add(1, Ordering::SeqCst) >= 2, "a defect");
        self.1.try_acquire_each(keys, options).await
    }
}

#[tokio::test(start_paused = true)]
async fn a_sweeper_that_panics_is_restarted_and_its_health_shows_it() {
    let (template, ports) = start(0);
    let lock = Arc::new(PanickingLock(AtomicU32::new(0), ports.lock.clone()));
    let engine = Engine::start(Ports { lock: lock.clone(), ..ports }, *template.policy());
    let event = event_in(&engine, 3_600).await;
    let booking = book(&engine, "ada", &event, 2).await;
    sleep(Duration::from_secs(u64::from(engine.policy().hold_seconds) + 1)).await;
    let start_time = engine.now();
    engine.start_chores(EVERY);
    let task = engine.tasks().into_iter().find(|task| task.name() == "sweeper").unwrap();
    // The first round starts immediately; after two panics the same round runs again.
    sleep(EVERY / 2).await;
    let status = engine.booking(&reader(), &Actor::System, booking.id).await.unwrap().status();
    assert_eq!((lock.0.load(Ordering::SeqCst), status), (3, BookingStatus::Expired));
    assert_eq!((task.restarts(), task.is_down()), (2, false));
    let sweeper = engine.chores().into_iter().find(|chore| chore.name() == "sweeper").unwrap();
    assert!(sweeper.last_success() > start_time);
    engine.drain().await;
}

fn service() -> engine::Caller {
    engine::Caller { actor: Actor::Service(user("gateway")), ..as_user("gateway") }
}
