//! One batch, from the commands to their replies, whatever happens on the way.

use std::future::Future;

use domain::sabotage::{Guard, removed};

use crate::fold::{Tx, fold};
use crate::{Fault, Reply, Submission};

/// A connection that writes: begins one transaction at a time.
pub(crate) trait Writer: Send {
    /// A transaction of this connection.
    type Tx<'w>: Tx
    where
        Self: 'w;

    /// Begins a transaction.
    fn begin(&mut self) -> impl Future<Output = Result<Self::Tx<'_>, Fault>> + Send;

    /// Whether the last transaction failed only because somebody else's came in between, so that the same
    /// batch may do better now.
    fn has_conflicted(&self) -> bool {
        false
    }
}

/// How often a batch is tried again that met somebody else's. More than a few in a row is no accident.
const REPEATS_MAX: u32 = 8;

/// Carries out a batch. One that fails for a reason of its own is halved and tried again, so that only
/// the command at fault hears of it.
pub(crate) async fn execute<W: Writer>(writer: &mut W, batch: &[Submission]) -> Vec<Reply> {
    let mut replies = Vec::with_capacity(batch.len());
    // Parts still to be carried out, the next one on top; so commands keep their order.
    let mut parts = vec![batch];
    let mut repeats = 0;
    while let Some(part) = parts.pop() {
        match attempt(writer, part).await {
            Ok(answers) => replies.extend(answers),
            Err(_) if writer.has_conflicted() && repeats < REPEATS_MAX => {
                repeats += 1;
                parts.push(part);
            }
            Err(fault) if part.len() > 1 && fault.concerns_one() && !removed(Guard::Halving) => {
                let (first, second) = part.split_at(part.len() / 2);
                parts.extend([second, first]);
            }
            Err(fault) => replies.extend(part.iter().map(|_| Reply::Failed(fault.clone()))),
        }
    }
    replies
}

/// One transaction. A batch of refusals is a read: nothing is committed.
async fn attempt<W: Writer>(writer: &mut W, batch: &[Submission]) -> Result<Vec<Reply>, Fault> {
    let mut tx = writer.begin().await?;
    let (replies, changes) = fold(&mut tx, batch).await?;
    if !changes.is_empty() {
        tx.commit(changes).await?;
    }
    Ok(replies)
}
