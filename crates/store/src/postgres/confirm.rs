//! Confirming that what was committed is durable wherever a commit has to be.
//!
//! With `synchronous_standby_names` COMMIT is answered once the standbys have the change. A wait that is cancelled
//! (`pg_cancel_backend`), or ends with its process or with the server, leaves a change that everybody sees and only the
//! primary has; a promoted standby lacks it. So a change that is merely seen proves nothing. A later commit of one's own
//! does: the WAL is a sequence, so a standby that has it has everything before it.

use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout_at};

use super::session::{Call, Session, fault};
use super::sql::Sql;
use crate::{Cause, Fault};

/// An empty commit under way, in a task of its own: a commit that waits for a standby cannot be given up without
/// leaving a process of the server behind, so nobody begins a second one before the first has ended.
pub(super) struct Confirmation(JoinHandle<Result<Session, Fault>>);

impl Confirmation {
    /// Begins an empty commit on a session on which the change in question was seen, or that committed it.
    pub(super) fn start(session: Session) -> Self {
        #[expect(
            clippy::disallowed_methods,
            reason = "ends with the wait for the standby, or the connection"
        )]
        Self(tokio::spawn(async move { commit_empty(&session).await.map(|()| session) }))
    }

    /// Whether the standbys have everything, and then the session; `None` where that is not known by `deadline`.
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
        // A wait that somebody cancelled ends in a warning, and proves nothing.
        if session.warnings() == warnings {
            return Ok(());
        }
    }
}
