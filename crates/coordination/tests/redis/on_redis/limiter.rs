//! The limiter on a Redis server: several instances, corrupt values, and its documented cost.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use coordination::conformance::ManualClock;
use coordination::redis::{Redis, Scripts};
use coordination::{Limiter, Rule};
use redis::AsyncCommands as _;
use testkit::RedisServer;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

use super::harness::{connect, key, options, residue, start};
use super::limiter_conforms::CLOCK;

const LOG_KEY: &str = "test:log";

fn rule(text: &str) -> Rule {
    Rule::parse("test", text).expect("a valid rule")
}

/// The script, changed to decide by a clock that is wrong by so many microseconds and to log its decisions by
/// the correct clock.
fn logged(text: &str, time: &str, wrong_by: i64) -> String {
    let head = format!(
        "local test_now = {time}
         local function test_time()
           local now = test_now[1] * 1000000 + test_now[2] + {wrong_by}
           return {{math.floor(now / 1000000), now % 1000000}}
         end\n"
    );
    let body = text.replace("redis.call('TIME')", "test_time()");
    format!(
        "{head}local function test_attempt()\n{body}\nend\nlocal decision = test_attempt()
         local now = string.format('%.0f', test_now[1] * 1000000 + test_now[2])
         local reset_after = string.format('%.0f', decision[3])
         redis.call('RPUSH', '{LOG_KEY}', now .. ' ' .. decision[1] .. ' ' .. reset_after)
         return decision"
    )
}

/// The first decision in the log of one key that differs from an exact window.
fn first_wrong_decision(log: &[String], rule: Rule) -> Option<String> {
    let limit = usize::from(rule.limit());
    let window = rule.window_micros();
    let mut admissions = VecDeque::new();
    for line in log {
        let numbers: Vec<u64> = line.split(' ').map(|number| number.parse().expect("a number")).collect();
        let [at, allowed, reset_after] = numbers[..] else { panic!("{line}") };
        while admissions.front().is_some_and(|admission| admission + window <= at) {
            admissions.pop_front();
        }
        if (allowed == 1) != (admissions.len() < limit) {
            return Some(format!("{line}: {admissions:?}"));
        }
        if allowed == 1 {
            admissions.push_back(at);
        }
        if admissions[0] + window != at + reset_after {
            return Some(format!("{line} has the wrong reset time: {admissions:?}"));
        }
    }
    None
}

/// Starts three instances, each with the script that `rewrite` returns for it.
async fn start_three(url: &str, rewrite: impl Fn(usize, &str) -> String) -> Vec<Redis> {
    let mut instances = Vec::new();
    for number in 0..3 {
        let scripts = Scripts::rewrite(|name, text| match name {
            "rate_limit" => rewrite(number, text),
            _ => text.to_owned(),
        });
        instances.push(start(options(url, &format!("i{number}")).with_scripts(scripts)).await);
    }
    instances
}

/// Sends attempts to three instances in turn, by a clock that steps forward by various amounts. Returns the
/// log of their decisions.
async fn run_round_robin(server: &RedisServer, database: usize, rule: Rule, skews: [i64; 3]) -> Vec<String> {
    let url = server.url(database);
    let mut connection = connect(&url).await;
    let time = format!(
        "(function() local now = redis.call('GET', '{CLOCK}')
           return {{string.sub(now, 1, -7), string.sub(now, -6)}} end)()"
    );
    let instances = start_three(&url, |number, text| {
        let text =
            text.replace("'PXAT', string.format('%.0f', math.ceil((now + window) / 1000) + 1)", "'KEEPTTL'");
        logged(&text, &time, skews[number])
    })
    .await;
    let mean = rule.window_micros() / u64::from(rule.limit());
    let mut at = ManualClock::START;
    for step in 0..3_000u64 {
        at +=
            [0, 1, mean / 7, mean - 1, mean, mean / 3, 17][usize::try_from(step * step % 7).expect("small")];
        connection.set::<_, _, ()>(CLOCK, at).await.expect("a clock");
        let instance = &instances[usize::try_from(step % 3).expect("small")];
        instance.uncached_limiter().attempt(rule, &key(1)).await.expect("a reply");
    }
    connection.lrange(LOG_KEY, 0, -1).await.expect("a log")
}

#[tokio::test]
async fn three_instances_share_one_window() {
    let server = RedisServer::start().await;
    for (database, text) in [(0, "5/10s"), (1, "3/30s")] {
        let log = run_round_robin(&server, database, rule(text), [0; 3]).await;
        assert_eq!((log.len(), first_wrong_decision(&log, rule(text))), (3_000, None));
    }
}

#[tokio::test]
async fn three_instances_with_their_own_clocks_do_not_share_one_window() {
    let server = RedisServer::start().await;
    let log = run_round_robin(&server, 0, rule("5/10s"), [0, 3_000_000, -2_000_000]).await;
    assert!(first_wrong_decision(&log, rule("5/10s")).is_some());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_instances_at_full_speed_share_one_window() {
    let server = RedisServer::start().await;
    let rule = rule("5/300ms");
    let url = server.url(0);
    let instances = start_three(&url, |_, text| logged(text, "redis.call('TIME')", 0)).await;
    let mut callers = JoinSet::new();
    for number in 0..6 {
        let limiter = instances[number % 3].uncached_limiter();
        callers.spawn(async move {
            let began = Instant::now();
            while began.elapsed() < Duration::from_secs(2) {
                limiter.attempt(rule, &key(1)).await.expect("a reply");
            }
        });
    }
    callers.join_all().await;
    let mut connection = connect(&url).await;
    let log: Vec<String> = connection.lrange(LOG_KEY, 0, -1).await.expect("a log");
    assert!(log.len() > 500, "{} attempts", log.len());
    assert_eq!(first_wrong_decision(&log, rule), None);
    connection.del::<_, ()>(LOG_KEY).await.expect("deleted");
    assert_eq!(residue(&url).await, 0);
}

#[tokio::test]
async fn a_key_expires_with_its_window() {
    let server = RedisServer::start().await;
    let redis = start(options(&server.url(0), "one")).await;
    redis.limiter().attempt(rule("5/10s"), &key(1)).await.expect("a reply");
    let mut connection = connect(&server.url(0)).await;
    let (left, bytes): (i64, usize) = redis::pipe()
        .cmd("PTTL")
        .arg("rl:{test:1}:test")
        .cmd("STRLEN")
        .arg("rl:{test:1}:test")
        .query_async(&mut connection)
        .await
        .expect("a reply");
    assert!((1..=10_002).contains(&left), "{left} ms");
    assert_eq!(bytes, 8, "one admission");
}

#[tokio::test]
async fn corrupt_values_are_treated_as_empty_and_counted() {
    let server = RedisServer::start().await;
    let redis = start(options(&server.url(0), "one")).await;
    let limiter = redis.uncached_limiter();
    let rule = rule("2/1m");
    let mut connection = connect(&server.url(0)).await;
    let values: [&[u8]; 6] =
        [b"seven b", b"hello", &[0xff; 16], &[0; 800], b"\0\x06\x66\0\0\0\0\0\0\0\0\0\0\0\0\x01", b"x"];
    for (number, value) in values.into_iter().enumerate() {
        let name = format!("rl:{{test:{number}}}:test");
        connection.set::<_, _, ()>(&name, value).await.expect("stored");
        let allowed = [
            limiter.attempt(rule, &key(number)).await,
            limiter.attempt(rule, &key(number)).await,
            limiter.attempt(rule, &key(number)).await,
        ]
        .map(|decision| decision.expect("no error").allowed);
        assert_eq!(allowed, [true, true, false], "{value:?}");
    }
    connection.lpush::<_, _, ()>("rl:{test:9}:test", "a list").await.expect("stored");
    assert!(limiter.attempt(rule, &key(9)).await.expect("no error").allowed);
    assert_eq!(redis.counts().corrupt_values, 5, "all but the values of a valid form");
}

#[tokio::test]
async fn a_limit_that_was_lowered_holds_at_once() {
    let server = RedisServer::start().await;
    let redis = start(options(&server.url(0), "one")).await;
    let limiter = redis.uncached_limiter();
    for _ in 0..7 {
        assert!(limiter.attempt(rule("7/1m"), &key(1)).await.expect("a reply").allowed);
    }
    assert!(!limiter.attempt(rule("5/1m"), &key(1)).await.expect("a reply").allowed);
    assert!(limiter.attempt(rule("8/1m"), &key(1)).await.expect("a reply").allowed);
}

#[tokio::test]
async fn denied_retries_do_not_reach_redis() {
    let server = RedisServer::start().await;
    let redis = start(options(&server.url(0), "one")).await;
    let limiter = redis.limiter();
    let mut last = Duration::MAX;
    for attempt in 0..1_001 {
        let decision = limiter.attempt(rule("1/1h"), &key(1)).await.expect("a reply");
        assert_eq!(decision.allowed, attempt == 0);
        assert!(decision.reset_after <= last, "the time to the reset never grows");
        last = decision.reset_after;
    }
    let counts = redis.counts();
    assert_eq!(
        (counts.attempts_allowed, counts.attempts_denied, counts.attempts_denied_locally),
        (1, 1, 999)
    );
}

#[tokio::test]
async fn waiting_for_retry_after_is_enough() {
    let server = RedisServer::start().await;
    let redis = start(options(&server.url(0), "one")).await;
    let limiter: Arc<dyn Limiter> = redis.limiter();
    let rule = rule("1/120ms");
    let mut refused = 0;
    for _ in 0..8 {
        assert!(limiter.attempt(rule, &key(1)).await.expect("a reply").allowed);
        // The first refusal comes from the server, the others from memory.
        let mut retry_after = None;
        for _ in 0..3 {
            retry_after = limiter.attempt(rule, &key(1)).await.expect("a reply").retry_after();
        }
        // After a pause of the machine the window may already have passed.
        let Some(retry_after) = retry_after else { continue };
        refused += 1;
        sleep(retry_after).await;
    }
    assert!(refused > 0);
}
