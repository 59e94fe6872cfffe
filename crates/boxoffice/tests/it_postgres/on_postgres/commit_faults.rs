//! The connection to the database fails at the worst moment: while COMMIT is in flight.
//!
//! `CUTS=1000` runs a longer campaign.

use testkit::{
    CommitFault, Load, PostgresProxy, PostgresServer, Setup, event_body, eventually, number_from_environment,
};

use crate::program;

/// Number of faults unless `CUTS` is set.
const CUTS: u32 = 100;

/// Fault at the nth COMMIT that fails. Holding lasts until a timeout, so it is rare.
fn fault_at(cut: u32) -> CommitFault {
    match cut {
        cut if cut % 50 == 7 => CommitFault::HoldReply,
        cut if cut % 50 == 32 => CommitFault::HoldCommit,
        cut if cut % 3 == 0 => CommitFault::CutBoth,
        cut if cut % 3 == 1 => CommitFault::DropReply,
        _ => CommitFault::LoseCommit,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn commits_with_a_lost_reply_are_resolved_correctly() {
    let cuts = number_from_environment("CUTS").unwrap_or(CUTS);
    let database = PostgresServer::durable().await.create_database().await;
    let proxy = PostgresProxy::start(database.server().port()).await;
    let setup = Setup::new(program()).on_postgres_at(&database, database.url_at_port(proxy.port()));
    let server = setup.start().await;
    let event = server.admin().create_event(&event_body(1_000_000)).await;
    let mut load = Load::start(&server, std::slice::from_ref(&event), 8);
    for cut in 0..cuts {
        let acknowledged = load.acknowledged_count();
        load.wait_for_acknowledged(acknowledged + 1 + u64::from(cut % 7)).await;
        let faults = proxy.counts().faults;
        proxy.set_commit_fault(fault_at(cut), 1);
        proxy.wait_for_fault_after(faults).await;
    }
    let acknowledged = load.acknowledged_count();
    load.wait_for_acknowledged(acknowledged + 10).await;
    let journal = load.stop().await;
    assert_eq!(proxy.counts().faults, u64::from(cuts));
    // Both outcomes have occurred: committed changes were reported as done, others as not done.
    assert!(journal.refusals("unavailable") > 0, "{:?}", journal.codes());
    let codes = journal.codes();
    assert!(codes.iter().all(|code| ["unavailable", "outcome_unknown"].contains(code)), "{codes:?}");
    report(cuts, &journal);
    // No booking twice, none lost, and no wrong response.
    journal.check(&mut server.admin()).await;
    server.expect_clean().await;
    let idle = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()
     AND state LIKE 'idle in transaction%'";
    eventually("no transaction is left open", async || {
        (database.query_number(idle).await == 0).then_some(())
    })
    .await;
}

#[expect(clippy::print_stdout, reason = "the result of a campaign")]
fn report(cuts: u32, journal: &testkit::Journal) {
    println!(
        "{cuts} cuts at COMMIT, {} acknowledged bookings, {} responses that nothing was done, {} unknown",
        journal.len(),
        journal.refusals("unavailable"),
        journal.refusals("outcome_unknown"),
    );
}

/// The same journal must detect a program that takes a missing reply for "nothing was done".
#[cfg(feature = "sabotage")]
#[tokio::test(flavor = "multi_thread")]
async fn removing_commit_followup_gives_wrong_responses() {
    let database = PostgresServer::shared().await.create_database().await;
    let proxy = PostgresProxy::start(database.server().port()).await;
    let setup = Setup::new(program()).on_postgres_at(&database, database.url_at_port(proxy.port()));
    let server = setup.environment("BOXOFFICE_SABOTAGE", "outcome-lookup").start().await;
    let event = server.admin().create_event(&event_body(1_000_000)).await;
    let mut load = Load::start(&server, std::slice::from_ref(&event), 8);
    load.wait_for_acknowledged(5).await;
    proxy.set_commit_fault(CommitFault::DropReply, 3);
    proxy.wait_for_fault_after(2).await;
    let acknowledged = load.acknowledged_count();
    load.wait_for_acknowledged(acknowledged + 5).await;
    let journal = load.stop().await;
    let mut admin = server.admin();
    let mut checking = tokio::task::JoinSet::new();
    checking.spawn(async move { journal.check(&mut admin).await });
    let checked = checking.join_next().await.expect("a task");
    assert!(checked.is_err_and(|error| error.is_panic()), "bookings that were not acknowledged are detected");
}
