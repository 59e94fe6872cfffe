//! Round trips and statements of a batch: two round trips and one statement per table, whatever its size.

use std::sync::Arc;
use std::time::Duration;

use domain::NewEvent;
use store::Postgres;
use store::conformance::StoreHarness;
use store::conformance::fixture::Fixture;
use testkit::{PostgresProxy, PostgresServer, ProxyCounts};

use crate::on_postgres::PostgresHarness;

/// The difference of two counts: round trips, statements, commits.
fn since(before: ProxyCounts, after: ProxyCounts) -> (u64, u64, u64) {
    (
        after.round_trips - before.round_trips,
        after.statements - before.statements,
        after.commits - before.commits,
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_takes_two_round_trips_and_a_statement_for_each_table() {
    let database = PostgresServer::shared().await.create_database().await;
    let proxy = PostgresProxy::start(database.server().port()).await;
    let url = database.url_at_port(proxy.port()).parse().expect("a URL");
    let harness = StoreHarness(Arc::new(Postgres::open(&url, true).await.expect("a store")));
    let fixture = Fixture::new(&harness);
    let event =
        fixture.create(NewEvent { max_tickets_per_user: Some(9), ..fixture.new_event(10_000) }).await.id;
    // Slow enough that messages that are sent together arrive together.
    proxy.set_delay(Duration::from_millis(50));
    for orders in [1, 100] {
        let batch = (0..orders).map(|n| fixture.book(event, &format!("user-{orders}-{n}"), 1)).collect();
        let before = proxy.counts();
        assert_eq!(fixture.outcome_codes(batch).await, vec!["ok"; orders]);
        // BEGIN, lock, clock, event, users; event, ticket types, users, bookings, ledger, COMMIT, status.
        assert_eq!(since(before, proxy.counts()), (2, 12, 1), "{orders} orders");
    }
    let small = fixture.create(fixture.new_event(1)).await.id;
    fixture.hold(small, &[("a", 1)]).await;
    // A batch of refusals only reads: it does not commit.
    let refused: Vec<_> = (0..100).map(|n| fixture.book(small, &format!("late-{n}"), 1)).collect();
    let before = proxy.counts();
    assert_eq!(fixture.outcome_codes(refused).await, vec!["sold_out"; 100]);
    let (round_trips, _, commits) = since(before, proxy.counts());
    // One loads, one reads overdue holds; the third is the ROLLBACK, which is not awaited.
    assert!(round_trips <= 3 && commits == 0, "{round_trips} round trips, {commits} commits");
}

/// The writer's plans use indexes, so the cost of a lookup by key does not depend on the number of rows.
#[tokio::test(flavor = "multi_thread")]
async fn no_statement_of_a_batch_scans_a_table() {
    let harness = PostgresHarness::new(1).await;
    let fixture = Fixture::new(&harness);
    let new = NewEvent { max_tickets_per_user: Some(9), ..fixture.new_event(500) };
    let event = fixture.create(new).await.id;
    let held = fixture.hold(event, &[("a", 1), ("b", 1)]).await;
    fixture.run_ok(fixture.confirm(&held[0], "t")).await;
    fixture.run_ok(fixture.cancel(&held[1])).await;
    // A session reports its statistics when it ends.
    drop(fixture);
    let PostgresHarness { database, store } = harness;
    drop(store);
    let scans = "SELECT coalesce(sum(seq_tup_read), 0)::bigint FROM pg_stat_user_tables
                 WHERE relname IN ('events', 'bookings', 'ledger', 'ticket_types', 'user_limits', 'refunds')";
    let flushed = "SELECT 1::bigint FROM pg_stat_user_tables WHERE relname = 'ledger' AND n_tup_ins >= 5";
    testkit::eventually("the statistics arrive", async || {
        database.connect().await.query_opt(flushed, &[]).await.ok().flatten()
    })
    .await;
    assert_eq!(database.query_number(scans).await, 0);
}
