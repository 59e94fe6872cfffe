//! The exact sliding window on a server.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;

use super::connection::Link;
use super::error::Trouble;
use super::keys;
use crate::{Key, LimitDecision, Limiter, Rule, Unavailable};

/// A [`Limiter`] whose state lies on a Redis server: one round trip an attempt, by the server's clock. 8 bytes
/// for each admission in a window and about 100 a key; the server drops a key by itself once its window is
/// over.
///
/// A stored value that makes no sense, or has another type, counts as no admission at all and is overwritten.
pub(super) struct RedisLimiter(pub(super) Arc<Link>);

/// Whether let through, permits left, microseconds until one comes back, whether what lay there was corrupt.
type Answer = (bool, u16, i64, bool);

#[async_trait]
impl Limiter for RedisLimiter {
    async fn attempt(&self, rule: Rule, key: &Key) -> Result<LimitDecision, Unavailable> {
        let counters = &self.0.counters;
        let answer = match self.ask(rule, key, false).await {
            Err(trouble) if trouble.is_unknown_script() => self.ask(rule, key, true).await,
            answer => answer,
        };
        let (allowed, remaining, reset_micros, corrupt) = answer.inspect_err(|_| {
            counters.attempts_unavailable.add(1);
        })?;
        counters.corrupt_values.add(corrupt.into());
        let counted = if allowed { &counters.attempts_allowed } else { &counters.attempts_denied };
        counted.add(1);
        // A value that only looks like a ring may name any time; no true one names a later.
        let reset_after = Duration::from_micros(reset_micros.try_into().unwrap_or(0)).min(rule.window() * 2);
        Ok(LimitDecision { rule, allowed, remaining: remaining.min(rule.limit()), reset_after })
    }
}

impl RedisLimiter {
    async fn ask(&self, rule: Rule, key: &Key, by_text: bool) -> Result<Answer, Trouble> {
        let mut call = self.0.scripts.rate_limit.call(by_text);
        call.arg(1).arg(keys::ring(rule, key)).arg(rule.limit()).arg(rule.window_micros());
        self.0.ask(&call).await
    }
}
