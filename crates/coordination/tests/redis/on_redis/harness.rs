//! Options, connections and the concurrent execution of cases, for tests on a Redis server.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use coordination::Key;
use coordination::conformance::Case;
use coordination::redis::{Redis, RedisOptions};
use redis::AsyncConnectionConfig;
use redis::aio::MultiplexedConnection;
use testkit::{DEADLINE, RedisServer};
use tokio::runtime::Builder;
use tokio::time::{Instant, sleep, timeout};

/// A lease short enough for tests to wait for its expiry.
pub(super) const LEASE: Duration = Duration::from_secs(1);

/// Options with short leases and long timeouts, because replies may be slow on a busy machine. The instance's
/// name contains the database's number, because channels are shared by all databases of a server.
pub(super) fn options(url: &str, instance: &str) -> RedisOptions {
    let database = url.rsplit('/').next().expect("an address with a database");
    let mut options = RedisOptions::new(url, &format!("{instance}-{database}")).expect("valid options");
    (options.lease, options.claim) = (LEASE, LEASE / 4);
    (options.reply_timeout, options.connect_timeout) = (Duration::from_secs(5), Duration::from_secs(5));
    options
}

/// Options under which no lease expires during a test, even on a slow machine, so that residue stays visible.
pub(super) fn options_without_lease_expiry(url: &str, instance: &str) -> RedisOptions {
    let mut options = options(url, instance);
    (options.lease, options.claim) = (LEASE * 20, LEASE * 10);
    options
}

/// Starts an instance and waits for its connection.
pub(super) async fn start(options: RedisOptions) -> Redis {
    let redis = Redis::start(options);
    redis.wait_until_up().await;
    redis
}

/// Opens a connection for the test itself.
pub(super) async fn connect(url: &str) -> MultiplexedConnection {
    let client = redis::Client::open(url).expect("an address");
    let config = AsyncConnectionConfig::new().set_response_timeout(Some(DEADLINE));
    client.get_multiplexed_async_connection_with_config(&config).await.expect("a connection")
}

/// Number of keys left in a database after everything that only a lease keeps has expired.
pub(super) async fn residue(url: &str) -> usize {
    let mut connection = connect(url).await;
    let began = Instant::now();
    loop {
        let size = redis::cmd("DBSIZE").query_async(&mut connection).await.expect("a size");
        if size == 0 || began.elapsed() > LEASE * 5 {
            return size;
        }
        sleep(Duration::from_millis(5)).await;
    }
}

pub(super) fn key(number: usize) -> Key {
    Key::new("test", &number.to_string()).expect("a number is an id")
}

/// The cases of a suite with these names.
pub(super) fn cases_named<'a, R: ?Sized>(cases: &'a [Case<R>], names: &[&str]) -> Vec<&'a Case<R>> {
    let found: Vec<_> = cases.iter().filter(|case| names.contains(&case.name)).collect();
    assert_eq!(found.len(), names.len(), "a case has been renamed");
    found
}

/// A harness under construction.
pub(super) type HarnessFuture<R> = Pin<Box<dyn Future<Output = Box<R>>>>;

/// Runs the cases concurrently, each with its own harness on its own database. Returns the names of those
/// that fail.
pub(super) fn failed_cases<R: ?Sized>(
    server: &RedisServer,
    cases: Vec<&Case<R>>,
    harness: impl Fn(String) -> HarnessFuture<R> + Sync,
) -> Vec<&'static str> {
    let database = AtomicUsize::new(0);
    let fails = |case: &Case<R>| {
        let url = server.url(database.fetch_add(1, Ordering::Relaxed));
        let run = AssertUnwindSafe(|| {
            let runtime = Builder::new_current_thread().enable_all().build().expect("a runtime");
            runtime.block_on(async {
                let harness = harness(url).await;
                timeout(DEADLINE, case.run(&*harness)).await.expect("the case ends");
            });
        });
        catch_unwind(run).is_err().then_some(case.name)
    };
    let fails = &fails;
    std::thread::scope(|scope| {
        let running: Vec<_> = cases.into_iter().map(|case| scope.spawn(move || fails(case))).collect();
        running.into_iter().filter_map(|case| case.join().expect("caught")).collect()
    })
}
