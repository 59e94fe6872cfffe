//! The lock on a server: in what order among instances, at what cost, and on what lies there.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use coordination::redis::{Redis, Scripts};
use coordination::{LockError, LockOptions};
use redis::AsyncCommands as _;
use testkit::{RedisFault, RedisProxy, RedisServer, eventually, within_deadline};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};

use super::harness::{LEASE, calm, key, look, options, residue, started};

const LOG: &str = "test:log";
/// A wait that only a broken lock lets run out.
const PATIENT: LockOptions =
    LockOptions { wait: Duration::from_secs(30), max_lease: Duration::from_secs(30), queue_max: 1_000 };

/// The scripts, which also write down who queues, leaves, is passed over and owns.
fn logging(text: &str) -> String {
    let log = |what: &str| format!("redis.call('RPUSH', '{LOG}', {what})");
    let own = "redis.call('SET', KEYS[1], whom";
    let queue = "redis.call('RPUSH', KEYS[2], id)";
    let left =
        "local waiting = redis.call('HLEN', KEYS[3])\nif waiting == 0 then\n  redis.call('DEL', KEYS[2])";
    let over = "if tonumber(deadline) > now_ms then\n        local token";
    text.replace(own, &format!("{} {own}", log("'own ' .. whom .. ' ' .. string.format('%.0f', token)")))
        .replace(queue, &format!("{} {queue}", log("'queue ' .. id")))
        .replace(left, &format!("{} {left}", log("'left ' .. id")))
        .replace(over, &format!("if tonumber(deadline) <= now_ms then {} end {over}", log("'over ' .. whom")))
}

/// The first line of a log that a queue in order would not have written.
fn first_wrong(log: &[String]) -> Option<String> {
    let (mut queue, mut last_token) = (VecDeque::new(), 0);
    for line in log {
        let words: Vec<&str> = line.split(' ').collect();
        match words[..] {
            ["queue", who] => queue.push_back(who),
            ["left" | "over", who] => queue.retain(|waiting| *waiting != who),
            ["own", who, token] => {
                let token: u64 = token.parse().expect("a token");
                if token <= last_token {
                    return Some(format!("{line}: a token before was {last_token}"));
                }
                last_token = token;
                // Those of the instance that ends may also expire together with the whole queue, unseen.
                while queue.front().is_some_and(|first| *first != who && first.starts_with("i3-")) {
                    queue.pop_front();
                }
                match queue.pop_front() {
                    Some(first) if first != who => return Some(format!("{line}: {first} came first")),
                    Some(_) | None => {}
                }
            }
            _ => panic!("{line}"),
        }
    }
    None
}

/// Instances whose callers wait, give up, are dropped, and are served; one instance ends without a farewell.
async fn crowd(server: &RedisServer, database: usize, rewrite: fn(&str, &str) -> String) -> Vec<String> {
    let url = server.url(database);
    let mut instances = Vec::new();
    for number in 0..4 {
        let scripts = Scripts::rewritten(rewrite);
        let mut options = options(&url, &format!("i{number}"));
        // Only that of the one that ends runs out, however long the machine stands still.
        options.lease = if number == 3 { LEASE } else { LEASE * 20 };
        instances.push(started(options.with_scripts(scripts)).await);
    }
    let (mut callers, began) = (JoinSet::new(), Instant::now());
    for number in 0..20u64 {
        let lock = instances[usize::try_from(number % 4).expect("small")].lock();
        callers.spawn(async move {
            let mut round = number;
            while began.elapsed() < LEASE * 3 {
                round = round.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                let [wait, patience, hold] =
                    [40, 60, 4].map(|most| Duration::from_millis((round >> 33) % most));
                // Those of the last instance never give up, so that it ends with some of them in the queue.
                let wait = if number % 4 == 3 { PATIENT.wait } else { wait };
                let patience = if number % 4 == 3 { PATIENT.wait } else { patience };
                let key = key(1);
                match timeout(patience, lock.acquire(&key, LockOptions { wait, ..PATIENT })).await {
                    Ok(Ok(_tenure)) => sleep(hold).await,
                    Ok(Err(LockError::Unavailable(_))) => return,
                    Ok(Err(_)) | Err(_) => {}
                }
            }
        });
    }
    sleep(LEASE).await;
    drop(instances.pop());
    callers.join_all().await;
    let mut connection = look(&url).await;
    let log = connection.lrange(LOG, 0, -1).await.expect("a log");
    connection.del::<_, ()>(LOG).await.expect("done");
    assert_eq!(residue(&url).await, 0);
    log
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn keys_are_granted_in_the_order_of_the_servers_queue() {
    let server = RedisServer::start().await;
    let log = crowd(&server, 0, |_, text| logging(text)).await;
    assert_eq!(first_wrong(&log), None);
    let mut seen: HashMap<&str, usize> = HashMap::new();
    for line in &log {
        *seen.entry(line.split(' ').next().expect("a word")).or_default() += 1;
    }
    let often = |what: &str| seen.get(what).copied().unwrap_or(0);
    assert!(often("own") > 50 && often("queue") > 50 && often("left") > 10, "{seen:?}");
    // Passed over one by one, or gone with the whole queue, as time will have it.
    let ended = |what: &str| -> HashSet<&str> {
        log.iter()
            .filter_map(|line| line.strip_prefix(what)?.split(' ').next())
            .filter(|who| who.starts_with("i3-"))
            .collect()
    };
    assert!(!ended("queue ").is_subset(&ended("own ")), "nobody of the instance that ended was in the queue");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lifo_queue_shows_in_the_log() {
    let server = RedisServer::start().await;
    let log = crowd(&server, 0, |_, text| logging(text).replace("'LPOP'", "'RPOP'")).await;
    assert!(first_wrong(&log).is_some());
}

#[tokio::test]
async fn a_free_key_costs_one_round_trip_and_so_do_a_hundred() {
    let server = RedisServer::start().await;
    let redis = started(options(&server.url(0), "one")).await;
    let keys: Vec<_> = (0..100).map(key).collect();
    let before = redis.counts().round_trips;
    let tenures = redis.lock().try_acquire_each(&keys, PATIENT).await.expect("available");
    let after = redis.counts().round_trips;
    assert!(tenures.iter().all(Option::is_some));
    // The bell is rung once a second, and the server asked whether it is there.
    assert!((1..=3).contains(&(after - before)), "{}", after - before);
}

/// An owner may hear of a waiter before it hears that it is the owner.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_owner_is_notified_of_a_waiter_even_before_its_own_grant() {
    let server = RedisServer::start().await;
    let start = async |name: &str| {
        let mut long = options(&server.url(0), name);
        // No renewal asks meanwhile.
        long.lease = Duration::from_mins(10);
        started(long).await
    };
    let (one, two) = (start("one").await, start("two").await);
    for round in 0..200 {
        let first = AtomicBool::new(true);
        let come = async |redis: &Redis| {
            let tenure = redis.lock().acquire(&key(round), PATIENT).await.expect("a turn");
            if first.swap(false, Ordering::SeqCst) {
                eventually("the other shows", async || tenure.contended().then_some(())).await;
            }
        };
        tokio::join!(come(&one), come(&two));
    }
}

/// A waiter renews its place; the key is handed over; the news of that overtakes the answer to the renewal,
/// which still says "queued".
#[tokio::test]
async fn a_stale_renewal_reply_does_not_end_a_new_lease() {
    let server = RedisServer::start().await;
    let proxy = RedisProxy::start(server.port()).await;
    // The owner does not renew meanwhile, so the only script that runs is the waiter's.
    let mut long = options(&server.url(0), "owner");
    long.lease = Duration::from_mins(10);
    let owner = started(long).await;
    let mut slow = options(&proxy.url(0), "waiter");
    // Long enough for a busy machine; a third of it is waited for below.
    (slow.lease, slow.claim) = (LEASE * 15, LEASE * 15);
    slow.reply_timeout = LEASE * 30;
    let waiter = started(slow).await;

    let first = owner.lock().acquire(&key(1), PATIENT).await.expect("free");
    let _taken = owner.lock().acquire(&key(2), PATIENT).await.expect("free");
    let lock = waiter.lock();
    let next = async { lock.acquire(&key(1), PATIENT).await.expect("handed over") };
    let hand_over = async {
        eventually("a waiter shows", async || first.contended().then_some(())).await;
        // What is asked after the place in the queue is answered after it.
        assert!(lock.try_acquire(&key(2), PATIENT).await.expect("available").is_none());
        proxy.set(RedisFault::HoldReplies);
        let before = scripts_run(&server).await;
        eventually("its place is renewed", async || (scripts_run(&server).await > before).then_some(()))
            .await;
        drop(first);
    };
    let (tenure, ()) = tokio::join!(next, hand_over);
    assert_eq!(waiter.counts().locks_acquired_queued, 1, "by the bell");
    proxy.set(RedisFault::Healthy);
    // What is asked now is answered after what was kept.
    assert!(lock.try_acquire(&key(2), PATIENT).await.expect("available").is_none());
    assert!(!tenure.is_lost());
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
    // A lease longer than anybody would wait for.
    let mut long = options(&server.url(0), "one");
    long.lease = Duration::from_mins(10);
    let (redis, other) = (started(long).await, started(options(&server.url(0), "two")).await);
    let tenure = redis.lock().acquire(&key(1), PATIENT).await.expect("free");
    let waiting = redis.lock();
    let waiter = async { waiting.acquire(&key(1), PATIENT).await };
    let closing = async {
        eventually("a waiter shows", async || tenure.contended().then_some(())).await;
        redis.close().await;
    };
    let (answer, ()) = tokio::join!(waiter, closing);
    assert!(matches!(answer, Err(LockError::Unavailable(_))), "{answer:?}");
    assert!(tenure.is_lost());
    let lock = other.lock();
    within_deadline("the key is free", lock.acquire(&key(1), PATIENT)).await.expect("free");
    drop(tenure);
    assert_eq!(residue(&server.url(0)).await, 0);
}

#[tokio::test]
async fn cancelled_waiters_do_not_accumulate_on_the_server() {
    let server = RedisServer::start().await;
    let redis = started(calm(&server.url(0), "one")).await;
    let _owner = redis.lock().acquire(&key(1), PATIENT).await.expect("free");
    let lock = redis.lock();
    let mut connection = look(&server.url(0)).await;
    let mut most: usize = 0;
    for _ in 0..300 {
        let left = timeout(Duration::from_millis(1), lock.acquire(&key(1), PATIENT)).await;
        assert!(left.is_err());
        most = most.max(connection.llen("lk:{test:1}:q").await.expect("a length"));
    }
    assert!(most < 16, "{most} entries");
}

#[tokio::test]
async fn corrupt_lock_keys_are_repaired() {
    let server = RedisServer::start().await;
    let redis = started(options(&server.url(0), "one")).await;
    let (lock, key, mut connection) = (redis.lock(), key(1), look(&server.url(0)).await);
    let wrong = [
        vec!["LPUSH", "lk:{test:1}", "x"],
        vec!["SET", "lk:{test:1}", "no owner"],
        vec!["SET", "lk:{test:1}", "somebody.1:1"],
        vec!["SET", "lk:{test:1}", "one-0.7:99999999999999999999"],
        vec!["SET", "lk:{test:1}:q", "x"],
        vec!["SET", "lk:{test:1}:w", "x"],
        vec!["RPUSH", "lk:{test:1}:q", "x", "y.1", "one-0.99"],
    ];
    for command in wrong {
        let mut wrong = redis::cmd(command[0]);
        wrong.arg(&command[1..]).query_async::<()>(&mut connection).await.expect("stored");
        for round in 0..2 {
            let first = within_deadline("the key comes", lock.acquire(&key, PATIENT)).await;
            let first = first.unwrap_or_else(|error| panic!("{command:?}, {round}: {error}"));
            let (second, ()) = tokio::join!(lock.acquire(&key, PATIENT), async { drop(first) });
            second.unwrap_or_else(|error| panic!("{command:?}, {round}: {error}"));
        }
    }
    assert!(redis.counts().corrupt_values > 0);
}

/// Which share of the tenures each of a few instances got that all want one key all the time.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_instance_gets_more_than_its_share() {
    let server = RedisServer::start().await;
    let url = server.url(0);
    let mut instances: Vec<Redis> = Vec::new();
    for number in 0..3 {
        instances.push(started(calm(&url, &format!("i{number}"))).await);
    }
    let (mut callers, began) = (JoinSet::new(), Instant::now());
    for number in 0..12 {
        let lock = instances[number % 3].lock();
        callers.spawn(async move {
            let mut tenures = 0u64;
            while began.elapsed() < LEASE {
                drop(lock.acquire(&key(1), PATIENT).await.expect("its turn"));
                tenures += 1;
            }
            (number % 3, tenures)
        });
    }
    let mut shares = [0; 3];
    for (instance, tenures) in callers.join_all().await {
        shares[instance] += tenures;
    }
    let all: u64 = shares.iter().sum();
    assert!(shares.iter().all(|share| share * 3 * 10 <= all * 12), "{shares:?}");
}
