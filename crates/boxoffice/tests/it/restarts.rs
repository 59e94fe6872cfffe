//! Background tasks that panic are restarted and counted, and are reported while they are down.

use testkit::{Load, Panics, Server, Setup, event_body, eventually};

use crate::program;

/// Starts a server whose tasks panic on demand.
async fn start(panics: &Panics, setup: Setup) -> Server {
    panics.inject_into(setup).environment("BOXOFFICE_SWEEP_EVERY", "200ms").start().await
}

#[tokio::test(flavor = "multi_thread")]
async fn d1_every_background_task_is_restarted() {
    let panics = Panics::default();
    let server = start(&panics, Setup::new(program())).await;
    let tasks = panics.expect_restarts(&server).await;
    let known =
        ["clock-monitor", "desk", "event-cancellation", "key-expiry", "listener", "sweeper", "watcher"];
    assert!(known.iter().all(|task| tasks.contains(*task)), "{tasks:?}");
    assert_eq!(server.metric("boxoffice_panics_total").await, 4 * tasks.len() as u64);
    let mut admin = server.admin();
    let event = admin.create_event(&event_body(10)).await;
    admin.book_for("ada", &event, 1).await.expect(201);
    testkit::expect_service_and_stop(server).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn d1_the_metrics_listener_is_restarted() {
    let panics = Panics::default();
    let setup = Setup::new(program()).argument("--metrics-listen").argument("127.0.0.1:0");
    let server = start(&panics, setup).await;
    panics.expect_restart(&mut server.anonymous(), "metrics-listener").await;
    testkit::expect_service_and_stop(server).await;
}

/// Senders of the batch in flight cannot know its outcome; all others wait for the restart.
#[tokio::test(flavor = "multi_thread")]
async fn d1_a_panic_of_the_desk_returns_correct_outcomes() {
    let panics = Panics::default();
    let server = start(&panics, Setup::new(program())).await;
    let event = server.admin().create_event(&event_body(1_000_000)).await;
    let mut load = Load::start(&server, std::slice::from_ref(&event), 16);
    for restarts in 1..=5 {
        let so_far = load.acknowledged_count();
        load.wait_for_acknowledged(so_far + 50).await;
        panics.inject("desk", 1);
        eventually("the desk is restarted", async || {
            let restarted = server.metric("boxoffice_task_restarts_total{task=\"desk\"}").await;
            (restarted == restarts).then_some(())
        })
        .await;
    }
    let so_far = load.acknowledged_count();
    load.wait_for_acknowledged(so_far + 50).await;
    let journal = load.stop().await;
    assert!(journal.codes().iter().all(|code| *code == "outcome_unknown"), "{:?}", journal.codes());
    journal.check(&mut server.admin()).await;
    server.expect_clean().await;
}

mod on_redis {
    use testkit::{Panics, RedisServer, Setup, eventually};

    use crate::program;

    #[tokio::test(flavor = "multi_thread")]
    async fn d1_every_background_task_with_redis_is_restarted() {
        let (panics, redis) = (Panics::default(), RedisServer::start().await);
        let setup = Setup::new(program()).argument("--redis").argument(redis.url(0));
        let server = super::start(&panics, setup).await;
        eventually("Redis is up", async || (server.metric("boxoffice_redis_up").await == 1).then_some(()))
            .await;
        let tasks = panics.expect_restarts(&server).await;
        let known = ["redis-connection", "redis-locks", "redis-monitor", "redis-subscriber", "desk"];
        assert!(known.iter().all(|task| tasks.contains(*task)), "{tasks:?}");
        testkit::expect_service_and_stop(server).await;
    }
}
