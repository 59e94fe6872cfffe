//! The cost of a lost server: hardly any processor time, and no long delays of callers.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use coordination::conformance::ManualClock;
use coordination::redis::{OnDown, Redis, RedisOptions};
use coordination::{Limiter, Lock, LockError, LockGuard, LockOptions, Rule};
use testkit::{RedisServer, within_deadline};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

use super::harness::{key, start};

/// Keys that are owned when the server is killed, each with a waiter.
const KEYS: usize = 64;
/// Concurrent callers during the outage.
const CALLERS: usize = 8;
/// Pause between two requests of a caller.
const PAUSE: Duration = Duration::from_millis(20);
/// Length of the outage.
const OUTAGE: Duration = Duration::from_secs(3);
/// Maximum processor time of the test's thread during the outage.
const PROCESSOR_TIME_MAX: Duration = Duration::from_secs(1);
/// Releases are retried for two leases, so a retry loop without a pause would spin for that long.
const LEASE: Duration = Duration::from_secs(10);
/// Longer than any request may take, also on a busy machine.
const SLOW: Duration = Duration::from_secs(10);

/// Processor time of this thread so far, in steps of 10 ms.
fn processor_time() -> Duration {
    let stat = std::fs::read_to_string("/proc/thread-self/stat").expect("Linux");
    // The name in parentheses may contain any character.
    let fields: Vec<&str> = stat.rsplit(')').next().expect("fields").split_whitespace().collect();
    let ticks: u64 = fields[11..13].iter().map(|field| field.parse::<u64>().expect("ticks")).sum();
    Duration::from_millis(ticks * 10)
}

/// Calls the limiter and the lock, as a request does, until `stop` is set. Returns the duration of each
/// request.
async fn send_requests(
    lock: Arc<dyn Lock>,
    limiter: Arc<dyn Limiter>,
    number: usize,
    stop: Arc<AtomicBool>,
) -> Vec<Duration> {
    let rule = Rule::parse("test", "512/1s").expect("a rule");
    let options = LockOptions { wait: Duration::from_millis(250), ..LockOptions::default() };
    let mut durations = Vec::new();
    while !stop.load(Ordering::SeqCst) {
        let began = Instant::now();
        limiter.attempt(rule, &key(number)).await.expect("the local window decides");
        let result = lock.acquire(&key(1_000 + number), options).await;
        durations.push(began.elapsed());
        assert!(matches!(result, Ok(_) | Err(LockError::Unavailable(_))), "{result:?}");
        drop(result);
        sleep(PAUSE).await;
    }
    durations
}

/// Acquires every key, with a waiter for each.
async fn acquire_all(redis: &Redis) -> (Vec<LockGuard>, JoinSet<Result<LockGuard, LockError>>) {
    let lock = redis.lock();
    let mut guards = Vec::new();
    let mut waiters = JoinSet::new();
    for number in 0..KEYS {
        guards.push(lock.acquire(&key(number), LockOptions::default()).await.expect("free"));
        let lock = lock.clone();
        let options = LockOptions { wait: Duration::from_mins(1), ..LockOptions::default() };
        waiters.spawn(async move { lock.acquire(&key(number), options).await });
    }
    sleep(PAUSE * 5).await;
    (guards, waiters)
}

#[tokio::test(flavor = "current_thread")]
async fn c4_a_server_killed_under_load_costs_little_processor_time() {
    let mut server = RedisServer::start().await;
    let mut options = RedisOptions::new(&server.url(0), "one").expect("valid options");
    options.lease = LEASE;
    let redis = start(options).await;
    let limiter: Arc<dyn Limiter> =
        Arc::new(redis.limiter_with_fallback(OnDown::Local, Arc::new(ManualClock::new())));
    let (guards, mut waiters) = acquire_all(&redis).await;
    let stop = Arc::new(AtomicBool::new(false));
    let mut callers = JoinSet::new();
    for number in 0..CALLERS {
        callers.spawn(send_requests(redis.lock(), limiter.clone(), number, stop.clone()));
    }
    sleep(PAUSE * 10).await;

    // All guards are dropped while the server is paused, so the releases are in flight when it is killed.
    server.pause();
    drop(guards);
    sleep(PAUSE).await;
    server.kill9();
    let began = Instant::now();
    let used_before = processor_time();
    sleep(OUTAGE).await;
    let wall = began.elapsed();
    let used = processor_time().saturating_sub(used_before);
    stop.store(true, Ordering::SeqCst);
    let mut durations = callers.join_all().await.concat();
    durations.sort_unstable();
    let percentile = |share: usize| durations[durations.len() * share / 1_000];
    println!(
        "{wall:?} down, {used:?} of processor time, {} requests: p50 {:?}, p99 {:?}, p99.9 {:?}",
        durations.len(),
        percentile(500),
        percentile(990),
        percentile(999)
    );
    assert!(used < PROCESSOR_TIME_MAX, "{used:?} of processor time in {wall:?}");
    let slow = durations.iter().filter(|duration| **duration > SLOW).count();
    assert!(slow == 0 && durations.len() > CALLERS, "{slow} of {} were slow", durations.len());
    // No waiter waits for a server that is down.
    let mut failed = 0;
    while let Some(Ok(result)) = within_deadline("waiters continue", waiters.join_next()).await {
        assert!(matches!(result, Err(LockError::Unavailable(_))), "{result:?}");
        failed += 1;
    }
    assert_eq!(failed, KEYS);
    server.restart().await;
    within_deadline("Redis is up again", redis.wait_until_up()).await;
    drop(redis.lock().acquire(&key(1), LockOptions::default()).await.expect("free again"));
    redis.close().await;
}
