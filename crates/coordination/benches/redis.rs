//! The cost of the limiter and the lock on a Redis server, as ratios to plain commands in the same run:
//! `cargo bench -p coordination --bench redis`.
//!
//! Prints figures and asserts no thresholds. Everything runs on loopback, on the machine's own
//! `redis-server`.

#![expect(clippy::print_stdout, reason = "a benchmark prints its figures")]

use std::future::Future;
use std::time::Duration;

use coordination::redis::{Redis, RedisOptions};
use coordination::{Key, LockOptions, Rule};
use futures_util::future::join_all;
use redis::aio::MultiplexedConnection;
use testkit::RedisServer;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

/// Every comparison alternates between its two sides in so many rounds, so that a slow moment of the machine
/// affects both.
const ROUNDS: usize = 20;
/// Concurrent requests where throughput is compared.
const PIPELINE: usize = 16;
/// Options with a wait longer than any in this file.
const LONG_WAIT: LockOptions =
    LockOptions { wait: Duration::from_mins(5), max_lease: Duration::from_mins(5), queue_max: 20_000 };

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let server = RedisServer::start().await;
    let redis = instance(&server, "one").await;
    let ping = latencies(&server, &redis).await;
    throughput(&server, &redis).await;
    local_refusals(&redis).await;
    pairs(&server, &redis).await;
    for waiters in [10, 100, 1_000, 10_000] {
        hand_off(&server, waiters, &ping).await;
    }
    memory(&server, &redis).await;
}

async fn instance(server: &RedisServer, name: &str) -> Redis {
    let mut options = RedisOptions::new(&server.url(0), name).expect("valid options");
    // Thousands of callers on two cores are slow, which must not open the breaker.
    options.reply_timeout = Duration::from_secs(5);
    let redis = Redis::start(options);
    redis.wait_until_up().await;
    redis
}

async fn connection(server: &RedisServer) -> MultiplexedConnection {
    let client = redis::Client::open(server.url(0)).expect("an address");
    client.get_multiplexed_async_connection().await.expect("a connection")
}

fn key(kind: &str, number: usize) -> Key {
    Key::new(kind, &number.to_string()).expect("a number is an id")
}

fn rule(text: &str) -> Rule {
    Rule::parse("bench", text).expect("a rule")
}

/// Measured durations.
#[derive(Default)]
struct Times(Vec<Duration>);

impl Times {
    async fn of<T>(&mut self, work: impl Future<Output = T>) -> T {
        let began = Instant::now();
        let output = work.await;
        self.0.push(began.elapsed());
        output
    }

    /// The median, the 99th percentile and the longest, in microseconds.
    fn percentiles(&mut self) -> [f64; 3] {
        self.0.sort_unstable();
        let at = |part: usize| self.0[(self.0.len() * part / 100).min(self.0.len() - 1)];
        [at(50), at(99), at(100)].map(|time| time.as_secs_f64() * 1e6)
    }
}

/// One request at a time: PING, an attempt that is admitted, one that the server refuses.
async fn latencies(server: &RedisServer, redis: &Redis) -> [f64; 3] {
    let mut raw = connection(server).await;
    let limiter = redis.uncached_limiter();
    let rule = rule("5/10s");
    let mut pings = Times::default();
    let mut admitted = Times::default();
    let mut refused = Times::default();
    let full = key("full", 0);
    for round in 0..ROUNDS {
        for number in 0..500 {
            pings.of(redis::cmd("PING").query_async::<()>(&mut raw)).await.expect("PONG");
            let fresh = key("user", round * 500 + number);
            assert!(admitted.of(limiter.attempt(rule, &fresh)).await.expect("a reply").allowed);
            let decision = refused.of(limiter.attempt(rule, &full)).await.expect("a reply");
            // A permit returns every ten seconds; that attempt is not a refusal and is not counted.
            if decision.allowed {
                refused.0.pop();
            }
        }
    }
    let ping = pings.percentiles();
    println!("latency in us              p50     p99     max   p99 / PING's");
    for (name, times) in [("PING", pings), ("admitted", admitted), ("refused", refused)] {
        let [p50, p99, max] = { times }.percentiles();
        println!("{name:<22}{p50:8.1}{p99:8.1}{max:8.1}   {:.2}", p99 / ping[1]);
    }
    ping
}

/// Operations per second, [`PIPELINE`] of them concurrently.
async fn rate<T, F: Future<Output = T>>(count: usize, mut work: impl FnMut(usize) -> F) -> f64 {
    let began = Instant::now();
    for part in 0..count / PIPELINE {
        join_all((0..PIPELINE).map(|index| work(part * PIPELINE + index))).await;
    }
    per_second(count, began)
}

#[expect(clippy::cast_precision_loss, reason = "far below 2^52")]
fn per_second(count: usize, began: Instant) -> f64 {
    count as f64 / began.elapsed().as_secs_f64()
}

async fn throughput(server: &RedisServer, redis: &Redis) {
    let raw = connection(server).await;
    let limiter = redis.uncached_limiter();
    let rule = rule("5/10s");
    let (mut measured, mut baseline) = (Vec::new(), Vec::new());
    for round in 0..ROUNDS {
        let incr = |number: usize| {
            let mut raw = raw.clone();
            async move {
                let mut incr = redis::cmd("INCR");
                incr.arg(format!("n:{}", number % 1_000))
                    .query_async::<()>(&mut raw)
                    .await
                    .expect("a number");
            }
        };
        baseline.push(rate(4_000, incr).await);
        let attempt = |number: usize| {
            let limiter = limiter.clone();
            let key = key("many", round * 4_000 + number);
            async move { limiter.attempt(rule, &key).await.expect("a reply") }
        };
        measured.push(rate(4_000, attempt).await);
    }
    print_comparison("attempts, 16 at once", &measured, "INCR, 16 at once", &baseline);
}

fn print_comparison(name: &str, rates: &[f64], baseline_name: &str, baseline_rates: &[f64]) {
    let median = |values: &mut Vec<f64>| {
        values.sort_by(f64::total_cmp);
        values[values.len() / 2]
    };
    let mut ratios: Vec<f64> =
        rates.iter().zip(baseline_rates).map(|(rate, baseline)| rate / baseline).collect();
    let (rate, baseline) = (median(&mut rates.to_vec()), median(&mut baseline_rates.to_vec()));
    println!("{name}: {rate:.0}/s; {baseline_name}: {baseline:.0}/s; ratio {:.2}", median(&mut ratios));
}

/// Refusals from the deny cache.
async fn local_refusals(redis: &Redis) {
    const COUNT: usize = 1_000_000;
    let limiter = redis.limiter();
    let rule = rule("5/10m");
    let full = key("refused", 0);
    while limiter.attempt(rule, &full).await.expect("a reply").allowed {}
    let before = redis.counts();
    let began = Instant::now();
    for _ in 0..COUNT {
        assert!(!limiter.attempt(rule, &full).await.expect("a reply").allowed);
    }
    let each = 1e9 / per_second(COUNT, began);
    let after = redis.counts();
    println!(
        "refused locally: {each:.0} ns each; of {COUNT}, {} reached the server",
        COUNT as u64 - (after.attempts_denied_locally - before.attempts_denied_locally),
    );
}

/// Acquires and releases free keys.
async fn pairs(server: &RedisServer, redis: &Redis) {
    const COUNT: usize = 1_000;
    let mut raw = connection(server).await;
    let lock = redis.lock();
    let (mut measured, mut baseline) = (Vec::new(), Vec::new());
    let before = redis.counts().round_trips;
    for _ in 0..ROUNDS {
        let began = Instant::now();
        for _ in 0..COUNT {
            redis::cmd("INCR").arg("n").query_async::<()>(&mut raw).await.expect("a number");
        }
        baseline.push(per_second(COUNT, began));
        let began = Instant::now();
        for number in 0..COUNT {
            drop(lock.acquire(&key("free", number), LONG_WAIT).await.expect("free"));
        }
        measured.push(per_second(COUNT, began));
    }
    print_comparison("lock and unlock", &measured, "INCR, one at a time", &baseline);
    let trips = redis.counts().round_trips - before;
    println!("round trips for {} pairs: {trips}", ROUNDS * COUNT);
}

/// The time from a release to the next acquisition, by number of waiters, which alternate between two
/// instances.
async fn hand_off(server: &RedisServer, waiters: usize, ping: &[f64; 3]) {
    let instances = [instance(server, "left").await, instance(server, "right").await];
    let contended_key = key("wanted", waiters);
    let (sender, mut receiver) = mpsc::unbounded_channel();
    let mut callers = JoinSet::new();
    let first = instances[0].lock().acquire(&contended_key, LONG_WAIT).await.expect("free");
    for number in 0..waiters {
        let lock = instances[number % 2].lock();
        let contended_key = contended_key.clone();
        let sender = sender.clone();
        callers.spawn(async move {
            let guard = lock.acquire(&contended_key, LONG_WAIT).await.expect("served");
            let acquired_at = Instant::now();
            let _ = sender.send((acquired_at, Instant::now()));
            drop(guard);
        });
    }
    let mut connection = connection(server).await;
    while redis::cmd("LLEN")
        .arg(format!("lk:{{{contended_key}}}:q"))
        .query_async::<usize>(&mut connection)
        .await
        != Ok(waiters)
    {
        sleep(Duration::from_millis(1)).await;
    }
    let mut free = Instant::now();
    drop(first);
    let mut times = Times::default();
    for _ in 0..waiters {
        let (acquired_at, released_at) = receiver.recv().await.expect("every waiter is served");
        times.0.push(acquired_at - free);
        free = released_at;
    }
    let [p50, p99, max] = times.percentiles();
    println!(
        "hand-off, {waiters} waiting: p50 {p50:.0} us, p99 {p99:.0} us, max {max:.0} us; round trips (PING): \
         p50 {:.1}, p99 {:.1}",
        p50 / ping[0],
        p99 / ping[1],
    );
}

/// Memory per user with admissions in the window, and the time until all keys have expired.
async fn memory(server: &RedisServer, redis: &Redis) {
    const USERS: usize = 20_000;
    let limiter = redis.uncached_limiter();
    let rule = rule("5/5s");
    server.command(&["FLUSHALL"]).await;
    let before = used_memory(server).await;
    for admissions in 1..=5 {
        rate(USERS, |number| {
            let limiter = limiter.clone();
            let key = key("u", number);
            async move { limiter.attempt(rule, &key).await }
        })
        .await;
        if admissions == 1 || admissions == 5 {
            let keys: usize = server.command(&["DBSIZE"]).await.trim().parse().expect("a number");
            println!(
                "memory: {} bytes a key with {admissions} admissions, {keys} keys",
                (used_memory(server).await - before) / keys.max(1)
            );
        }
    }
    // Expired keys count until the server has removed them.
    let idle = Instant::now();
    while server.command(&["DBSIZE"]).await.trim() != "0" {
        sleep(Duration::from_millis(10)).await;
    }
    println!("keys: 0 after {:.1} s, with a window of {:?}", idle.elapsed().as_secs_f64(), rule.window());
}

async fn used_memory(server: &RedisServer) -> usize {
    let info = server.command(&["INFO", "memory"]).await;
    let memory = info.lines().find_map(|line| line.strip_prefix("used_memory:"));
    memory.and_then(|memory| memory.trim().parse().ok()).expect("INFO reports the memory")
}
