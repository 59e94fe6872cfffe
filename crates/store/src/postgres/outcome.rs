//! Finding out what became of a COMMIT that was not answered.
//!
//! First the server's process behind the lost connection is ended: as long as it lives it may yet commit. One that
//! waits for a standby has committed and is left to it: to end it would show everybody what a failover takes back.
//! Once it is gone, what it committed is seen by everybody, so a look at what the batch would have left tells
//! which of the two it was. The number of the transaction would not do: after a crash of the server the
//! numbers that never reached its disk are given out again. What stands is then confirmed, because it may be that
//! the standbys do not have it.

use std::time::Duration;

use domain::Entry;
use tokio::time::{Instant, sleep, timeout_at};
use uuid::Uuid;

use super::RESOLVE_TIMEOUT;
use super::confirm::Confirmation;
use super::session::{Backend, Call, Connector, Role, Session, Value, fault};
use super::sql::Sql;
use super::tx::Link;
use crate::fold::{Changes, NewStoredResponse};
use crate::{Cause, Fault};

/// How often it is looked whether the process is gone, and tried to connect.
const POLL_INTERVAL: Duration = Duration::from_millis(10);

/// What a batch leaves behind if it was committed, and nothing else does.
pub(super) enum Witness {
    /// Its first ledger entry.
    Entry(Box<Entry>),
    /// The first answer that it keeps, where it has no entry.
    Kept {
        /// The scope of its key.
        scope: String,
        /// The key.
        key: String,
        /// The digest of what was asked.
        fingerprint: [u8; 32],
        /// Since when it is kept, in microseconds.
        at: i64,
    },
    /// Nothing: it changed nothing.
    Nothing,
}

impl Witness {
    pub(super) fn of(changes: &Changes) -> Self {
        if let Some(entry) = changes.entries.first() {
            return Self::Entry(Box::new(entry.clone()));
        }
        match changes.keys.iter().next() {
            Some(((scope, key), NewStoredResponse { kept, at })) => Self::Kept {
                scope: scope.clone(),
                key: key.clone(),
                fingerprint: kept.fingerprint,
                at: at.micros(),
            },
            None => Self::Nothing,
        }
    }

    /// The question whether it is there.
    fn question(&self) -> Option<Call<'_>> {
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
            Self::Kept { scope, key, fingerprint, at } => (
                Sql::IdempotencyExists,
                vec![Box::new(scope), Box::new(key), Box::new(fingerprint.as_slice()), Box::new(*at)],
            ),
        };
        Some(Call { sql, values })
    }
}

/// What became of a batch: it stands, here and wherever a commit has to be; or nothing was done; or that cannot be
/// found out in time. And the connection as the next batch finds it.
pub(super) async fn resolve_outcome(
    connector: &Connector,
    backend: Backend,
    witness: &Witness,
    why: &str,
) -> (Result<(), Fault>, Link) {
    #[cfg(feature = "sabotage")]
    if domain::sabotage::removed(domain::sabotage::Guard::FollowUp) {
        return (Err(Fault::Unavailable(Cause::new(why))), Link::Lost);
    }
    let deadline = Instant::now() + RESOLVE_TIMEOUT;
    let unknown = || {
        tracing::error!(%why, "what became of a batch cannot be found out in time");
        Err(Fault::OutcomeUnknown(Cause::new(why)))
    };
    loop {
        let fault = match timeout_at(deadline, ask(connector, backend, witness)).await {
            Ok(Ok((true, session))) => {
                let mut confirmation = Confirmation::start(session);
                match confirmation.wait(deadline).await {
                    Some(Ok(session)) => return (Ok(()), Link::Ready(session)),
                    Some(Err(fault)) => fault,
                    None => return (unknown(), Link::Confirming(confirmation)),
                }
            }
            Ok(Ok((false, session))) => {
                let nothing = Cause::new(format!("nothing was done: {why}"));
                return (Err(Fault::Unavailable(nothing)), Link::Ready(session));
            }
            Ok(Err(fault)) => fault,
            Err(_) => return (unknown(), Link::Unconfirmed),
        };
        if Instant::now() + POLL_INTERVAL >= deadline {
            return (unknown(), Link::Unconfirmed);
        }
        tracing::debug!(%fault, "what became of a batch is not known yet");
        sleep(POLL_INTERVAL).await;
    }
}

async fn ask(connector: &Connector, backend: Backend, witness: &Witness) -> Result<(bool, Session), Fault> {
    let session = connector.open(Role::Writer).await?;
    let end = Call {
        sql: Sql::BackendTerminate,
        values: vec![Box::new(backend.pid), Box::new(backend.started_at)],
    };
    while !session.call(&end).await.map_err(|error| fault(&error))?.is_empty() {
        sleep(POLL_INTERVAL).await;
    }
    let Some(question) = witness.question() else { return Ok((false, session)) };
    let rows = session.call(&question).await.map_err(|error| fault(&error))?;
    let stands = rows.first().ok_or_else(|| Fault::Broken(Cause::new("no answer")))?;
    let stands = stands.try_get(0).map_err(|error| fault(&error))?;
    Ok((stands, session))
}
