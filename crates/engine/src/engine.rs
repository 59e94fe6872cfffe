//! The engine: its ports, its desk, and the tasks in which commands run.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use coordination::{Key, LimitDecision, Rule};
use domain::{
    Action, Actor, AuditReport, BookingId, Command, EventId, RefundId, RequestId, TicketTypeId, Timestamp,
    TraceParent, UserId, guard,
};
use store::{Cause, CommandOutput, Fault, Idempotency, Store, StoreHealth, Submission};
use supervisor::{Supervisor, Task, Work};
use tokio::sync::Notify;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::desk::{Desk, DeskStats};
use crate::health::Health;
use crate::reads::{Reader, Reads};
use crate::watch::WatchedEvents;
use crate::{Error, Policy, Ports};

/// A running booking service. Several may run in one process.
pub struct Engine {
    pub(crate) ports: Ports,
    pub(crate) policy: Policy,
    pub(crate) desk: Desk,
    pub(crate) reads: Reads,
    /// Work that was started for a caller and continues if the caller disconnects.
    pub(crate) tasks: TaskTracker,
    pub(crate) chores: Chores,
    supervisor: Supervisor,
    pub(crate) watched: Arc<WatchedEvents>,
}

/// The background chores and tasks.
pub(crate) struct Chores {
    tasks: TaskTracker,
    pub(crate) stop: CancellationToken,
    /// Notified when an event is cancelled.
    pub(crate) cancelled: Arc<Notify>,
    pub(crate) health: Mutex<Vec<Arc<Health>>>,
    pub(crate) clock_jumps: Arc<AtomicU64>,
}

/// The caller of a command.
#[derive(Clone, Debug)]
pub struct Caller {
    /// The actor on whose behalf the command runs.
    pub actor: Actor,
    /// The id that connects the response, the log and the ledger.
    pub request: RequestId,
    /// The request's position in its caller's trace, if the caller sent one.
    pub trace: Option<TraceParent>,
    /// The time at which the caller stops waiting: a command that is still queued then never runs. `None` if
    /// the caller sets no limit of its own.
    pub deadline: Option<Instant>,
}

/// The result of a command with a rate limit.
#[derive(Debug)]
pub struct RateLimitedResult {
    /// The decision of the limiter; `None` if the caller has no limit, or the limiter is unavailable.
    pub decision: Option<LimitDecision>,
    /// The result of the command.
    pub outcome: Result<CommandOutput, Error>,
}

impl Engine {
    /// Starts the desk. Must be called within a tokio runtime.
    pub fn start(ports: Ports, policy: Policy) -> Arc<Self> {
        let (desk, worker) =
            Desk::new(ports.store.clone(), ports.commit_listener.clone(), ports.lease.clone());
        let supervisor = Supervisor::default();
        spawn_desk(supervisor.essential_task("desk"), worker);
        let chores = Chores {
            tasks: TaskTracker::new(),
            stop: CancellationToken::new(),
            cancelled: Arc::new(Notify::new()),
            health: Mutex::default(),
            clock_jumps: Arc::default(),
        };
        Arc::new(Self {
            ports,
            policy,
            desk,
            reads: Reads::default(),
            tasks: TaskTracker::new(),
            chores,
            supervisor,
            watched: Arc::default(),
        })
    }

    /// Starts a background task that ends with [`Engine::drain`].
    #[expect(clippy::disallowed_methods, reason = "the task is supervised")]
    pub(crate) fn start_task(&self, name: &'static str, mut work: impl Work + 'static) {
        let task = self.supervisor.task(name);
        let stop = self.chores.stop.clone();
        drop(self.chores.tasks.spawn(async move { task.run_until(&stop, &mut work).await }));
    }

    /// The background tasks of the engine, with their health.
    pub fn tasks(&self) -> Vec<Arc<Task>> {
        self.supervisor.tasks()
    }

    /// The health of each background chore.
    pub fn chores(&self) -> Vec<Arc<Health>> {
        self.chores.health.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Number of clock jumps by more than a minute since the start.
    pub fn clock_jumps(&self) -> u64 {
        self.chores.clock_jumps.load(Ordering::Relaxed)
    }

    /// Wakes the chore that cancels the bookings of cancelled events.
    pub(crate) fn wake_event_cancellation(&self) {
        self.chores.cancelled.notify_one();
    }

    /// Stops the chores, even during a round, and waits until all commands and reads that were started have
    /// finished. The caller must stop starting new ones first.
    pub async fn drain(&self) {
        self.chores.stop.cancel();
        self.chores.tasks.close();
        self.chores.tasks.wait().await;
        self.tasks.close();
        self.tasks.wait().await;
    }

    /// The operator's settings.
    pub fn policy(&self) -> &Policy {
        &self.policy
    }

    /// The current instant of the engine's clock.
    pub fn now(&self) -> Timestamp {
        self.ports.clock.now()
    }

    /// Creates an id for an event.
    pub fn event_id(&self) -> EventId {
        EventId::new(self.now(), self.ports.ids.random())
    }

    /// Creates an id for a ticket type.
    pub fn ticket_type_id(&self) -> TicketTypeId {
        TicketTypeId::new(self.now(), self.ports.ids.random())
    }

    /// Creates an id for a booking.
    pub fn booking_id(&self) -> BookingId {
        BookingId::new(self.now(), self.ports.ids.random())
    }

    pub(crate) fn refund_id(&self) -> RefundId {
        RefundId::new(self.now(), self.ports.ids.random())
    }

    /// The statistics of the desk.
    pub fn desk_stats(&self) -> DeskStats {
        self.desk.stats()
    }

    /// The number of reads that wait for a slot, per kind of caller.
    pub fn reads_waiting(&self) -> [(&'static str, usize); 3] {
        self.reads.waiting()
    }

    /// Checks that commands can be executed now, and returns the store's warnings.
    pub async fn health(&self) -> Result<StoreHealth, Error> {
        Ok(self.ports.store.health().await?)
    }

    /// Recomputes every count from the bookings and the ledger and compares it with the stored one, in one
    /// consistent snapshot.
    pub async fn audit(&self) -> Result<AuditReport, Error> {
        Ok(self.ports.store.audit().await?)
    }

    /// Runs a command in its own task, so that it continues if the client disconnects.
    #[expect(
        clippy::disallowed_methods,
        reason = "the task belongs to one request, which gets an error if the task panics"
    )]
    pub(crate) async fn run_detached(
        &self,
        work: impl Future<Output = Result<CommandOutput, Error>> + Send + 'static,
    ) -> Result<CommandOutput, Error> {
        if !guard!(DetachedExecution) {
            return work.await;
        }
        let finished = self.tasks.spawn(work).await;
        finished.unwrap_or_else(|error| Err(Fault::OutcomeUnknown(Cause::new(error)).into()))
    }

    /// Runs a read of a caller: see [`Reads::run`].
    pub(crate) async fn read<T, R>(
        &self,
        reader: &Reader,
        work: impl FnOnce(Arc<dyn Store>) -> R,
    ) -> Result<T, Error>
    where
        T: Send + 'static,
        R: Future<Output = Result<T, Fault>> + Send + 'static,
    {
        self.reads.run(&self.tasks, reader, work(self.ports.store.clone())).await
    }

    /// Has the desk execute a command. A refusal is an error, unless it is a stored response.
    pub(crate) async fn submit(
        &self,
        caller: Caller,
        action: Action,
        idempotency: Option<Arc<Idempotency>>,
    ) -> Result<CommandOutput, Error> {
        let command = Command { actor: caller.actor, request: caller.request, trace: caller.trace, action };
        self.desk.submit(Submission { command: Arc::new(command), idempotency }, caller.deadline).await
    }

    /// Counts an attempt of this user; without a user, there is no limit and no decision.
    ///
    /// # Errors
    ///
    /// [`Error::Limited`] if the user exceeds the limit. If the limiter is unavailable the attempt fails as
    /// well: the port decides whether attempts are allowed without the shared state.
    pub(crate) async fn check_rate_limit(
        &self,
        rule: Rule,
        user: Option<&UserId>,
    ) -> Result<Option<LimitDecision>, Error> {
        let Some(user) = user else { return Ok(None) };
        let key = Key::new("user", user.as_str()).map_err(|error| Fault::Broken(Cause::new(error)))?;
        let attempt = self.ports.limiter.attempt(rule, &key).await;
        let decision = attempt.map_err(|unavailable| Fault::Unavailable(Cause::new(unavailable)))?;
        if decision.allowed { Ok(Some(decision)) } else { Err(Error::Limited(decision)) }
    }
}

impl RateLimitedResult {
    /// The result of a command that was not executed because the check of the rate limit failed.
    pub(crate) fn refused(error: Error) -> Self {
        let decision = match &error {
            Error::Limited(decision) => Some(*decision),
            Error::Refused(_) | Error::KeyReused | Error::Overloaded | Error::Fault(_) => None,
        };
        Self { decision, outcome: Err(error) }
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "not tracked: the desk ends when its last sender, the engine, is dropped"
)]
fn spawn_desk(task: Arc<Task>, mut worker: impl Work + 'static) {
    drop(tokio::spawn(async move { task.run(&mut worker).await }));
}
