//! The server survives a restart of PostgreSQL even if its log cannot be written.

use testkit::{BadLog, Load, PostgresServer, Setup, event_body, eventually, expect_service_and_stop};

use crate::program;

#[tokio::test(flavor = "multi_thread")]
async fn d1_postgresql_outages_are_survived_with_a_broken_log() {
    for log in [BadLog::Broken, BadLog::Blocked] {
        let postgres = PostgresServer::with(&[]).await;
        let setup = Setup::new(program()).on_postgres(&postgres.create_database().await);
        let setup = setup.argument("--log").argument("debug").environment("BOXOFFICE_SWEEP_EVERY", "200ms");
        let server = setup.start_with_log(&log).await;
        let event = server.admin().create_event(&event_body(1_000_000)).await;
        let mut load = Load::start(&server, std::slice::from_ref(&event), 4);
        load.wait_for_acknowledged(20).await;
        let mut client = server.anonymous();
        postgres.kill9().await;
        eventually("the outage is noticed", async || {
            (client.get("/readyz").await.status == 503).then_some(())
        })
        .await;
        postgres.start().await;
        eventually("the server is ready again", async || {
            (client.get("/readyz").await.status == 200).then_some(())
        })
        .await;
        let acknowledged = load.acknowledged_count();
        load.wait_for_acknowledged(acknowledged + 20).await;
        let journal = load.stop().await;
        journal.check(&mut server.admin()).await;
        assert_eq!(server.metric("boxoffice_panics_total").await, 0);
        // The sweeper still runs.
        expect_service_and_stop(server).await;
    }
}
