//! Another session that locks a row delays the requests that need the row, and no others.

use std::time::Duration;

use testkit::{Journal, Load, PostgresServer, Server, Setup, event_body, eventually};
use tokio::time::{Instant, sleep};

use crate::program;

const CLIENTS: usize = 4;
/// Bookings on another event that must succeed while the row is locked.
const BOOKINGS: u64 = 300;
/// Minimum duration of the row lock: longer than requests of the event's buyers may wait.
const LOCKED: Duration = Duration::from_secs(6);

/// Starts clients on every instance.
fn buyers(servers: &[Server], event: &String) -> Vec<Load> {
    servers.iter().map(|server| Load::start(server, std::slice::from_ref(event), CLIENTS)).collect()
}

fn total_acknowledged(loads: &[Load]) -> u64 {
    loads.iter().map(Load::acknowledged_count).sum()
}

async fn wait_for_total(loads: &[Load], count: u64) {
    eventually("the load makes progress", async || (total_acknowledged(loads) >= count).then_some(())).await;
}

/// Acknowledged changes per second, measured over at least this number of changes and this time.
async fn rate(loads: &[Load], changes: u64, at_least: Duration) -> f64 {
    let (began, before) = (Instant::now(), total_acknowledged(loads));
    sleep(at_least).await;
    wait_for_total(loads, before + changes).await;
    #[expect(clippy::cast_precision_loss, reason = "a rate, to be read")]
    let changes = (total_acknowledged(loads) - before) as f64;
    changes / began.elapsed().as_secs_f64()
}

async fn other_sales_continue(instances: usize) {
    let database = PostgresServer::shared().await.create_database().await;
    let mut servers = Vec::new();
    for _ in 0..instances {
        servers.push(Setup::new(program()).on_postgres(&database).start().await);
    }
    // The capacity identifies the event in the database.
    let locked = servers[0].admin().create_event(&event_body(999_999)).await;
    let free = servers[0].admin().create_event(&event_body(1_000_000)).await;
    let (blocked, served) = (buyers(&servers, &locked), buyers(&servers, &free));
    let before = rate(&served, BOOKINGS, Duration::from_secs(1)).await;
    let other_session = database.connect().await;
    other_session.batch_execute("BEGIN").await.expect("a transaction");
    let row = "SELECT id FROM events WHERE capacity = 999999 FOR UPDATE";
    other_session.query_one(row, &[]).await.expect("the row");
    let bought = total_acknowledged(&blocked);
    let during = rate(&served, BOOKINGS, LOCKED).await;
    // Requests in flight when the row was locked may have been acknowledged afterwards.
    assert!(total_acknowledged(&blocked) <= bought + (CLIENTS * instances) as u64, "the row is locked");
    other_session.batch_execute("ROLLBACK").await.expect("the end of the transaction");
    let bought = total_acknowledged(&blocked);
    wait_for_total(&blocked, bought + BOOKINGS).await;
    let after = rate(&served, BOOKINGS, Duration::from_secs(1)).await;
    for (loads, is_locked) in [(blocked, true), (served, false)] {
        let mut journal = Journal::default();
        for load in loads {
            journal.merge(load.stop().await);
        }
        assert!(journal.codes().is_subset(&["unavailable"].into()), "{:?}", journal.codes());
        let refused = journal.refusals("unavailable");
        if is_locked {
            assert!(refused > 0, "its buyers get a response in time");
        } else {
            // None, except on a busy machine where an instance waits for its own row for seconds.
            assert!(refused * 10 < journal.len() as u64, "{refused} refused beside {}", journal.len());
        }
        journal.check(&mut servers[0].admin()).await;
    }
    servers[0].expect_clean().await;
    report(instances, [before, during, after]);
}

#[expect(clippy::print_stdout, reason = "measurements to be recorded")]
fn report(instances: usize, [before, during, after]: [f64; 3]) {
    println!(
        "{instances} instances: {before:.0} changes a second on the other event before, {during:.0} while \
         a row is locked, {after:.0} after"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn r4_a_locked_event_row_does_not_stop_other_sales() {
    other_sales_continue(1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn r4_a_locked_event_row_does_not_stop_other_sales_on_two_instances() {
    other_sales_continue(2).await;
}
