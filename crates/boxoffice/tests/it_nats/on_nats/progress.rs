//! Entries that are not published are reported, with the reason, and only for as long as that lasts.

use std::time::Duration;

use testkit::{NatsServer, Server, Setup, eventually};

use super::relay::sell_tickets;
use crate::ledger_stream::{expect_complete, streams};
use crate::{program, setup};

/// C3: a stream that stores no message any more is an error, whatever its acks report. Here it takes every
/// message for a duplicate.
#[tokio::test(flavor = "multi_thread")]
async fn c3_entries_that_are_not_published_are_reported() {
    let nats = NatsServer::start().await;
    let server = setup(&nats).start().await;
    sell_tickets(&server, 1, 3).await;
    let entries = expect_complete(&nats, &mut server.admin()).await;
    let streams = streams(&nats).await;
    let mut config = streams.get_stream("BOXOFFICE").await.expect("a stream").cached_info().config.clone();
    config.duplicate_window = Duration::from_mins(10);
    streams.update_stream(config).await.expect("an edited stream");
    sell_tickets(&server, 1, 3).await;
    assert!(expect_complete(&nats, &mut server.admin()).await > entries);
    streams.get_stream("BOXOFFICE").await.expect("a stream").purge().await.expect("an empty stream");
    wait_until_degraded(&server, "none was published for").await;
    let logged = server.log().find(|line| line.contains("messages are not published").then_some(()));
    assert_eq!(logged.await, Some(()), "a line in the log");
    assert_eq!(server.metric("boxoffice_relay_error").await, 1);
    assert!(server.metric("boxoffice_relay_wait_seconds").await > 0);
    streams.delete_stream("BOXOFFICE").await.expect("the stream is deleted");
    expect_complete(&nats, &mut server.admin()).await;
    wait_until_ready(&server).await;
}

/// C3: a refused publish is reported with its reason, until publishing succeeds again.
#[tokio::test(flavor = "multi_thread")]
async fn c3_a_refused_publish_is_reported() {
    let nats = NatsServer::start().await;
    let server = setup(&nats).start().await;
    sell_tickets(&server, 1, 3).await;
    expect_complete(&nats, &mut server.admin()).await;
    let streams = streams(&nats).await;
    let stream = streams.get_stream("BOXOFFICE").await.expect("a stream");
    let mut config = stream.cached_info().config.clone();
    config.max_bytes = i64::try_from(stream.cached_info().state.bytes).expect("a small stream") + 100;
    streams.update_stream(config.clone()).await.expect("a full stream");
    sell_tickets(&server, 1, 3).await;
    wait_until_degraded(&server, "maximum bytes exceeded").await;
    config.max_bytes = -1;
    streams.update_stream(config).await.expect("an edited stream");
    expect_complete(&nats, &mut server.admin()).await;
    wait_until_ready(&server).await;

    let nats = NatsServer::start_with_config(
        r#"authorization: { users: [ { user: "ada", password: "test",
           permissions: { publish: { deny: ["boxoffice.ledger.*"] } } } ] }"#,
    )
    .await;
    let url = nats.url_with_login("nats", "ada:test");
    let server = Setup::new(program()).argument("--nats").argument(url).start().await;
    sell_tickets(&server, 1, 3).await;
    wait_until_degraded(&server, "Publish to \"boxoffice.ledger.").await;
}

/// Waits until readiness is degraded, with this reason.
async fn wait_until_degraded(server: &Server, reason: &str) {
    eventually("readiness is degraded", async || {
        let ready = server.anonymous().get("/readyz?verbose").await.json();
        let status = ready["nats"].to_string();
        (ready["status"] == "degraded" && status.contains(&reason.replace('"', "\\\""))).then_some(())
    })
    .await;
}

/// Waits until readiness reports no error any more.
pub(super) async fn wait_until_ready(server: &Server) {
    eventually("it is ready", async || {
        let ready = server.anonymous().get("/readyz?verbose").await.json();
        (ready["status"] == "ready" && ready["nats"]["relay"]["status"] == "ok").then_some(())
    })
    .await;
}
