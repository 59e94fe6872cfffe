//! Background tasks for NATS that panic are restarted, and a client whose task has ended is replaced.

use serde_json::json;
use testkit::{NatsServer, Panics, event_body, eventually, expect_service_and_stop};

use super::gateway::Gateway;
use crate::ledger_stream::expect_complete;
use crate::setup;

#[tokio::test(flavor = "multi_thread")]
async fn d1_every_background_task_with_nats_is_restarted() {
    let (panics, nats) = (Panics::default(), NatsServer::start().await);
    let setup = panics.inject_into(setup(&nats)).environment("BOXOFFICE_SWEEP_EVERY", "200ms");
    let server = setup.start().await;
    let gateway = Gateway::connect(&nats).await;
    let tasks = panics.expect_restarts(&server).await;
    let known = ["nats-connection", "nats-requests", "relay", "desk"];
    assert!(known.iter().all(|task| tasks.contains(*task)), "{tasks:?}");
    let mut admin = server.admin();
    let event = admin.create_event(&event_body(10)).await;
    let order = json!({"eventId": event, "userId": "user-1", "ticketQuantity": 1, "totalAmount": 45.0});
    assert_eq!(gateway.call("booking.create", order).await["success"], true);
    expect_complete(&nats, &mut admin).await;
    expect_service_and_stop(server).await;
}

/// A panic in the library's task ends that task permanently.
#[tokio::test(flavor = "multi_thread")]
async fn d1_a_terminated_nats_client_is_replaced() {
    let (panics, mut nats) = (Panics::default(), NatsServer::start().await);
    let setup = panics.inject_into(setup(&nats)).environment("BOXOFFICE_SWEEP_EVERY", "200ms");
    let server = setup.start().await;
    drop(Gateway::connect(&nats).await);
    // The panic occurs when the client reconnects.
    panics.inject("nats-library", 1);
    nats.kill9();
    server
        .log()
        .find(|line| line.contains("the NATS client has terminated").then_some(()))
        .await
        .expect("a line in the log");
    nats.restart().await;
    eventually("NATS is up", async || (server.metric("boxoffice_nats_up").await == 1).then_some(())).await;
    assert_eq!(server.metric("boxoffice_panics_total").await, 1);
    drop(Gateway::connect(&nats).await);
    let mut admin = server.admin();
    admin.create_event(&event_body(10)).await;
    expect_complete(&nats, &mut admin).await;
    expect_service_and_stop(server).await;
}
