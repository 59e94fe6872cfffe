//! Common but wrong versions of the scripts. The suites must reject each of them.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use coordination::conformance::{limiter, lock};
use coordination::redis::Redis;
use coordination::{GuardBackend, Key, Lock, LockError, LockGuard, LockOptions};
use redis::aio::MultiplexedConnection;
use testkit::RedisServer;
use tokio::runtime::Handle;
use tokio::time::sleep;

use super::harness::{
    LEASE, cases_named, connect, failed_cases, options_without_lease_expiry, residue, start,
};
use super::limiter_conforms::{by_test_clock, harness_with};
use super::lock_conforms;

/// Each of these cases of the limiter's suite must reject the script.
async fn assert_limiter_rejected(script: fn(&str) -> String, by: &[&str]) {
    let server = RedisServer::start().await;
    assert_eq!(failed_cases(&server, cases_named(limiter::CASES, by), harness_with(script)), by);
}

/// Each of these cases of the lock's suite must reject the scripts.
async fn assert_lock_rejected(rewrite: fn(&str, &str) -> String, by: &[&str]) {
    let server = RedisServer::start().await;
    assert_eq!(failed_cases(&server, cases_named(lock::CASES, by), lock_conforms::harness_with(rewrite)), by);
}

/// The text with `from`, which occurs once, replaced by `to`.
fn replace_once(text: &str, from: &str, to: &str) -> String {
    assert_eq!(text.matches(from).count(), 1, "{from} in {text}");
    text.replace(from, to)
}

const PRELUDE: &str = "
local limit, window = tonumber(ARGV[1]), tonumber(ARGV[2])
local time = redis.call('TIME')
local clock = time[1] * 1000000 + time[2]
local ring = redis.call('GET', KEYS[1])
";

#[tokio::test]
async fn a_fixed_window_is_rejected() {
    let fixed_window = |_: &str| {
        let script = PRELUDE.to_owned()
            + "local start, count = clock - clock % window, 0
               if ring then
                 local stored_start, stored_count = string.match(ring, '(%d+) (%d+)')
                 if tonumber(stored_start) == start then count = tonumber(stored_count) end
               end
               local allowed = count < limit and 1 or 0
               ring = string.format('%.0f %d', start, count + allowed)
               redis.call('SET', KEYS[1], ring, 'PXAT', string.format('%.0f', (start + window) / 1000 + 1))
               return {allowed, limit - count - allowed, start + window - clock, 0}";
        by_test_clock(&script)
    };
    let by = [
        "a_permit_comes_back_to_the_microsecond",
        "no_window_holds_more_than_the_limit",
        "refusals_only_when_the_window_is_full",
    ];
    assert_limiter_rejected(fixed_window, &by).await;
}

#[tokio::test]
async fn gcra_is_rejected() {
    let gcra = |_: &str| {
        let script = PRELUDE.to_owned()
            + "local gap, due = window / limit, math.max(tonumber(ring or 0), clock)
               local allowed = due + gap <= clock + window
               ring = string.format('%.0f', allowed and due + gap or due)
               redis.call('SET', KEYS[1], ring, 'PXAT', string.format('%.0f', due / 1000 + 1))
               return {allowed and 1 or 0, 0, math.max(0, due + gap - window - clock), 0}";
        by_test_clock(&script)
    };
    let by = ["a_permit_comes_back_to_the_microsecond", "no_window_holds_more_than_the_limit"];
    assert_limiter_rejected(gcra, &by).await;
}

#[tokio::test]
async fn storing_refused_attempts_is_rejected() {
    let storing = |text: &str| {
        let refused = "if used >= limit then";
        let stored = "if used >= limit then
            redis.call('SETRANGE', KEYS[1], 0, string.sub(ring, 9) .. struct.pack('>I8', now))";
        by_test_clock(&replace_once(text, refused, stored))
    };
    let by = ["refused_attempts_do_not_prolong_the_ban", "refusals_only_when_the_window_is_full"];
    assert_limiter_rejected(storing, &by).await;
}

/// As with GET, compare and DEL in separate commands: the comparison is outdated by the time of the DEL.
#[tokio::test]
async fn an_unconditional_release_is_rejected() {
    let unconditional = |name: &str, text: &str| match name {
        "release" => replace_once(text, "if owner == id then", "if owner then"),
        _ => text.to_owned(),
    };
    assert_lock_rejected(unconditional, &["waiters_are_served_in_order", "a_wait_times_out_on_time"]).await;
}

#[tokio::test]
async fn a_release_without_hand_over_is_rejected() {
    let deleting = |name: &str, text: &str| match name {
        "release" => replace_once(text, "if hand_over(token) then return {1} end", ""),
        "acquire" => replace_once(text, "if not owner then owner, token = hand_over(0) end", ""),
        _ => text.to_owned(),
    };
    assert_lock_rejected(deleting, &["a_release_hands_over_to_the_first_waiter"]).await;
}

#[tokio::test]
async fn a_lifo_queue_is_rejected() {
    let lifo = |_: &str, text: &str| text.replace("'LPOP'", "'RPOP'");
    assert_lock_rejected(lifo, &["waiters_are_served_in_order"]).await;
}

#[tokio::test]
async fn a_queue_that_keeps_cancelled_waiters_is_rejected() {
    let keeping = |name: &str, text: &str| match name {
        "release" => replace_once(
            text,
            "if redis.call('HDEL', KEYS[3], id) == 0 then return {0} end",
            "do return {0} end",
        ),
        _ => text.to_owned(),
    };
    assert_lock_rejected(keeping, &["a_cancelled_waiter_frees_its_position"]).await;
}

/// Renews on another connection than it releases, so that a renewal can arrive after the release and make the
/// old owner the owner again.
struct UnorderedLock {
    lock: Arc<dyn Lock>,
    connection: MultiplexedConnection,
}

struct UnorderedGuard {
    guard: Option<LockGuard>,
    connection: MultiplexedConnection,
}

impl UnorderedLock {
    fn wrap(&self, guard: LockGuard) -> LockGuard {
        let key = guard.key().clone();
        let token = guard.token();
        let backend = UnorderedGuard { guard: Some(guard), connection: self.connection.clone() };
        LockGuard::new(key, token, backend)
    }
}

#[async_trait]
impl GuardBackend for UnorderedGuard {
    fn is_lost(&self) -> bool {
        self.guard().is_lost()
    }

    async fn lost(&self) {
        self.guard().lost().await;
    }

    fn contended(&self) -> bool {
        self.guard().contended()
    }
}

impl UnorderedGuard {
    fn guard(&self) -> &LockGuard {
        self.guard.as_ref().expect("present until dropped")
    }
}

impl Drop for UnorderedGuard {
    fn drop(&mut self) {
        let name = format!("lk:{{{}}}", self.guard().key());
        let value = format!("suite-0.0:{}", self.guard().token());
        let mut connection = self.connection.clone();
        drop(self.guard.take());
        Handle::current().spawn(async move {
            let mut renewal = redis::cmd("SET");
            renewal.arg(name).arg(value).arg("PX").arg(u64::try_from(LEASE.as_millis()).expect("short"));
            // Slightly late, like a renewal in flight.
            sleep(Duration::from_millis(1)).await;
            let _: Result<(), _> = renewal.query_async(&mut connection).await;
        });
    }
}

#[async_trait]
impl Lock for UnorderedLock {
    async fn acquire(&self, key: &Key, options: LockOptions) -> Result<LockGuard, LockError> {
        Ok(self.wrap(self.lock.acquire(key, options).await?))
    }

    async fn try_acquire_each(
        &self,
        keys: &[Key],
        options: LockOptions,
    ) -> Result<Vec<Option<LockGuard>>, LockError> {
        let guards = self.lock.try_acquire_each(keys, options).await?;
        Ok(guards.into_iter().map(|guard| Some(self.wrap(guard?))).collect())
    }
}

struct UnorderedHarness {
    lock: Arc<UnorderedLock>,
    url: String,
    _redis: Redis,
}

#[async_trait]
impl lock::Harness for UnorderedHarness {
    fn lock(&self) -> Arc<dyn Lock> {
        self.lock.clone()
    }

    async fn residue(&self) -> usize {
        residue(&self.url).await
    }
}

#[tokio::test]
async fn a_renewal_that_overtakes_a_release_is_rejected() {
    let server = RedisServer::start().await;
    let by = ["a_release_hands_over_to_the_first_waiter", "a_section_dropped_anywhere_frees_the_key"];
    let failed = failed_cases(&server, cases_named(lock::CASES, &by), |url| {
        Box::pin(async move {
            let redis = start(options_without_lease_expiry(&url, "suite")).await;
            let lock = Arc::new(UnorderedLock { lock: redis.lock(), connection: connect(&url).await });
            Box::new(UnorderedHarness { lock, url, _redis: redis }) as Box<dyn lock::Harness>
        })
    });
    assert_eq!(failed, by);
}
