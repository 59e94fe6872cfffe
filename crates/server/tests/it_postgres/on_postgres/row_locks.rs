//! Somebody else's session that keeps a row locked holds up who needs the row, and nobody else.

use std::time::Duration;

use testkit::{Journal, Load, PostgresServer, Server, Setup, event_body, eventually};
use tokio::time::{Instant, sleep};

use crate::program;

const CLIENTS: usize = 4;
/// Bookings on another event that must succeed while the row is locked.
const BOOKINGS: u64 = 300;
/// How long the row is locked at least: longer than its event's buyers are kept waiting.
const LOCKED: Duration = Duration::from_secs(6);

/// Clients on every instance.
fn buyers(servers: &[Server], event: &String) -> Vec<Load> {
    servers.iter().map(|server| Load::start(server, std::slice::from_ref(event), CLIENTS)).collect()
}

fn so_far(loads: &[Load]) -> u64 {
    loads.iter().map(Load::acknowledged_count).sum()
}

async fn reach(loads: &[Load], count: u64) {
    eventually("the load makes progress", async || (so_far(loads) >= count).then_some(())).await;
}

/// How many changes a second were acknowledged in a while of at least so long.
async fn rate(loads: &[Load], changes: u64, at_least: Duration) -> f64 {
    let (began, before) = (Instant::now(), so_far(loads));
    sleep(at_least).await;
    reach(loads, before + changes).await;
    #[expect(clippy::cast_precision_loss, reason = "a rate, to be read")]
    let changes = (so_far(loads) - before) as f64;
    changes / began.elapsed().as_secs_f64()
}

async fn others_go_on(instances: usize) {
    let database = PostgresServer::shared().await.create_database().await;
    let mut servers = Vec::new();
    for _ in 0..instances {
        servers.push(Setup::new(program()).on_postgres(&database).start().await);
    }
    // By its capacity it is found in the database.
    let locked = servers[0].admin().create_event(&event_body(999_999)).await;
    let free = servers[0].admin().create_event(&event_body(1_000_000)).await;
    let (kept_out, served) = (buyers(&servers, &locked), buyers(&servers, &free));
    let before = rate(&served, BOOKINGS, Duration::from_secs(1)).await;
    let stranger = database.connect().await;
    stranger.batch_execute("BEGIN").await.expect("a transaction");
    let row = "SELECT id FROM events WHERE capacity = 999999 FOR UPDATE";
    stranger.query_one(row, &[]).await.expect("the row");
    let bought = so_far(&kept_out);
    let during = rate(&served, BOOKINGS, LOCKED).await;
    // What was on its way when the row was locked may have been answered after it.
    assert!(so_far(&kept_out) <= bought + (CLIENTS * instances) as u64, "the row is locked");
    stranger.batch_execute("ROLLBACK").await.expect("the end of it");
    let bought = so_far(&kept_out);
    reach(&kept_out, bought + BOOKINGS).await;
    let after = rate(&served, BOOKINGS, Duration::from_secs(1)).await;
    for (loads, is_locked) in [(kept_out, true), (served, false)] {
        let mut journal = Journal::default();
        for load in loads {
            journal.merge(load.stop().await);
        }
        assert!(journal.codes().is_subset(&["unavailable"].into()), "{:?}", journal.codes());
        let refused = journal.refusals("unavailable");
        if is_locked {
            assert!(refused > 0, "its buyers are answered in time");
        } else {
            // None, but where a busy machine keeps an instance from its own row for seconds.
            assert!(refused * 10 < journal.len() as u64, "{refused} refused beside {}", journal.len());
        }
        journal.check(&mut servers[0].admin()).await;
    }
    servers[0].expect_clean().await;
    report(instances, [before, during, after]);
}

#[expect(clippy::print_stdout, reason = "figures to be recorded")]
fn report(instances: usize, [before, during, after]: [f64; 3]) {
    println!(
        "{instances} instances: {before:.0} changes a second on the other event before, {during:.0} while a row is \
         locked, {after:.0} after"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn r4_a_locked_event_row_does_not_stop_other_sales() {
    others_go_on(1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn r4_a_locked_event_row_does_not_stop_other_sales_on_two_instances() {
    others_go_on(2).await;
}
