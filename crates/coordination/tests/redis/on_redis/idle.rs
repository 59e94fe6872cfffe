//! What a lost server costs the process that misses it: no processor time, and callers hardly any of theirs.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use coordination::conformance::ManualClock;
use coordination::redis::{OnDown, Redis, RedisOptions};
use coordination::{Limiter, Lock, LockError, LockGuard, LockOptions, Rule};
use testkit::{RedisServer, within_deadline};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

use super::harness::{key, started};

/// Keys that are owned, each with a waiter, when the server dies.
const KEYS: usize = 64;
/// Callers who go on meanwhile, and the pause between two of their requests.
const CALLERS: usize = 8;
const PAUSE: Duration = Duration::from_millis(20);
/// How long the server is away, and the processor time that is far too much for it.
const AWAY: Duration = Duration::from_secs(3);
const MUCH: Duration = Duration::from_secs(1);
/// What is given up is asked about for two of these: as long as a loop without any wait would last.
const LEASE: Duration = Duration::from_secs(10);
/// Slower than anything that is meant to happen, also on a busy machine.
const SLOW: Duration = Duration::from_secs(10);

/// Processor time of this thread so far, in steps of 10 ms.
fn processor_time() -> Duration {
    let stat = std::fs::read_to_string("/proc/thread-self/stat").expect("Linux");
    // The name in parentheses may hold anything.
    let fields: Vec<&str> = stat.rsplit(')').next().expect("fields").split_whitespace().collect();
    let ticks: u64 = fields[11..13].iter().map(|field| field.parse::<u64>().expect("ticks")).sum();
    Duration::from_millis(ticks * 10)
}

/// Asks the limiter and the lock, as a request does, until it is told to end. How long each request took.
async fn keep_asking(
    lock: Arc<dyn Lock>,
    limiter: Arc<dyn Limiter>,
    number: usize,
    end: Arc<AtomicBool>,
) -> Vec<Duration> {
    let rule = Rule::parse("test", "512/1s").expect("a rule");
    let options = LockOptions { wait: Duration::from_millis(250), ..LockOptions::default() };
    let mut took = Vec::new();
    while !end.load(Ordering::SeqCst) {
        let began = Instant::now();
        limiter.attempt(rule, &key(number)).await.expect("the window of this process decides");
        let answer = lock.acquire(&key(1_000 + number), options).await;
        took.push(began.elapsed());
        assert!(matches!(answer, Ok(_) | Err(LockError::Unavailable(_))), "{answer:?}");
        drop(answer);
        sleep(PAUSE).await;
    }
    took
}

/// Owns every key, with a waiter for each.
async fn crowd(redis: &Redis) -> (Vec<LockGuard>, JoinSet<Result<LockGuard, LockError>>) {
    let (lock, mut tenures, mut waiters) = (redis.lock(), Vec::new(), JoinSet::new());
    for number in 0..KEYS {
        tenures.push(lock.acquire(&key(number), LockOptions::default()).await.expect("free"));
        let lock = lock.clone();
        let options = LockOptions { wait: Duration::from_mins(1), ..LockOptions::default() };
        waiters.spawn(async move { lock.acquire(&key(number), options).await });
    }
    sleep(PAUSE * 5).await;
    (tenures, waiters)
}

#[tokio::test(flavor = "current_thread")]
async fn c4_a_server_killed_under_load_costs_no_processor_time() {
    let mut server = RedisServer::start().await;
    let mut options = RedisOptions::new(&server.url(0), "one").expect("valid options");
    options.lease = LEASE;
    let redis = started(options).await;
    let limiter: Arc<dyn Limiter> =
        Arc::new(redis.limiter_with_fallback(OnDown::Local, Arc::new(ManualClock::new())));
    let (tenures, mut waiters) = crowd(&redis).await;
    let (end, mut callers) = (Arc::new(AtomicBool::new(false)), JoinSet::new());
    for number in 0..CALLERS {
        callers.spawn(keep_asking(redis.lock(), limiter.clone(), number, end.clone()));
    }
    sleep(PAUSE * 10).await;

    // Everybody leaves while the server stands still, so all of it is on the wire when it dies.
    server.pause();
    drop(tenures);
    sleep(PAUSE).await;
    server.kill9();
    let (began, used) = (Instant::now(), processor_time());
    sleep(AWAY).await;
    let (wall, used) = (began.elapsed(), processor_time().saturating_sub(used));
    end.store(true, Ordering::SeqCst);
    let mut took = callers.join_all().await.concat();
    took.sort_unstable();
    let at = |share: usize| took[took.len() * share / 1_000];
    println!(
        "{wall:?} away, {used:?} of processor time, {} requests: p50 {:?}, p99 {:?}, most {:?}",
        took.len(),
        at(500),
        at(990),
        at(999)
    );
    assert!(used < MUCH, "{used:?} of processor time in {wall:?}");
    let slow = took.iter().filter(|took| **took > SLOW).count();
    assert!(slow == 0 && took.len() > CALLERS, "{slow} of {} were slow", took.len());
    // Nobody waits for a server that is away.
    let mut waited = 0;
    while let Some(Ok(answer)) = within_deadline("waiters go on", waiters.join_next()).await {
        assert!(matches!(answer, Err(LockError::Unavailable(_))), "{answer:?}");
        waited += 1;
    }
    assert_eq!(waited, KEYS);
    server.restart().await;
    within_deadline("it is back", redis.wait_until_up()).await;
    drop(redis.lock().acquire(&key(1), LockOptions::default()).await.expect("free again"));
    redis.close().await;
}
