//! A check that a commit is replicated to the synchronous standbys, by an empty commit after it.
//!
//! With `synchronous_standby_names` the server responds to COMMIT once the standbys have the change. If the
//! wait is cancelled (`pg_cancel_backend`) or ends with its backend or with the server, the change is visible
//! to all sessions, but only the primary has it; a promoted standby lacks it. So a visible change is
//! not necessarily replicated. A later commit of this program that ends without a warning proves that it is:
//! the WAL is a sequence, so a standby that has that commit has everything before it. The commit is empty
//! (`pg_logical_emit_message`, see `commit_empty.sql`). If it ends with a warning, its own wait may have been
//! cancelled, so it is repeated.

use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout_at};

use super::session::{Call, Session, fault};
use crate::sql::Sql;
use crate::{Cause, Fault};

/// An empty commit in progress, in a task of its own. A client cannot abandon a commit that waits for a
/// standby without leaving its backend behind on the server, so a writer does not start a second one before
/// the first has ended.
pub(super) struct ReplicationCheck(JoinHandle<Result<Session, Fault>>);

impl ReplicationCheck {
    /// Starts an empty commit on a session that has read the change in question, or committed it.
    pub(super) fn start(session: Session) -> Self {
        #[expect(
            clippy::disallowed_methods,
            reason = "ends with the wait for the standby, or the connection"
        )]
        Self(tokio::spawn(async move { commit_empty(&session).await.map(|()| session) }))
    }

    /// Waits for the empty commit. Returns the session once the standbys have everything; `None` if it is
    /// still running at `deadline`.
    pub(super) async fn wait(&mut self, deadline: Instant) -> Option<Result<Session, Fault>> {
        let done = timeout_at(deadline, &mut self.0).await.ok()?;
        Some(done.unwrap_or_else(|error| Err(Fault::Broken(Cause::new(error)))))
    }
}

async fn commit_empty(session: &Session) -> Result<(), Fault> {
    let call = Call { sql: Sql::CommitEmpty, values: Vec::new() };
    loop {
        let warnings = session.warnings();
        session.call(&call).await.map_err(|error| fault(&error))?;
        // With a warning, the wait may have been cancelled.
        if session.warnings() == warnings {
            return Ok(());
        }
    }
}
