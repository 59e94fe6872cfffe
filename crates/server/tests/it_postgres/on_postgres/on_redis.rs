//! The same sale by three instances that also share a Redis, while that is there, and while it is not. The database
//! alone is believed, so nothing of this may show in what is sold. (Without Redis: `instances`.)

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use testkit::{PostgresServer, RedisFault, RedisProxy, RedisServer, Server, Setup, event_body, eventually};
use tokio::sync::Barrier;
use tokio::task::JoinSet;
use tokio::time::{Instant, interval, sleep_until};

use super::instances::{TICKETS, book, sale};
use crate::program;

/// Bookings of which each instance gets its share.
const BOOKINGS: usize = 900;

/// Whether locks keep anybody out. Without, every instance owns whatever it wants.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Locks {
    Kept,
    Gone,
}

/// Three instances on a fresh database and one Redis.
async fn three(redis: &str, locks: Locks) -> Vec<Server> {
    let database = PostgresServer::shared().await.create_database().await;
    let mut servers = Vec::new();
    for _ in 0..3 {
        let setup = Setup::new(program()).on_postgres(&database).argument("--redis").argument(redis);
        let setup = match locks {
            Locks::Kept => setup,
            Locks::Gone => setup.environment("BOXOFFICE_SABOTAGE", "locks"),
        };
        servers.push(setup.start().await);
    }
    servers
}

/// The sale, and whether Redis was asked for locks in it.
async fn sells(servers: &[Server], locks: Locks, meanwhile: impl AsyncFnOnce(&AtomicUsize)) {
    sale(servers, meanwhile).await;
    let mut taken = 0;
    for server in servers {
        taken +=
            happened(server, "locks_acquired_free").await + happened(server, "locks_acquired_queued").await;
    }
    assert_eq!(taken > 0, locks == Locks::Kept, "{taken} locks");
}

/// How often something has happened between an instance and its Redis.
async fn happened(server: &Server, kind: &str) -> u64 {
    server.metric(&format!("boxoffice_redis_{kind}_total")).await
}

/// Waits until this share of the tickets is sold, in fifths.
async fn fifths(sold: &AtomicUsize, fifths: usize) {
    let enough = || (sold.load(Ordering::SeqCst) >= TICKETS as usize * fifths / 5).then_some(());
    eventually("so much is sold", async || enough()).await;
}

/// Waits until every instance has noticed that Redis is away.
async fn missed(servers: &[Server]) {
    for server in servers {
        eventually("Redis is missed", async || {
            (happened(server, "breaker_openings").await > 0).then_some(())
        })
        .await;
    }
}

/// Waits until every instance uses Redis again.
async fn back(servers: &[Server]) {
    for server in servers {
        eventually("Redis is used", async || (server.metric("boxoffice_redis_up").await == 1).then_some(()))
            .await;
        let event = server.admin().create_event(&event_body(9)).await;
        let before = happened(server, "attempts_allowed").await;
        eventually("limits are asked about", async || {
            server.service().book_for("late", &event, 1).await.expect(201);
            (happened(server, "attempts_allowed").await > before).then_some(())
        })
        .await;
    }
}

/// Few clients of each, so that there are many turns; all are there before the first asks.
#[tokio::test(flavor = "multi_thread")]
async fn instances_take_turns_at_a_hot_event() {
    let redis = RedisServer::start().await;
    let servers = three(&redis.url(0), Locks::Kept).await;
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
    assert!(shares.iter().all(|share| *share >= BOOKINGS / 10), "none is left behind: {shares:?}");
    for server in &servers {
        assert!(happened(server, "handovers").await > 0, "leases are handed on");
        assert!(happened(server, "locks_acquired_queued").await > 0, "and waited for");
    }
    // Idle desks keep nothing.
    eventually("every lease is given up", async || (redis.command(&["DBSIZE"]).await == "0").then_some(()))
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn repeated_redis_flushes_cause_no_double_sale() {
    tokio::join!(flushed(Locks::Kept), flushed(Locks::Gone));
}

async fn flushed(locks: Locks) {
    let redis = RedisServer::start().await;
    let servers = three(&redis.url(0), locks).await;
    let flush = async |sold: &AtomicUsize| {
        let (mut every, mut hit) = (interval(Duration::from_millis(150)), 0);
        while sold.load(Ordering::SeqCst) < TICKETS as usize {
            every.tick().await;
            hit += u32::from(redis.command(&["DBSIZE"]).await != "0");
            redis.command(&["FLUSHALL"]).await;
        }
        assert!(hit > 0, "there was something to forget");
    };
    sells(&servers, locks, flush).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_paused_redis_does_not_stop_sales() {
    tokio::join!(stopped(Locks::Kept), stopped(Locks::Gone));
}

async fn stopped(locks: Locks) {
    let redis = RedisServer::start().await;
    let servers = three(&redis.url(0), locks).await;
    let stop = async |sold: &AtomicUsize| {
        fifths(sold, 1).await;
        let until = Instant::now() + Duration::from_secs(4);
        redis.pause();
        missed(&servers).await;
        fifths(sold, 4).await;
        sleep_until(until).await;
        redis.resume();
    };
    sells(&servers, locks, stop).await;
    back(&servers).await;
    for server in &servers {
        let said =
            async |text: &'static str| server.log().find(|line| line.contains(text).then_some(())).await;
        assert!(said("Redis is away").await.is_some() && said("Redis is back").await.is_some());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_redis_restarted_empty_does_not_stop_sales() {
    tokio::join!(killed(Locks::Kept), killed(Locks::Gone));
}

async fn killed(locks: Locks) {
    let mut redis = RedisServer::start().await;
    let servers = three(&redis.url(0), locks).await;
    let kill = async |sold: &AtomicUsize| {
        fifths(sold, 1).await;
        redis.kill9();
        missed(&servers).await;
        fifths(sold, 2).await;
        redis.restart().await;
    };
    sells(&servers, locks, kill).await;
    back(&servers).await;
}

/// A cable that is pulled out, and one that is cut.
async fn a_wire_that_fails(fault: RedisFault, locks: Locks) {
    let redis = RedisServer::start().await;
    let way = RedisProxy::start(redis.port()).await;
    let servers = three(&way.url(0), locks).await;
    let fail = async |sold: &AtomicUsize| {
        fifths(sold, 1).await;
        way.set(fault);
        missed(&servers).await;
        fifths(sold, 3).await;
        way.set(RedisFault::Healthy);
    };
    sells(&servers, locks, fail).await;
    back(&servers).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_silent_redis_does_not_stop_sales() {
    let fails = |locks| a_wire_that_fails(RedisFault::Stall, locks);
    tokio::join!(fails(Locks::Kept), fails(Locks::Gone));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_redis_that_refuses_connections_does_not_stop_sales() {
    let fails = |locks| a_wire_that_fails(RedisFault::Disconnect, locks);
    tokio::join!(fails(Locks::Kept), fails(Locks::Gone));
}

#[tokio::test(flavor = "multi_thread")]
async fn failover_to_a_lagging_redis_replica_causes_no_double_sale() {
    tokio::join!(failed_over(Locks::Kept), failed_over(Locks::Gone));
}

async fn failed_over(locks: Locks) {
    let mut primary = RedisServer::start().await;
    let to_primary = RedisProxy::start(primary.port()).await;
    let replica = RedisServer::replica_of(to_primary.port()).await;
    let way = RedisProxy::start(primary.port()).await;
    let servers = three(&way.url(0), locks).await;
    // From here on the replica hears nothing of leases.
    to_primary.set(RedisFault::Stall);
    let fail_over = async |sold: &AtomicUsize| {
        fifths(sold, 1).await;
        primary.kill9();
        to_primary.set(RedisFault::Disconnect);
        replica.command(&["REPLICAOF", "NO", "ONE"]).await;
        way.retarget(replica.port());
        missed(&servers).await;
    };
    sells(&servers, locks, fail_over).await;
    back(&servers).await;
    let stats = replica.command(&["INFO", "commandstats"]).await;
    assert!(stats.contains("cmdstat_evalsha"), "the new primary is asked: {stats}");
}
