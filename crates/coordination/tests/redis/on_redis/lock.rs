//! The lock on a Redis server: order across instances, cost, and corrupt values.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use coordination::redis::{Redis, Scripts};
use coordination::{LockError, LockOptions};
use redis::AsyncCommands as _;
use testkit::{RedisFault, RedisProxy, RedisServer, eventually, within_deadline};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};

use super::harness::{LEASE, connect, key, options, options_without_lease_expiry, residue, start};

const LOG_KEY: &str = "test:log";
/// Options whose wait expires only if the lock is broken.
const LONG_WAIT: LockOptions =
    LockOptions { wait: Duration::from_secs(30), max_lease: Duration::from_secs(30), queue_max: 1_000 };

/// The scripts, changed to log which ids join the queue, leave it, are skipped, and become the owner.
fn logging(text: &str) -> String {
    let log = |entry: &str| format!("redis.call('RPUSH', '{LOG_KEY}', {entry})");
    let own = "redis.call('SET', KEYS[1], new_owner";
    let queue = "redis.call('RPUSH', KEYS[2], id)";
    let left =
        "local waiting = redis.call('HLEN', KEYS[3])\nif waiting == 0 then\n  redis.call('DEL', KEYS[2])";
    let skipped = "if tonumber(deadline) > now_ms then\n        local token";
    text.replace(own, &format!("{} {own}", log("'own ' .. new_owner .. ' ' .. string.format('%.0f', token)")))
        .replace(queue, &format!("{} {queue}", log("'queue ' .. id")))
        .replace(left, &format!("{} {left}", log("'left ' .. id")))
        .replace(
            skipped,
            &format!("if tonumber(deadline) <= now_ms then {} end {skipped}", log("'skipped ' .. waiter")),
        )
}

/// The first line of the log that violates the order of the queue.
fn first_violation(log: &[String]) -> Option<String> {
    let mut queue = VecDeque::new();
    let mut last_token = 0;
    for line in log {
        let words: Vec<&str> = line.split(' ').collect();
        match words[..] {
            ["queue", id] => queue.push_back(id),
            ["left" | "skipped", id] => queue.retain(|waiting| *waiting != id),
            ["own", id, token] => {
                let token: u64 = token.parse().expect("a token");
                if token <= last_token {
                    return Some(format!("{line}: the previous token was {last_token}"));
                }
                last_token = token;
                // Waiters of the instance that ends may also expire with the whole queue, which is not
                // logged.
                while queue.front().is_some_and(|first| *first != id && first.starts_with("i3-")) {
                    queue.pop_front();
                }
                match queue.pop_front() {
                    Some(first) if first != id => {
                        return Some(format!("{line}: {first} was queued before it"));
                    }
                    Some(_) | None => {}
                }
            }
            _ => panic!("{line}"),
        }
    }
    None
}

/// Runs instances whose callers wait, time out, are dropped, and own the key. One instance ends without
/// releasing anything. Returns the log.
async fn run_callers(
    server: &RedisServer,
    database: usize,
    rewrite: fn(&str, &str) -> String,
) -> Vec<String> {
    let url = server.url(database);
    let mut instances = Vec::new();
    for number in 0..4 {
        let scripts = Scripts::rewrite(rewrite);
        let mut options = options(&url, &format!("i{number}"));
        // Only leases of the instance that ends expire, even if the machine pauses.
        options.lease = if number == 3 { LEASE } else { LEASE * 20 };
        instances.push(start(options.with_scripts(scripts)).await);
    }
    let mut callers = JoinSet::new();
    let began = Instant::now();
    for number in 0..20u64 {
        let lock = instances[usize::try_from(number % 4).expect("small")].lock();
        callers.spawn(async move {
            let mut round = number;
            while began.elapsed() < LEASE * 3 {
                round = round.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                let [wait, dropped_after, owned_for] =
                    [40, 60, 4].map(|bound| Duration::from_millis((round >> 33) % bound));
                // Callers of the last instance never time out, so that some are in the queue when it ends.
                let wait = if number % 4 == 3 { LONG_WAIT.wait } else { wait };
                let dropped_after = if number % 4 == 3 { LONG_WAIT.wait } else { dropped_after };
                let key = key(1);
                match timeout(dropped_after, lock.acquire(&key, LockOptions { wait, ..LONG_WAIT })).await {
                    Ok(Ok(_guard)) => sleep(owned_for).await,
                    Ok(Err(LockError::Unavailable(_))) => return,
                    Ok(Err(_)) | Err(_) => {}
                }
            }
        });
    }
    sleep(LEASE).await;
    drop(instances.pop());
    callers.join_all().await;
    let mut connection = connect(&url).await;
    let log = connection.lrange(LOG_KEY, 0, -1).await.expect("a log");
    connection.del::<_, ()>(LOG_KEY).await.expect("deleted");
    assert_eq!(residue(&url).await, 0);
    log
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn keys_are_granted_in_the_order_of_the_servers_queue() {
    let server = RedisServer::start().await;
    let log = run_callers(&server, 0, |_, text| logging(text)).await;
    assert_eq!(first_violation(&log), None);
    let mut seen: HashMap<&str, usize> = HashMap::new();
    for line in &log {
        *seen.entry(line.split(' ').next().expect("a word")).or_default() += 1;
    }
    let count = |kind: &str| seen.get(kind).copied().unwrap_or(0);
    assert!(count("own") > 50 && count("queue") > 50 && count("left") > 10, "{seen:?}");
    // Waiters of the instance that ended are skipped one by one or expire with the whole queue, depending on
    // timing.
    let ended = |prefix: &str| -> HashSet<&str> {
        log.iter()
            .filter_map(|line| line.strip_prefix(prefix)?.split(' ').next())
            .filter(|id| id.starts_with("i3-"))
            .collect()
    };
    assert!(
        !ended("queue ").is_subset(&ended("own ")),
        "no caller of the instance that ended was in the queue"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lifo_queue_violates_the_order() {
    let server = RedisServer::start().await;
    let log = run_callers(&server, 0, |_, text| logging(text).replace("'LPOP'", "'RPOP'")).await;
    assert!(first_violation(&log).is_some());
}

#[tokio::test]
async fn a_free_key_costs_one_round_trip_and_so_do_a_hundred() {
    let server = RedisServer::start().await;
    let redis = start(options(&server.url(0), "one")).await;
    let keys: Vec<_> = (0..100).map(key).collect();
    let before = redis.counts().round_trips;
    let guards = redis.lock().try_acquire_each(&keys, LONG_WAIT).await.expect("available");
    let after = redis.counts().round_trips;
    assert!(guards.iter().all(Option::is_some));
    // Heartbeats and PINGs may add round trips.
    assert!((1..=3).contains(&(after - before)), "{}", after - before);
}

/// The notification of a waiter may arrive before the reply that grants ownership.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_owner_is_notified_of_a_waiter_even_before_its_own_grant() {
    let server = RedisServer::start().await;
    let start = async |name: &str| {
        let mut long = options(&server.url(0), name);
        // No renewal during the test.
        long.lease = Duration::from_mins(10);
        start(long).await
    };
    let (one, two) = (start("one").await, start("two").await);
    for round in 0..200 {
        let first = AtomicBool::new(true);
        let acquire = async |redis: &Redis| {
            let guard = redis.lock().acquire(&key(round), LONG_WAIT).await.expect("acquired");
            if first.swap(false, Ordering::SeqCst) {
                eventually("the other instance waits", async || guard.contended().then_some(())).await;
            }
        };
        tokio::join!(acquire(&one), acquire(&two));
    }
}

/// A waiter renews its position, and then the key is handed over to it. The grant notification overtakes the
/// reply to the renewal, which is still "queued".
#[tokio::test]
async fn a_stale_renewal_reply_does_not_end_a_new_lease() {
    let server = RedisServer::start().await;
    let proxy = RedisProxy::start(server.port()).await;
    // The owner does not renew during the test, so the only script that runs is the waiter's.
    let mut long = options(&server.url(0), "owner");
    long.lease = Duration::from_mins(10);
    let owner = start(long).await;
    let mut slow = options(&proxy.url(0), "waiter");
    // Long enough for a busy machine. The test waits for a third of it.
    (slow.lease, slow.claim) = (LEASE * 15, LEASE * 15);
    slow.reply_timeout = LEASE * 30;
    let waiter = start(slow).await;

    let first = owner.lock().acquire(&key(1), LONG_WAIT).await.expect("free");
    let _taken = owner.lock().acquire(&key(2), LONG_WAIT).await.expect("free");
    let lock = waiter.lock();
    let next = async { lock.acquire(&key(1), LONG_WAIT).await.expect("handed over") };
    let hand_over = async {
        eventually("a caller waits", async || first.contended().then_some(())).await;
        // The reply to this request follows the one to the request that joined the queue.
        assert!(lock.try_acquire(&key(2), LONG_WAIT).await.expect("available").is_none());
        proxy.set(RedisFault::HoldReplies);
        let before = scripts_run(&server).await;
        eventually("the position is renewed", async || (scripts_run(&server).await > before).then_some(()))
            .await;
        drop(first);
    };
    let (guard, ()) = tokio::join!(next, hand_over);
    assert_eq!(waiter.counts().locks_acquired_queued, 1, "by the notification");
    proxy.set(RedisFault::Healthy);
    // This reply arrives after those that were held.
    assert!(lock.try_acquire(&key(2), LONG_WAIT).await.expect("available").is_none());
    assert!(!guard.is_lost());
    assert_eq!(waiter.counts().leases_lost, 0);
}

async fn scripts_run(server: &RedisServer) -> u64 {
    let text = server.command(&["INFO", "commandstats"]).await;
    let calls = text.split_once("cmdstat_evalsha:calls=").and_then(|(_, rest)| rest.split(',').next());
    calls.map_or(0, |calls| calls.parse().expect("a number"))
}

#[tokio::test]
async fn close_releases_everything_at_once() {
    let server = RedisServer::start().await;
    // A lease longer than any wait of the test.
    let mut long = options(&server.url(0), "one");
    long.lease = Duration::from_mins(10);
    let (redis, other) = (start(long).await, start(options(&server.url(0), "two")).await);
    let guard = redis.lock().acquire(&key(1), LONG_WAIT).await.expect("free");
    let waiting = redis.lock();
    let waiter = async { waiting.acquire(&key(1), LONG_WAIT).await };
    let closing = async {
        eventually("a caller waits", async || guard.contended().then_some(())).await;
        redis.close().await;
    };
    let (result, ()) = tokio::join!(waiter, closing);
    assert!(matches!(result, Err(LockError::Unavailable(_))), "{result:?}");
    assert!(guard.is_lost());
    let lock = other.lock();
    within_deadline("the key is free", lock.acquire(&key(1), LONG_WAIT)).await.expect("free");
    drop(guard);
    assert_eq!(residue(&server.url(0)).await, 0);
}

#[tokio::test]
async fn cancelled_waiters_do_not_accumulate_on_the_server() {
    let server = RedisServer::start().await;
    let redis = start(options_without_lease_expiry(&server.url(0), "one")).await;
    let _owner = redis.lock().acquire(&key(1), LONG_WAIT).await.expect("free");
    let lock = redis.lock();
    let mut connection = connect(&server.url(0)).await;
    let mut longest: usize = 0;
    for _ in 0..300 {
        let result = timeout(Duration::from_millis(1), lock.acquire(&key(1), LONG_WAIT)).await;
        assert!(result.is_err());
        longest = longest.max(connection.llen("lk:{test:1}:q").await.expect("a length"));
    }
    assert!(longest < 16, "{longest} entries");
}

#[tokio::test]
async fn corrupt_lock_keys_are_repaired() {
    let server = RedisServer::start().await;
    let redis = start(options(&server.url(0), "one")).await;
    let lock = redis.lock();
    let key = key(1);
    let mut connection = connect(&server.url(0)).await;
    let wrong = [
        vec!["LPUSH", "lk:{test:1}", "x"],
        vec!["SET", "lk:{test:1}", "no owner"],
        vec!["SET", "lk:{test:1}", "unknown.1:1"],
        vec!["SET", "lk:{test:1}", "one-0.7:99999999999999999999"],
        vec!["SET", "lk:{test:1}:q", "x"],
        vec!["SET", "lk:{test:1}:w", "x"],
        vec!["RPUSH", "lk:{test:1}:q", "x", "y.1", "one-0.99"],
    ];
    for command in wrong {
        let mut wrong = redis::cmd(command[0]);
        wrong.arg(&command[1..]).query_async::<()>(&mut connection).await.expect("stored");
        for round in 0..2 {
            let first = within_deadline("the key is acquired", lock.acquire(&key, LONG_WAIT)).await;
            let first = first.unwrap_or_else(|error| panic!("{command:?}, {round}: {error}"));
            let (second, ()) = tokio::join!(lock.acquire(&key, LONG_WAIT), async { drop(first) });
            second.unwrap_or_else(|error| panic!("{command:?}, {round}: {error}"));
        }
    }
    assert!(redis.counts().corrupt_values > 0);
}

/// Several instances contend for one key all the time; none may acquire it much more often than the others.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn contending_instances_acquire_a_key_about_equally_often() {
    let server = RedisServer::start().await;
    let url = server.url(0);
    let mut instances: Vec<Redis> = Vec::new();
    for number in 0..3 {
        instances.push(start(options_without_lease_expiry(&url, &format!("i{number}"))).await);
    }
    let mut callers = JoinSet::new();
    let began = Instant::now();
    for number in 0..12 {
        let lock = instances[number % 3].lock();
        callers.spawn(async move {
            let mut times = 0u64;
            while began.elapsed() < LEASE {
                drop(lock.acquire(&key(1), LONG_WAIT).await.expect("acquired"));
                times += 1;
            }
            (number % 3, times)
        });
    }
    let mut shares = [0; 3];
    for (instance, times) in callers.join_all().await {
        shares[instance] += times;
    }
    let all: u64 = shares.iter().sum();
    assert!(shares.iter().all(|share| share * 3 * 10 <= all * 12), "{shares:?}");
}
