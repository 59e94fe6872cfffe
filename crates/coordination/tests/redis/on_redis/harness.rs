//! A server, instances on it, and cases run side by side.

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

/// A lease that tests can wait for.
pub(super) const LEASE: Duration = Duration::from_secs(1);

/// Options in which only what is promised is short: an answer may be late on a busy machine.
/// The instance's name is made its own to the database, as channels belong to the whole server.
pub(super) fn options(url: &str, instance: &str) -> RedisOptions {
    let database = url.rsplit('/').next().expect("an address with a database");
    let mut options = RedisOptions::new(url, &format!("{instance}-{database}")).expect("valid options");
    (options.lease, options.claim) = (LEASE, LEASE / 4);
    (options.reply_timeout, options.connect_timeout) = (Duration::from_secs(5), Duration::from_secs(5));
    options
}

/// Options under which no lease runs out, whatever the machine does meanwhile: what is left behind then stays.
pub(super) fn calm(url: &str, instance: &str) -> RedisOptions {
    let mut options = options(url, instance);
    (options.lease, options.claim) = (LEASE * 20, LEASE * 10);
    options
}

/// An instance that is connected.
pub(super) async fn started(options: RedisOptions) -> Redis {
    let redis = Redis::start(options);
    redis.wait_until_up().await;
    redis
}

/// A connection of the test's own.
pub(super) async fn look(url: &str) -> MultiplexedConnection {
    let client = redis::Client::open(url).expect("an address");
    let patient = AsyncConnectionConfig::new().set_response_timeout(Some(DEADLINE));
    client.get_multiplexed_async_connection_with_config(&patient).await.expect("a connection")
}

/// Keys that are left in a database, once everything has gone that only a lease keeps.
pub(super) async fn residue(url: &str) -> usize {
    let (mut connection, began) = (look(url).await, Instant::now());
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
pub(super) fn named<'a, R: ?Sized>(cases: &'a [Case<R>], wanted: &[&str]) -> Vec<&'a Case<R>> {
    let found: Vec<_> = cases.iter().filter(|case| wanted.contains(&case.name)).collect();
    assert_eq!(found.len(), wanted.len(), "a case has another name now");
    found
}

/// A rig that is being made.
pub(super) type Making<R> = Pin<Box<dyn Future<Output = Box<R>>>>;

/// The names of the cases that fail, each run on a rig of its own, on a database of its own, side by side.
pub(super) fn failures<R: ?Sized>(
    server: &RedisServer,
    cases: Vec<&Case<R>>,
    rig: impl Fn(String) -> Making<R> + Sync,
) -> Vec<&'static str> {
    let database = AtomicUsize::new(0);
    let fails = |case: &Case<R>| {
        let url = server.url(database.fetch_add(1, Ordering::Relaxed));
        let run = AssertUnwindSafe(|| {
            let runtime = Builder::new_current_thread().enable_all().build().expect("a runtime");
            runtime.block_on(async {
                let rig = rig(url).await;
                timeout(DEADLINE, case.run(&*rig)).await.expect("an end");
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
