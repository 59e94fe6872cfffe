//! Follow-up of a COMMIT: resolving what the server has done if its response was lost.
//!
//! A change may be acknowledged only if it is committed on the primary and on the standbys that a commit
//! waits for, and refused only if it is not committed and never will be. Between COMMIT and its response the
//! client knows neither. This module, [`super::replication`] and [`super::tx`] find out which of the two it
//! is.
//!
//! # States of a commit
//!
//! On the server, a transaction whose COMMIT was sent is in one of these states:
//! - in progress: its backend has not processed COMMIT, and still may;
//! - rolled back: a statement failed, or the backend ended before COMMIT;
//! - waiting: the commit record is in the WAL of the primary, and the backend waits for synchronous standbys
//!   (wait event `SyncRep`). The change is not visible to other sessions yet;
//! - local: that wait was cancelled, by `pg_cancel_backend`, by the end of the backend or by a restart. The
//!   change is visible to all sessions, but a standby that is promoted now may lack it;
//! - replicated: the standbys have it. Without `synchronous_standby_names` every commit is in this state at
//!   once.
//!
//! # State model
//!
//! The writes, COMMIT and a query of the transaction's status (`pg_xact_status`) are sent in one pipeline.
//! Their responses must arrive within [`crate::TRANSACTION_MAX`] (4 s) of the beginning of the transaction:
//!
//! ```text
//! writes, COMMIT, status query
//!   │
//!   ├─ a write failed, or the status is not "committed" ────────────▶ rolled back
//!   │
//!   ├─ status "committed", no warning ──────────────────────────────▶ replicated
//!   │
//!   ├─ status "committed", and a warning ─┐
//!   │                                     ▼
//!   │                    ┌─────────────────────────────────┐ succeeds without a warning
//!   │                    │      Checking replication       ├────────▶ replicated
//!   │                    │                                 │ timeout
//!   │                    │ Waits for an empty commit       ├────────▶ unknown
//!   │                    └────────▲───────────────┬────────┘
//!   │              witness exists │               │ error
//!   │                    ┌────────┴───────────────▼────────┐ no witness
//!   │ no response, or an │            Resolving            ├────────▶ rolled back
//!   └───────────────────▶│                                 │ timeout
//!     error at COMMIT    │ Terminates the backend, then    ├────────▶ unknown
//!                        │ looks up the witness            │
//!                        │ After an error: tries again     │
//!                        └─────────────────────────────────┘
//! ```
//!
//! After a warning, "Checking replication" ends at the deadline of the transaction, and an error in it leads
//! to "unknown" at once. After a lost response both boxes share the 5 s of "Resolving".
//!
//! # Resolving
//!
//! [`resolve_outcome`] runs for at most [`RESOLVE_TIMEOUT`] (5 s), on a new connection:
//! - It terminates the backend of the lost connection, identified by process id and start time, and waits
//!   until it is gone: as long as it lives it may still commit. A backend in the wait event `SyncRep` is not
//!   terminated: it has committed, and its end would make a change visible that a failover may take back.
//! - Then it looks up the [`Witness`]: the first ledger entry of the batch, exactly as written; for a batch
//!   without entries, the first response stored under a key. It was written by this transaction and by no
//!   other, so it exists if and only if the whole batch is committed.
//! - `pg_xact_status` cannot be used here: a transaction id that never reached the disk before a crash is
//!   assigned again, and the second transaction with this id may commit. It is reliable in the pipeline
//!   above, on the connection of the transaction itself.
//!
//! # Replication
//!
//! A witness that exists proves "local", not "replicated", and so does a commit with a warning: the warning
//! is the server's only sign that the wait was cancelled. An empty commit on the same connection proves the
//! rest, see [`super::replication`]. A batch that changed nothing may contain a reply that acknowledges
//! an earlier change ([`crate::Reply::acknowledges_change`]). If commits wait for standbys, its replies are
//! returned only after an empty commit, too.
//!
//! # Results
//!
//! - replicated: the batch is acknowledged, and the writer is [`ConnectionState::Ready`].
//! - rolled back: the batch fails, nothing was done, and the writer is ready. The fault is that of the failed
//!   write, [`Fault::Broken`] if none failed, and [`Fault::Unavailable`] if there is no witness.
//! - unknown: [`Fault::OutcomeUnknown`], and the writer is [`ConnectionState::ReplicationUnknown`] or
//!   [`ConnectionState::CheckingReplication`].
//!
//! In these two states the writer begins no batch. It starts an empty commit, if none is running, and waits
//! for it at most one second per batch. Until that commit has succeeded, every batch fails before it begins,
//! with [`Fault::Unavailable`] or the fault of that commit: no batch builds on a change that a failover may
//! take back, and commits that hang do not accumulate on the server. Each of the two writers of a store does
//! this for its own commits.

use domain::{Entry, guard};
use tokio::time::{Instant, sleep, timeout_at};
use uuid::Uuid;

use super::connection_state::ConnectionState;
use super::replication::ReplicationCheck;
use super::session::{Backend, Call, Connector, Role, Session, Value, fault};
use crate::fold::{Changes, NewStoredResponse};
use crate::limit::{RESOLVE_POLL_INTERVAL, RESOLVE_TIMEOUT};
use crate::sql::Sql;
use crate::{Cause, Fault};

/// A row that exists if and only if the batch was committed.
pub(super) enum Witness {
    /// The first ledger entry of the batch.
    Entry(Box<Entry>),
    /// The first stored response of a batch without ledger entries.
    StoredResponse {
        scope: String,
        key: String,
        fingerprint: [u8; 32],
        /// The time of the response, in microseconds since 1970.
        at: i64,
    },
    /// None: the batch changed nothing.
    Nothing,
}

impl Witness {
    pub(super) fn of(changes: &Changes) -> Self {
        if let Some(entry) = changes.entries.first() {
            return Self::Entry(Box::new(entry.clone()));
        }
        match changes.keys.iter().next() {
            Some(((scope, key), NewStoredResponse { stored, at })) => Self::StoredResponse {
                scope: scope.clone(),
                key: key.clone(),
                fingerprint: stored.fingerprint,
                at: at.micros(),
            },
            None => Self::Nothing,
        }
    }

    /// The query that returns true if the row exists.
    fn query(&self) -> Option<Call<'_>> {
        let (sql, values): (Sql, Vec<Value<'_>>) = match self {
            Self::Nothing => return None,
            Self::Entry(entry) => (
                Sql::LedgerExists,
                vec![
                    Box::new(Uuid::from_bytes(*entry.event_id.bytes())),
                    Box::new(i64::try_from(entry.seq).unwrap_or(i64::MAX)),
                    Box::new(entry.kind.as_str()),
                    Box::new(entry.booking_id.map(|id| Uuid::from_bytes(*id.bytes()))),
                    Box::new(entry.request.as_str()),
                    Box::new(entry.at.micros()),
                ],
            ),
            Self::StoredResponse { scope, key, fingerprint, at } => (
                Sql::IdempotencyExists,
                vec![Box::new(scope), Box::new(key), Box::new(fingerprint.as_slice()), Box::new(*at)],
            ),
        };
        Some(Call { sql, values })
    }
}

/// Resolves the outcome of a batch whose COMMIT was not acknowledged. Returns `Ok` if it is committed, also
/// on the standbys; [`Fault::Unavailable`] if nothing was done; [`Fault::OutcomeUnknown`] if the time was not
/// enough. The second value is the connection state for the next batch.
pub(super) async fn resolve_outcome(
    connector: &Connector,
    backend: Backend,
    witness: &Witness,
    why: &str,
) -> (Result<(), Fault>, ConnectionState) {
    if !guard!(OutcomeLookup) {
        return (Err(Fault::Unavailable(Cause::new(why))), ConnectionState::Disconnected);
    }
    let deadline = Instant::now() + RESOLVE_TIMEOUT;
    let unknown = || {
        tracing::error!(%why, "the outcome of a batch could not be resolved in time");
        Err(Fault::OutcomeUnknown(Cause::new(why)))
    };
    loop {
        let fault = match timeout_at(deadline, find_witness(connector, backend, witness)).await {
            Ok(Ok((true, session))) => {
                let mut check = ReplicationCheck::start(session);
                match check.wait(deadline).await {
                    Some(Ok(session)) => return (Ok(()), ConnectionState::Ready(session)),
                    Some(Err(fault)) => fault,
                    None => return (unknown(), ConnectionState::CheckingReplication(check)),
                }
            }
            Ok(Ok((false, session))) => {
                let nothing = Cause::new(format!("nothing was done: {why}"));
                return (Err(Fault::Unavailable(nothing)), ConnectionState::Ready(session));
            }
            Ok(Err(fault)) => fault,
            Err(_) => return (unknown(), ConnectionState::ReplicationUnknown),
        };
        if Instant::now() + RESOLVE_POLL_INTERVAL >= deadline {
            return (unknown(), ConnectionState::ReplicationUnknown);
        }
        tracing::debug!(%fault, "the outcome of a batch is not resolved yet");
        sleep(RESOLVE_POLL_INTERVAL).await;
    }
}

/// Waits on a new session until the backend of the lost connection is gone, and terminates it unless it waits
/// for a standby. Then looks up the witness, and returns true if it exists.
async fn find_witness(
    connector: &Connector,
    backend: Backend,
    witness: &Witness,
) -> Result<(bool, Session), Fault> {
    let session = connector.open(Role::Writer).await?;
    let end = Call {
        sql: Sql::BackendTerminate,
        values: vec![Box::new(backend.pid), Box::new(backend.started_at)],
    };
    while !session.call(&end).await.map_err(|error| fault(&error))?.is_empty() {
        sleep(RESOLVE_POLL_INTERVAL).await;
    }
    let Some(query) = witness.query() else { return Ok((false, session)) };
    let rows = session.call(&query).await.map_err(|error| fault(&error))?;
    let row = rows.first().ok_or_else(|| Fault::Broken(Cause::new("the query returned no row")))?;
    let exists = row.try_get(0).map_err(|error| fault(&error))?;
    Ok((exists, session))
}
