//! What limiter and lock cost on a Redis server, as ratios to what the server does at all in the same run:
//! `cargo bench -p coordination --bench redis`.
//!
//! Prints figures; judges nothing. Everything runs on loopback, on the machine's own `redis-server`.

#![expect(clippy::print_stdout, reason = "a benchmark speaks to whoever runs it")]

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

/// Parts into which every comparison is cut, in turn, so that a slow moment of the machine meets both sides.
const ROUNDS: usize = 20;
/// Requests on the way at once where throughput is compared.
const PIPELINE: usize = 16;
/// Longer than any wait here.
const PATIENT: LockOptions =
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
    // A crowd of thousands on two cores is no outage.
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

/// How long things took.
#[derive(Default)]
struct Times(Vec<Duration>);

impl Times {
    async fn of<T>(&mut self, work: impl Future<Output = T>) -> T {
        let began = Instant::now();
        let answer = work.await;
        self.0.push(began.elapsed());
        answer
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
    let (mut raw, limiter, rule) = (connection(server).await, redis.uncached_limiter(), rule("5/10s"));
    let (mut pings, mut admitted, mut refused) = (Times::default(), Times::default(), Times::default());
    let full = key("full", 0);
    for round in 0..ROUNDS {
        for number in 0..500 {
            pings.of(redis::cmd("PING").query_async::<()>(&mut raw)).await.expect("PONG");
            let fresh = key("user", round * 500 + number);
            assert!(admitted.of(limiter.attempt(rule, &fresh)).await.expect("an answer").allowed);
            let verdict = refused.of(limiter.attempt(rule, &full)).await.expect("an answer");
            // A permit comes back every ten seconds and is none of what is measured here.
            if verdict.allowed {
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

/// Per second, so many on their way at once.
async fn rate<T, F: Future<Output = T>>(count: usize, mut work: impl FnMut(usize) -> F) -> f64 {
    let began = Instant::now();
    for part in 0..count / PIPELINE {
        join_all((0..PIPELINE).map(|place| work(part * PIPELINE + place))).await;
    }
    per_second(count, began)
}

#[expect(clippy::cast_precision_loss, reason = "far below 2^52")]
fn per_second(count: usize, began: Instant) -> f64 {
    count as f64 / began.elapsed().as_secs_f64()
}

async fn throughput(server: &RedisServer, redis: &Redis) {
    let (raw, limiter, rule) = (connection(server).await, redis.uncached_limiter(), rule("5/10s"));
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
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
        theirs.push(rate(4_000, incr).await);
        let attempt = |number: usize| {
            let (limiter, key) = (limiter.clone(), key("many", round * 4_000 + number));
            async move { limiter.attempt(rule, &key).await.expect("an answer") }
        };
        ours.push(rate(4_000, attempt).await);
    }
    compared("attempts, 16 at once", &ours, "INCR, 16 at once", &theirs);
}

fn compared(ours: &str, our_rates: &[f64], theirs: &str, their_rates: &[f64]) {
    let median = |values: &mut Vec<f64>| {
        values.sort_by(f64::total_cmp);
        values[values.len() / 2]
    };
    let mut ratios: Vec<f64> = our_rates.iter().zip(their_rates).map(|(our, their)| our / their).collect();
    let (our, their) = (median(&mut our_rates.to_vec()), median(&mut their_rates.to_vec()));
    println!("{ours}: {our:.0}/s; {theirs}: {their:.0}/s; ratio {:.2}", median(&mut ratios));
}

/// Refusals that the process remembers.
async fn local_refusals(redis: &Redis) {
    const COUNT: usize = 1_000_000;
    let (limiter, rule, full) = (redis.limiter(), rule("5/10m"), key("refused", 0));
    while limiter.attempt(rule, &full).await.expect("an answer").allowed {}
    let (before, began) = (redis.counts(), Instant::now());
    for _ in 0..COUNT {
        assert!(!limiter.attempt(rule, &full).await.expect("an answer").allowed);
    }
    let each = 1e9 / per_second(COUNT, began);
    let after = redis.counts();
    println!(
        "refused locally: {each:.0} ns each; of {COUNT}, {} asked the server",
        COUNT as u64 - (after.attempts_denied_locally - before.attempts_denied_locally),
    );
}

/// A free key, taken and given back, over and over.
async fn pairs(server: &RedisServer, redis: &Redis) {
    const COUNT: usize = 1_000;
    let (mut raw, lock) = (connection(server).await, redis.lock());
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    let before = redis.counts().round_trips;
    for _ in 0..ROUNDS {
        let began = Instant::now();
        for _ in 0..COUNT {
            redis::cmd("INCR").arg("n").query_async::<()>(&mut raw).await.expect("a number");
        }
        theirs.push(per_second(COUNT, began));
        let began = Instant::now();
        for number in 0..COUNT {
            drop(lock.acquire(&key("free", number), PATIENT).await.expect("free"));
        }
        ours.push(per_second(COUNT, began));
    }
    compared("lock and unlock", &ours, "INCR, one at a time", &theirs);
    let trips = redis.counts().round_trips - before;
    println!("round trips for {} pairs: {trips}", ROUNDS * COUNT);
}

/// From the end of one tenure to the beginning of the next, by so many who wait, of two instances in turn.
async fn hand_off(server: &RedisServer, waiters: usize, ping: &[f64; 3]) {
    let instances = [instance(server, "left").await, instance(server, "right").await];
    let wanted = key("wanted", waiters);
    let ((ended, mut ends), mut crowd) = (mpsc::unbounded_channel(), JoinSet::new());
    let first = instances[0].lock().acquire(&wanted, PATIENT).await.expect("free");
    for number in 0..waiters {
        let (lock, wanted, ended) = (instances[number % 2].lock(), wanted.clone(), ended.clone());
        crowd.spawn(async move {
            let tenure = lock.acquire(&wanted, PATIENT).await.expect("a turn");
            let begins = Instant::now();
            let _ = ended.send((begins, Instant::now()));
            drop(tenure);
        });
    }
    let mut connection = connection(server).await;
    while redis::cmd("LLEN").arg(format!("lk:{{{wanted}}}:q")).query_async::<usize>(&mut connection).await
        != Ok(waiters)
    {
        sleep(Duration::from_millis(1)).await;
    }
    let mut free = Instant::now();
    drop(first);
    let mut times = Times::default();
    for _ in 0..waiters {
        let (begins, ends) = ends.recv().await.expect("everybody has a turn");
        times.0.push(begins - free);
        free = ends;
    }
    let [p50, p99, max] = times.percentiles();
    println!(
        "hand-off, {waiters} waiting: p50 {p50:.0} us, p99 {p99:.0} us, max {max:.0} us; round trips (PING): \
         p50 {:.1}, p99 {:.1}",
        p50 / ping[0],
        p99 / ping[1],
    );
}

/// What a user costs who was busy in the last window, and how soon nothing is left of everybody.
async fn memory(server: &RedisServer, redis: &Redis) {
    const USERS: usize = 20_000;
    let (limiter, rule) = (redis.uncached_limiter(), rule("5/5s"));
    server.command(&["FLUSHALL"]).await;
    let before = used(server).await;
    for admissions in 1..=5 {
        rate(USERS, |number| {
            let (limiter, key) = (limiter.clone(), key("u", number));
            async move { limiter.attempt(rule, &key).await }
        })
        .await;
        if admissions == 1 || admissions == 5 {
            let keys: usize = server.command(&["DBSIZE"]).await.trim().parse().expect("a number");
            println!(
                "memory: {} bytes a key with {admissions} admissions, {keys} keys",
                (used(server).await - before) / keys.max(1)
            );
        }
    }
    // Keys that are over count until the server has come round to them.
    let idle = Instant::now();
    while server.command(&["DBSIZE"]).await.trim() != "0" {
        sleep(Duration::from_millis(10)).await;
    }
    println!("keys: 0 after {:.1} s, with a window of {:?}", idle.elapsed().as_secs_f64(), rule.window());
}

async fn used(server: &RedisServer) -> usize {
    let info = server.command(&["INFO", "memory"]).await;
    let used = info.lines().find_map(|line| line.strip_prefix("used_memory:"));
    used.and_then(|used| used.trim().parse().ok()).expect("what is used")
}
