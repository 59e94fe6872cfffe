//! The server survives restarts of NATS even if its log cannot be written.

use testkit::{BadLog, Load, NatsServer, event_body, eventually, expect_service_and_stop};

use super::gateway::Gateway;
use crate::ledger_stream::expect_complete;
use crate::setup;

#[tokio::test(flavor = "multi_thread")]
async fn d1_nats_outages_are_survived_with_a_broken_log() {
    for log in [BadLog::Broken, BadLog::Blocked] {
        let mut nats = NatsServer::start().await;
        let setup = setup(&nats).argument("--log").argument("debug");
        let server = setup.environment("BOXOFFICE_SWEEP_EVERY", "200ms").start_with_log(&log).await;
        let mut admin = server.admin();
        let event = admin.create_event(&event_body(1_000_000)).await;
        let mut load = Load::start(&server, std::slice::from_ref(&event), 4);
        let is_up = async |up| {
            eventually("the state of NATS is noticed", async || {
                (server.metric("boxoffice_nats_up").await == up).then_some(())
            })
            .await;
        };
        is_up(1).await;
        for _ in 0..2 {
            nats.kill9();
            is_up(0).await;
            let acknowledged = load.acknowledged_count();
            load.wait_for_acknowledged(acknowledged + 20).await;
            nats.restart().await;
            is_up(1).await;
        }
        let journal = load.stop().await;
        assert!(journal.codes().is_empty(), "{:?}", journal.codes());
        expect_complete(&nats, &mut admin).await;
        // Connecting waits until the service has subscribed.
        drop(Gateway::connect(&nats).await);
        assert_eq!(server.metric("boxoffice_panics_total").await, 0);
        expect_service_and_stop(server).await;
    }
}
