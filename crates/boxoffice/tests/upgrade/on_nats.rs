//! Streams that earlier versions filled: this version continues them, on the same server and on a newer one.

use testkit::{NatsServer, Program, Setup};

use crate::checks::wait_until_all_holds_expired;
use crate::fixture::{Fixture, NatsRequest};
use crate::ledger_stream::{expect_complete, length, streams};
use crate::{on_postgres, sqlite};

/// Starts the program with the stream that the earlier version wrote. Afterwards the stream must be the same
/// one, from its first message on, with every entry once and in order.
async fn check_stream(program: Program, fixture: &Fixture, setup: Setup) {
    let (store, manifest) = (fixture.stream().await, fixture.manifest());
    let nats = NatsServer::start_in(program, store.path().to_owned()).await;
    assert_eq!(length(&streams(&nats).await).await, manifest.published_entries);
    assert!(manifest.published_entries < manifest.ledger_entries, "there is something to publish");
    let server = setup.argument("--nats").argument(nats.url()).start().await;
    wait_until_all_holds_expired(&server).await;
    let entries = expect_complete(&nats, &mut server.admin()).await as u64;
    assert!(entries >= manifest.ledger_entries, "{entries}");

    let mut stream = streams(&nats).await.get_stream("BOXOFFICE").await.expect("the stream");
    let info = stream.info().await.expect("its state");
    assert_eq!(info.created.to_string(), manifest.stream_created, "the stream was not created again");
    assert_eq!(info.state.first_sequence, 1, "the stream was not purged");
    let NatsRequest { subject, request, reply } = &manifest.nats_request;
    assert_eq!(NatsRequest::send(subject, request, &nats).await, *reply, "the stored reply");
    server.expect_clean().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn streams_beside_sqlite_are_continued() {
    for fixture in Fixture::all("sqlite") {
        for version in NatsServer::every_version() {
            let (_folder, setup) = sqlite::copy(&fixture).await;
            check_stream(version, &fixture, setup).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn streams_beside_postgres_are_continued() {
    for fixture in Fixture::all("postgres") {
        for version in NatsServer::every_version() {
            let setup = on_postgres::copy(&fixture).await;
            check_stream(version, &fixture, setup).await;
        }
    }
}
