//! Execution of one batch: the transactions that it takes, and the retries and splits after a failure.
//!
//! [`execute`] runs the batch as one transaction if it can. A transaction that conflicts with another one is
//! retried as it is. One that is blocked by a lock is split by event, so that the commands of other events
//! succeed. One that fails because of its own data is halved until only the faulty command fails.
//!
//! Nothing is decided here. [`fold()`] loads the rows under the event's row lock and calls
//! [`domain::decide()`] for each command; that function alone returns "sold out" (see [`crate::fold`]).

use std::future::Future;

use domain::{EventId, guard};

use crate::fold::{Tx, fold};
use crate::limit::{BLOCKED_SPLITS_MAX, BUSY_TRIES_MAX, CONFLICT_RETRIES_MAX};
use crate::{Cause, Fault, Reply, Submission};

/// A write connection: it begins one transaction at a time.
pub(crate) trait Writer: Send {
    /// A transaction of this connection.
    type Tx<'w>: Tx
    where
        Self: 'w;

    /// Begins a transaction.
    fn begin(&mut self, lock_wait: LockWait) -> impl Future<Output = Result<Self::Tx<'_>, Fault>> + Send;

    /// True if the last transaction failed only because of a concurrent one, so that a retry of the same
    /// batch may succeed.
    fn has_conflicted(&self) -> bool {
        false
    }

    /// True if the last transaction failed because another session held a lock for longer than its
    /// [`LockWait`]. Commands that do not need the locked rows may succeed without the others.
    fn is_blocked(&self) -> bool {
        false
    }
}

/// The time for which a batch waits for rows that another session has locked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum LockWait {
    /// As long as a batch of another instance usually takes. After that, commands that need such a row get
    /// [`Reply::Busy`].
    Short,
    /// As long as the senders of the commands can wait. After that, those commands fail.
    Long,
}

/// Commands that are executed in one transaction, and the positions of their replies in the batch.
struct Part {
    positions: Vec<usize>,
    commands: Vec<Submission>,
}

impl Part {
    fn split(self, at: usize) -> (Self, Self) {
        let Self { mut positions, mut commands } = self;
        let rest = Self { positions: positions.split_off(at), commands: commands.split_off(at) };
        (Self { positions, commands }, rest)
    }

    fn is_of_one_event(&self) -> bool {
        let mut events = self.commands.iter().map(|submission| submission.command.event_id());
        let first = events.next();
        events.all(|event| Some(event) == first)
    }

    /// Copies the replies of this part into those of the batch. Returns the commands that were busy.
    fn fill_replies(self, part_replies: Vec<Reply>, replies: &mut [Reply]) -> Self {
        let mut rest = Self { positions: Vec::new(), commands: Vec::new() };
        for ((position, command), reply) in self.positions.into_iter().zip(self.commands).zip(part_replies) {
            if matches!(reply, Reply::Busy) {
                rest.positions.push(position);
                rest.commands.push(command);
            }
            replies[position] = reply;
        }
        rest
    }

    /// Splits the part in two, because perhaps only one half needs the locked rows. Returns the second half
    /// first (stack order). The commands of one event are split only with [`LockWait::Long`].
    fn split_blocked(self, lock_wait: LockWait) -> Option<[Self; 2]> {
        let (first, second) = match self.split_by_event() {
            Ok(parts) => parts,
            Err(part) if lock_wait == LockWait::Long && part.positions.len() > 1 => {
                let middle = part.positions.len() / 2;
                part.split(middle)
            }
            Err(_) => return None,
        };
        Some([second, first])
    }

    /// Splits the part in two with different events, each in its order; returns it as it is if it has only
    /// one event.
    fn split_by_event(self) -> Result<(Self, Self), Self> {
        let event = |command: &Submission| command.command.event_id();
        let mut all: Vec<(EventId, usize, Submission)> = self
            .commands
            .into_iter()
            .zip(self.positions)
            .map(|(command, position)| (event(&command), position, command))
            .collect();
        all.sort_by_key(|(event, position, _)| (*event, *position));
        let middle = all.get(all.len() / 2).map(|(event, ..)| *event);
        let mut at = all.partition_point(|(event, ..)| Some(*event) < middle);
        if at == 0 {
            at = all.partition_point(|(event, ..)| Some(*event) <= middle);
        }
        let (positions, commands) = all.into_iter().map(|(_, position, command)| (position, command)).unzip();
        let part = Self { positions, commands };
        if at == part.positions.len() { Err(part) } else { Ok(part.split(at)) }
    }
}

/// Executes a batch and returns one reply per command, in order. A batch that fails because of its own data
/// is halved and retried, so that only the faulty command fails; one that is blocked by a lock is split by
/// event.
pub(crate) async fn execute<W: Writer>(
    writer: &mut W,
    batch: Vec<Submission>,
    lock_wait: LockWait,
) -> Vec<Reply> {
    let mut replies = vec![Reply::Busy; batch.len()];
    // Stack of the parts still to be executed, the next one on top, so that commands keep their order.
    let mut parts = vec![Part { positions: (0..batch.len()).collect(), commands: batch }];
    let (mut retries, mut splits, mut tries) = (0, 0, 0);
    let mut may_wait = lock_wait == LockWait::Long;
    while let Some(part) = parts.pop() {
        // Only a part with one event waits long, so no command waits for a lock that it does not need; and
        // only the first such part does, so the long wait is spent at most once.
        let waits = if may_wait && part.is_of_one_event() { LockWait::Long } else { LockWait::Short };
        may_wait &= waits == LockWait::Short;
        match attempt(writer, &part.commands, waits).await {
            Ok(part_replies) => {
                let rest = part.fill_replies(part_replies, &mut replies);
                if lock_wait != waits && !rest.positions.is_empty() && tries < BUSY_TRIES_MAX {
                    tries += 1;
                    parts.push(rest);
                }
            }
            Err(_) if writer.has_conflicted() && retries < CONFLICT_RETRIES_MAX => {
                retries += 1;
                parts.push(part);
            }
            Err(_) if writer.is_blocked() => {
                splits += 1;
                let split = (splits <= BLOCKED_SPLITS_MAX).then(|| part.split_blocked(lock_wait)).flatten();
                parts.extend(split.into_iter().flatten());
            }
            Err(fault) if guard!(Halving: part.positions.len() > 1 && fault.is_command_specific()) => {
                let middle = part.positions.len() / 2;
                let (first, second) = part.split(middle);
                parts.extend([second, first]);
            }
            Err(fault) => {
                part.positions
                    .into_iter()
                    .for_each(|position| replies[position] = Reply::Failed(fault.clone()));
            }
        }
    }
    if lock_wait == LockWait::Long {
        for reply in replies.iter_mut().filter(|reply| matches!(reply, Reply::Busy)) {
            let cause = Cause::new("another session has locked a row that it needs");
            *reply = Reply::Failed(Fault::Unavailable(cause));
        }
    }
    replies
}

/// Runs the commands in one transaction. If nothing changes, nothing is committed.
async fn attempt<W: Writer>(
    writer: &mut W,
    batch: &[Submission],
    lock_wait: LockWait,
) -> Result<Vec<Reply>, Fault> {
    let mut tx = writer.begin(lock_wait).await?;
    let (replies, changes) = fold(&mut tx, batch).await?;
    if !changes.is_empty() {
        tx.commit(changes).await?;
    } else if replies.iter().any(Reply::acknowledges_change) {
        tx.await_replication().await?;
    }
    Ok(replies)
}

#[cfg(test)]
mod tests {
    use domain::{Action, Actor, BookingId, Command, Timestamp};

    use super::*;

    fn part(events: &[u8]) -> Part {
        let id = |number: u8| EventId::new(Timestamp::from_micros(0).unwrap(), [number; 10]);
        let booking_id = BookingId::new(Timestamp::from_micros(0).unwrap(), [0; 10]);
        let command = |number: &u8| Command {
            actor: Actor::System,
            request: "r".parse().unwrap(),
            trace: None,
            action: Action::Expire { event_id: id(*number), booking_id },
        };
        let commands: Vec<Submission> = events.iter().map(|event| command(event).into()).collect();
        Part { positions: (0..events.len()).collect(), commands }
    }

    #[test]
    fn r4_splitting_by_event_keeps_the_order_of_each_event() {
        let (first, second) = part(&[2, 1, 2, 1, 2]).split_by_event().ok().unwrap();
        assert_eq!((first.positions, second.positions), (vec![1, 3], vec![0, 2, 4]));
        let (first, second) = part(&[1, 1, 1, 2]).split_by_event().ok().unwrap();
        assert_eq!((first.positions, second.positions), (vec![0, 1, 2], vec![3]));
        let (first, second) = part(&[3, 1, 2]).split_by_event().ok().unwrap();
        assert_eq!((first.positions, second.positions), (vec![1], vec![2, 0]));
        for events in [&[1_u8][..], &[1, 1]] {
            assert!(part(events).split_by_event().is_err_and(|part| part.positions.len() == events.len()));
        }
    }
}
