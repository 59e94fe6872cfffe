//! One batch, from the commands to their replies, whatever happens on the way.

use std::future::Future;

use domain::EventId;
use domain::sabotage::{Guard, removed};

use crate::fold::{Tx, fold};
use crate::{Cause, Fault, Reply, Submission};

/// A connection that writes: begins one transaction at a time.
pub(crate) trait Writer: Send {
    /// A transaction of this connection.
    type Tx<'w>: Tx
    where
        Self: 'w;

    /// Begins a transaction.
    fn begin(&mut self, lock_wait: LockWait) -> impl Future<Output = Result<Self::Tx<'_>, Fault>> + Send;

    /// Whether the last transaction failed only because somebody else's came in between, so that the same
    /// batch may do better now.
    fn has_conflicted(&self) -> bool {
        false
    }

    /// Whether the last transaction failed because somebody else has locked what it needs for longer than its
    /// lock_wait: commands that do not need it may do better alone.
    fn is_blocked(&self) -> bool {
        false
    }
}

/// How long a batch waits for rows that somebody else has locked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum LockWait {
    /// As long as others usually take. Then commands that need such a row are [`Reply::Busy`].
    Short,
    /// As long as their senders can wait. Then those commands fail.
    Long,
}

/// How often a batch is tried again that met somebody else's. More than a few in a row is no accident.
const CONFLICT_RETRIES_MAX: u32 = 8;

/// How often a batch is split because something is locked: finds one among a batch, and bounds the time that many of
/// them cost.
const BLOCKED_SPLITS_MAX: u32 = 12;

/// How often a patient batch over several events is tried, each time for what others have let go meanwhile: as often as a
/// short wait fits into a long one. The last event left is waited for in the database's own queue.
const BUSY_TRIES_MAX: u32 = 8;

/// Commands that are carried out in one transaction, and where their replies belong.
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

    /// Puts the answers where they belong; what is left because others keep it busy.
    fn answer(self, answers: Vec<Reply>, replies: &mut [Reply]) -> Self {
        let mut rest = Self { positions: Vec::new(), commands: Vec::new() };
        for ((position, command), answer) in self.positions.into_iter().zip(self.commands).zip(answers) {
            if matches!(answer, Reply::Busy) {
                rest.positions.push(position);
                rest.commands.push(command);
            }
            replies[position] = answer;
        }
        rest
    }

    /// Two parts, the second one first, that may not both need what is locked. Who waits only for a short time leaves
    /// an event as a whole alone.
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

    /// Two parts that concern different events, each in its order; itself where it concerns only one.
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

/// Carries out a batch. One that fails for a reason of its own is halved and tried again, so that only
/// the command at fault hears of it; one that meets a lock is tried event by event.
pub(crate) async fn execute<W: Writer>(
    writer: &mut W,
    batch: Vec<Submission>,
    lock_wait: LockWait,
) -> Vec<Reply> {
    let mut replies = vec![Reply::Busy; batch.len()];
    // Parts still to be carried out, the next one on top; so commands keep their order.
    let mut parts = vec![Part { positions: (0..batch.len()).collect(), commands: batch }];
    let (mut repeats, mut splits, mut tries) = (0, 0, 0);
    let mut may_wait = lock_wait == LockWait::Long;
    while let Some(part) = parts.pop() {
        // Nobody waits long for a lock that others of the batch do not need, and time is lost once.
        let waits = if may_wait && part.is_of_one_event() { LockWait::Long } else { LockWait::Short };
        may_wait &= waits == LockWait::Short;
        match attempt(writer, &part.commands, waits).await {
            Ok(answers) => {
                let rest = part.answer(answers, &mut replies);
                if lock_wait != waits && !rest.positions.is_empty() && tries < BUSY_TRIES_MAX {
                    tries += 1;
                    parts.push(rest);
                }
            }
            Err(_) if writer.has_conflicted() && repeats < CONFLICT_RETRIES_MAX => {
                repeats += 1;
                parts.push(part);
            }
            Err(_) if writer.is_blocked() => {
                splits += 1;
                let split = (splits <= BLOCKED_SPLITS_MAX).then(|| part.split_blocked(lock_wait)).flatten();
                parts.extend(split.into_iter().flatten());
            }
            Err(fault)
                if part.positions.len() > 1 && fault.is_command_specific() && !removed(Guard::Halving) =>
            {
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
            let why = Cause::new("somebody else has locked what it needs");
            *reply = Reply::Failed(Fault::Unavailable(why));
        }
    }
    replies
}

/// One transaction. A batch of refusals is a read: nothing is committed.
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
        tx.confirm().await?;
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
