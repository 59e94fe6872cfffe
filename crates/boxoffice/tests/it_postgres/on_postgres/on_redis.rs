//! The sale of `instances`, by three instances that share a Redis as well, which works or fails. Only the
//! database decides, so none of this may affect the tickets that are sold.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use testkit::{PostgresServer, RedisFault, RedisProxy, RedisServer, Server, Setup, event_body, eventually};
use tokio::sync::Barrier;
use tokio::task::JoinSet;
use tokio::time::{Instant, interval, sleep_until};

use super::instances::{TICKETS, book, sale};
use crate::program;

/// Bookings in total; each instance gets a share of them.
const BOOKINGS: usize = 900;

/// Locks are effective, or have no effect, so that every instance acquires every lock.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Locks {
    Effective,
    Ineffective,
}

/// Starts three instances on a new database and one Redis.
async fn start_three(redis: &str, locks: Locks) -> Vec<Server> {
    let database = PostgresServer::shared().await.create_database().await;
    let mut servers = Vec::new();
    for _ in 0..3 {
        let setup = Setup::new(program()).on_postgres(&database).argument("--redis").argument(redis);
        let setup = match locks {
            Locks::Effective => setup,
            Locks::Ineffective => setup.environment("BOXOFFICE_SABOTAGE", "locks"),
        };
        servers.push(setup.start().await);
    }
    servers
}

/// Runs the sale. Locks must have been acquired in it exactly where they have an effect.
async fn run_sale(servers: &[Server], locks: Locks, meanwhile: impl AsyncFnOnce(&AtomicUsize)) {
    sale(servers, meanwhile).await;
    let mut taken = 0;
    for server in servers {
        taken += redis_counter(server, "locks_acquired_free").await
            + redis_counter(server, "locks_acquired_queued").await;
    }
    assert_eq!(taken > 0, locks == Locks::Effective, "{taken} locks");
}

/// The value of one of an instance's Redis counters.
async fn redis_counter(server: &Server, kind: &str) -> u64 {
    server.metric(&format!("boxoffice_redis_{kind}_total")).await
}

/// Waits until this share of the tickets is sold, in fifths.
async fn wait_until_sold(sold: &AtomicUsize, fifths: usize) {
    let enough = || (sold.load(Ordering::SeqCst) >= TICKETS as usize * fifths / 5).then_some(());
    eventually("this share is sold", async || enough()).await;
}

/// Waits until every instance has noticed that Redis is down.
async fn wait_until_redis_is_down(servers: &[Server]) {
    for server in servers {
        eventually("the outage of Redis is noticed", async || {
            (redis_counter(server, "breaker_openings").await > 0).then_some(())
        })
        .await;
    }
}

/// Waits until every instance uses Redis again.
async fn wait_until_redis_is_used(servers: &[Server]) {
    for server in servers {
        eventually("Redis is used", async || (server.metric("boxoffice_redis_up").await == 1).then_some(()))
            .await;
        let event = server.admin().create_event(&event_body(9)).await;
        let before = redis_counter(server, "attempts_allowed").await;
        eventually("Redis decides about limits", async || {
            server.service().book_for("late", &event, 1).await.expect(201);
            (redis_counter(server, "attempts_allowed").await > before).then_some(())
        })
        .await;
    }
}

/// Few clients per instance, so that the lease changes hands often; all connect before the first request.
#[tokio::test(flavor = "multi_thread")]
async fn instances_take_turns_at_a_hot_event() {
    let redis = RedisServer::start().await;
    let servers = start_three(&redis.url(0), Locks::Effective).await;
    let event = servers[0].admin().create_event(&event_body(1_000_000)).await;
    let (all, booked) = (Arc::new(Barrier::new(24)), Arc::new(AtomicUsize::new(0)));
    let mut clients = JoinSet::new();
    for number in 0..24 {
        let mut client = servers[number % 3].service();
        let (event, all, booked) = (event.clone(), all.clone(), booked.clone());
        clients.spawn(async move {
            client.connect().await.expect("a connection");
            all.wait().await;
            let mut own = 0;
            while booked.fetch_add(1, Ordering::SeqCst) < BOOKINGS {
                let (status, booking) = book(&mut client, &format!("buyer-{number}-{own}"), &event).await;
                assert_eq!(status, 201, "{booking:#}");
                own += 1;
            }
            (number, own)
        });
    }
    let mut shares = [0; 3];
    for (number, own) in clients.join_all().await {
        shares[number % 3] += own;
    }
    assert!(shares.iter().all(|share| *share >= BOOKINGS / 10), "every instance gets a share: {shares:?}");
    for server in &servers {
        assert!(redis_counter(server, "handovers").await > 0, "leases are handed over");
        assert!(redis_counter(server, "locks_acquired_queued").await > 0, "locks are waited for");
    }
    // Idle desks hold no lease.
    eventually("every lease is released", async || (redis.command(&["DBSIZE"]).await == "0").then_some(()))
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn repeated_redis_flushes_cause_no_double_sale() {
    tokio::join!(sale_with_flushes(Locks::Effective), sale_with_flushes(Locks::Ineffective));
}

async fn sale_with_flushes(locks: Locks) {
    let redis = RedisServer::start().await;
    let servers = start_three(&redis.url(0), locks).await;
    let flush = async |sold: &AtomicUsize| {
        let (mut every, mut hit) = (interval(Duration::from_millis(150)), 0);
        while sold.load(Ordering::SeqCst) < TICKETS as usize {
            every.tick().await;
            hit += u32::from(redis.command(&["DBSIZE"]).await != "0");
            redis.command(&["FLUSHALL"]).await;
        }
        assert!(hit > 0, "Redis had keys to flush");
    };
    run_sale(&servers, locks, flush).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_paused_redis_does_not_stop_sales() {
    tokio::join!(sale_with_pause(Locks::Effective), sale_with_pause(Locks::Ineffective));
}

async fn sale_with_pause(locks: Locks) {
    let redis = RedisServer::start().await;
    let servers = start_three(&redis.url(0), locks).await;
    let stop = async |sold: &AtomicUsize| {
        wait_until_sold(sold, 1).await;
        let until = Instant::now() + Duration::from_secs(4);
        redis.pause();
        wait_until_redis_is_down(&servers).await;
        wait_until_sold(sold, 4).await;
        sleep_until(until).await;
        redis.resume();
    };
    run_sale(&servers, locks, stop).await;
    wait_until_redis_is_used(&servers).await;
    for server in &servers {
        let logged =
            async |text: &'static str| server.log().find(|line| line.contains(text).then_some(())).await;
        assert!(
            logged("Redis unavailable").await.is_some() && logged("Redis available again").await.is_some()
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_redis_restarted_empty_does_not_stop_sales() {
    tokio::join!(sale_with_kill(Locks::Effective), sale_with_kill(Locks::Ineffective));
}

async fn sale_with_kill(locks: Locks) {
    let mut redis = RedisServer::start().await;
    let servers = start_three(&redis.url(0), locks).await;
    let kill = async |sold: &AtomicUsize| {
        wait_until_sold(sold, 1).await;
        redis.kill9();
        wait_until_redis_is_down(&servers).await;
        wait_until_sold(sold, 2).await;
        redis.restart().await;
    };
    run_sale(&servers, locks, kill).await;
    wait_until_redis_is_used(&servers).await;
}

/// A connection that stalls, or one that is closed.
async fn sale_with_fault(fault: RedisFault, locks: Locks) {
    let redis = RedisServer::start().await;
    let proxy = RedisProxy::start(redis.port()).await;
    let servers = start_three(&proxy.url(0), locks).await;
    let fail = async |sold: &AtomicUsize| {
        wait_until_sold(sold, 1).await;
        proxy.set(fault);
        wait_until_redis_is_down(&servers).await;
        wait_until_sold(sold, 3).await;
        proxy.set(RedisFault::Healthy);
    };
    run_sale(&servers, locks, fail).await;
    wait_until_redis_is_used(&servers).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_silent_redis_does_not_stop_sales() {
    let fails = |locks| sale_with_fault(RedisFault::Stall, locks);
    tokio::join!(fails(Locks::Effective), fails(Locks::Ineffective));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_redis_that_refuses_connections_does_not_stop_sales() {
    let fails = |locks| sale_with_fault(RedisFault::Disconnect, locks);
    tokio::join!(fails(Locks::Effective), fails(Locks::Ineffective));
}

#[tokio::test(flavor = "multi_thread")]
async fn failover_to_a_lagging_redis_replica_causes_no_double_sale() {
    tokio::join!(sale_with_failover(Locks::Effective), sale_with_failover(Locks::Ineffective));
}

async fn sale_with_failover(locks: Locks) {
    let mut primary = RedisServer::start().await;
    let to_primary = RedisProxy::start(primary.port()).await;
    let replica = RedisServer::replica_of(to_primary.port()).await;
    let proxy = RedisProxy::start(primary.port()).await;
    let servers = start_three(&proxy.url(0), locks).await;
    // From here on no lease is replicated.
    to_primary.set(RedisFault::Stall);
    let fail_over = async |sold: &AtomicUsize| {
        wait_until_sold(sold, 1).await;
        primary.kill9();
        to_primary.set(RedisFault::Disconnect);
        replica.command(&["REPLICAOF", "NO", "ONE"]).await;
        proxy.retarget(replica.port());
        wait_until_redis_is_down(&servers).await;
    };
    run_sale(&servers, locks, fail_over).await;
    wait_until_redis_is_used(&servers).await;
    let stats = replica.command(&["INFO", "commandstats"]).await;
    assert!(stats.contains("cmdstat_evalsha"), "the new primary is used: {stats}");
}
