//! The replies of the lock's scripts, parsed from numbers into values.

use std::time::Duration;

use redis::Value;

use super::error::RedisError;

/// The numbers of a reply. Those that a script does not return are zero.
#[derive(Debug, Clone, Copy)]
pub(super) struct Numbers([u64; 4]);

/// The reply of `acquire.lua`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum AcquireReply {
    /// The caller is the owner, and `waiting` other callers are in the queue. The token is the server's time
    /// in microseconds at which ownership began, or later.
    Owned { token: u64, waiting: u64 },
    /// The caller is in the queue. The owner's lease expires in `owner_lease`; the server's time is
    /// `server_micros`.
    Queued { position: usize, owner_lease: Duration, server_micros: u64 },
    /// The key is taken, and the request does not join the queue.
    Taken { position: usize },
    /// The queue is full.
    QueueFull { position: usize },
}

/// The reply of `renew.lua`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum RenewReply {
    /// As [`AcquireReply::Owned`].
    Owned { token: u64, waiting: u64 },
    /// As [`AcquireReply::Queued`].
    Queued { owner_lease: Duration, server_micros: u64 },
    /// The server has the caller neither as the owner nor as a waiter.
    Neither,
}

/// The reply of `release.lua`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ReleaseReply {
    /// The caller was the owner, and a waiter is the owner now.
    HandedOver,
    /// The caller was the owner, and there was no waiter.
    Freed,
    /// The caller was in the queue.
    LeftQueue,
    /// The caller was neither, e.g. because this is a retry.
    Neither,
}

impl TryFrom<Value> for Numbers {
    type Error = RedisError;

    /// Reads the numbers of an array. A single number, the reply of UNLINK, gives zeros.
    fn try_from(value: Value) -> Result<Self, RedisError> {
        let mut numbers = [0; 4];
        match value.extract_error()? {
            Value::Array(values) => {
                for (index, value) in values.into_iter().enumerate() {
                    let Value::Int(number) = value else { return Err(RedisError::Protocol) };
                    if let Some(slot) = numbers.get_mut(index) {
                        // The TTL of a key that no longer exists is negative.
                        *slot = u64::try_from(number).unwrap_or(0);
                    }
                }
            }
            Value::Int(_) => {}
            _ => return Err(RedisError::Protocol),
        }
        Ok(Self(numbers))
    }
}

impl TryFrom<Numbers> for AcquireReply {
    type Error = RedisError;

    fn try_from(Numbers(numbers): Numbers) -> Result<Self, RedisError> {
        let position = usize::try_from(numbers[1]).unwrap_or(usize::MAX);
        match numbers {
            [1, token, waiting, _] => Ok(Self::Owned { token, waiting }),
            [2, _, owner_lease, server_micros] => {
                let owner_lease = Duration::from_millis(owner_lease);
                Ok(Self::Queued { position, owner_lease, server_micros })
            }
            [3, ..] => Ok(Self::Taken { position }),
            [4, ..] => Ok(Self::QueueFull { position }),
            _ => Err(RedisError::Protocol),
        }
    }
}

impl TryFrom<Numbers> for RenewReply {
    type Error = RedisError;

    fn try_from(Numbers(numbers): Numbers) -> Result<Self, RedisError> {
        match numbers {
            [0, ..] => Ok(Self::Neither),
            [1, token, waiting, _] => Ok(Self::Owned { token, waiting }),
            [2, _, owner_lease, server_micros] => {
                Ok(Self::Queued { owner_lease: Duration::from_millis(owner_lease), server_micros })
            }
            _ => Err(RedisError::Protocol),
        }
    }
}

impl TryFrom<Numbers> for ReleaseReply {
    type Error = RedisError;

    fn try_from(Numbers(numbers): Numbers) -> Result<Self, RedisError> {
        match numbers[0] {
            0 => Ok(Self::Neither),
            1 => Ok(Self::HandedOver),
            2 => Ok(Self::Freed),
            3 => Ok(Self::LeftQueue),
            _ => Err(RedisError::Protocol),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse<R: TryFrom<Numbers, Error = RedisError>>(numbers: &[i64]) -> Result<R, RedisError> {
        let values = numbers.iter().map(|number| Value::Int(*number)).collect();
        R::try_from(Numbers::try_from(Value::Array(values))?)
    }

    #[test]
    fn the_replies_of_the_scripts_are_parsed() {
        let owner_lease = Duration::from_millis(500);
        let replies = [
            (&[1, 70, 2, 60][..], AcquireReply::Owned { token: 70, waiting: 2 }),
            (&[2, 3, 500, 60], AcquireReply::Queued { position: 3, owner_lease, server_micros: 60 }),
            (&[3, 5], AcquireReply::Taken { position: 5 }),
            (&[4, 6], AcquireReply::QueueFull { position: 6 }),
        ];
        for (numbers, reply) in replies {
            assert_eq!(parse::<AcquireReply>(numbers).unwrap(), reply);
        }
        let replies = [
            (&[1, 70, 2, 60][..], RenewReply::Owned { token: 70, waiting: 2 }),
            (&[2, 0, 500, 60], RenewReply::Queued { owner_lease, server_micros: 60 }),
            // The owner's key has expired in the same instant.
            (&[2, 0, -2, 60], RenewReply::Queued { owner_lease: Duration::ZERO, server_micros: 60 }),
            (&[0], RenewReply::Neither),
        ];
        for (numbers, reply) in replies {
            assert_eq!(parse::<RenewReply>(numbers).unwrap(), reply);
        }
        let replies = [0, 1, 2, 3].map(|number| parse::<ReleaseReply>(&[number]).unwrap());
        let [neither, handed_over, freed, left_queue] = replies;
        assert_eq!((neither, handed_over), (ReleaseReply::Neither, ReleaseReply::HandedOver));
        assert_eq!((freed, left_queue), (ReleaseReply::Freed, ReleaseReply::LeftQueue));
    }

    #[test]
    fn other_replies_are_protocol_errors() {
        for numbers in [&[0, 1][..], &[5, 1], &[]] {
            assert!(matches!(parse::<AcquireReply>(numbers), Err(RedisError::Protocol)), "{numbers:?}");
        }
        assert!(matches!(parse::<RenewReply>(&[3, 1]), Err(RedisError::Protocol)));
        assert!(matches!(parse::<ReleaseReply>(&[4]), Err(RedisError::Protocol)));
        for value in [Value::Okay, Value::Array(vec![Value::Nil])] {
            assert!(matches!(Numbers::try_from(value), Err(RedisError::Protocol)));
        }
    }
}
