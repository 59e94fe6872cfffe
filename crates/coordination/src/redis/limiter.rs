//! The exact sliding-window limiter on a Redis server.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;

use super::connection::Connection;
use super::error::RedisError;
use super::keys;
use crate::{Key, LimitDecision, Limiter, Rule, Unavailable};

/// A [`Limiter`] whose state is on a Redis server: one round trip per attempt, by the server's clock. It
/// takes 8 bytes per admission in a window and about 100 bytes per key. Keys expire with their window.
///
/// A corrupt stored value, or one of another type, counts as no admission and is overwritten.
pub(super) struct RedisLimiter(pub(super) Arc<Connection>);

/// Allowed; permits left; microseconds until the next permit; the stored value was corrupt.
type ScriptReply = (bool, u16, i64, bool);

#[async_trait]
impl Limiter for RedisLimiter {
    async fn attempt(&self, rule: Rule, key: &Key) -> Result<LimitDecision, Unavailable> {
        let counters = &self.0.counters;
        let reply = match self.call_script(rule, key, false).await {
            Err(error) if error.is_unknown_script() => self.call_script(rule, key, true).await,
            reply => reply,
        };
        let (allowed, remaining, reset_micros, corrupt) = reply.inspect_err(|_| {
            counters.attempts_unavailable.add(1);
        })?;
        counters.corrupt_values.add(corrupt.into());
        let counter = if allowed { &counters.attempts_allowed } else { &counters.attempts_denied };
        counter.add(1);
        // A corrupt value of a valid form may contain any time; a genuine one gives at most twice the window.
        let reset_after = Duration::from_micros(reset_micros.try_into().unwrap_or(0)).min(rule.window() * 2);
        Ok(LimitDecision { rule, allowed, remaining: remaining.min(rule.limit()), reset_after })
    }
}

impl RedisLimiter {
    async fn call_script(&self, rule: Rule, key: &Key, send_text: bool) -> Result<ScriptReply, RedisError> {
        let mut command = self.0.scripts.rate_limit.command(send_text);
        command.arg(1).arg(keys::rate_limit(rule, key)).arg(rule.limit()).arg(rule.window_micros());
        self.0.query(&command).await
    }
}
