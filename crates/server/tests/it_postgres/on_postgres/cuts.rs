//! The wire to the database is cut where it hurts most: when COMMIT is on its way.
//!
//! `CUTS=1000` runs a longer campaign.

use testkit::{AtCommit, Cluster, Load, Setup, Wire, event_body, eventually, number_from_environment};

use crate::program;

/// Cuts where nobody asks for more.
const CUTS: u32 = 100;

/// What happens at the nth COMMIT that is cut. Holding takes its time until somebody loses patience, so it is
/// rare.
fn kind(cut: u32) -> AtCommit {
    match cut {
        cut if cut % 50 == 7 => AtCommit::HoldAnswer,
        cut if cut % 50 == 32 => AtCommit::Hold,
        cut if cut % 3 == 0 => AtCommit::CutBoth,
        cut if cut % 3 == 1 => AtCommit::DropAnswer,
        _ => AtCommit::LoseIt,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_commit_whose_answer_is_lost_is_answered_truly() {
    let cuts = number_from_environment("CUTS").unwrap_or(CUTS);
    let database = Cluster::durable().await.database().await;
    let wire = Wire::to(database.cluster().port()).await;
    let setup = Setup::new(program()).on_postgres_by(&database, database.url_by(wire.port()));
    let server = setup.start().await;
    let event = server.admin().create_event(&event_body(1_000_000)).await;
    let mut load = Load::start(&server, std::slice::from_ref(&event), 8);
    for cut in 0..cuts {
        let so_far = load.so_far();
        load.acknowledged(so_far + 1 + u64::from(cut % 7)).await;
        let faults = wire.counts().faults;
        wire.at_commit(kind(cut), 1);
        wire.fault_after(faults).await;
    }
    let so_far = load.so_far();
    load.acknowledged(so_far + 10).await;
    let journal = load.stop().await;
    assert_eq!(wire.counts().faults, u64::from(cuts));
    // Both outcomes have happened: what stood was answered as done, what did not as not done.
    assert!(journal.refusals("unavailable") > 0, "{:?}", journal.codes());
    let codes = journal.codes();
    assert!(codes.iter().all(|code| ["unavailable", "outcome_unknown"].contains(code)), "{codes:?}");
    report(cuts, &journal);
    // None twice, none lost, and no answer that was not true.
    journal.check(&mut server.admin()).await;
    server.expect_clean().await;
    let idle = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()
     AND state LIKE 'idle in transaction%'";
    eventually("no transaction is left open", async || (database.number(idle).await == 0).then_some(()))
        .await;
}

#[expect(clippy::print_stdout, reason = "the result of a campaign")]
fn report(cuts: u32, journal: &testkit::Journal) {
    println!(
        "{cuts} cuts at COMMIT, {} acknowledged bookings, {} answers that nothing was done, {} unknown",
        journal.len(),
        journal.refusals("unavailable"),
        journal.refusals("outcome_unknown"),
    );
}

/// A program that takes silence for "nothing was done" must be found out by the same journal.
#[cfg(feature = "sabotage")]
#[tokio::test(flavor = "multi_thread")]
async fn without_the_follow_up_answers_are_not_true() {
    let database = Cluster::shared().await.database().await;
    let wire = Wire::to(database.cluster().port()).await;
    let setup = Setup::new(program()).on_postgres_by(&database, database.url_by(wire.port()));
    let server = setup.environment("BOXOFFICE_SABOTAGE", "follow-up").start().await;
    let event = server.admin().create_event(&event_body(1_000_000)).await;
    let mut load = Load::start(&server, std::slice::from_ref(&event), 8);
    load.acknowledged(5).await;
    wire.at_commit(AtCommit::DropAnswer, 3);
    wire.fault_after(2).await;
    let so_far = load.so_far();
    load.acknowledged(so_far + 5).await;
    let journal = load.stop().await;
    let mut admin = server.admin();
    let mut checking = tokio::task::JoinSet::new();
    checking.spawn(async move { journal.check(&mut admin).await });
    let checked = checking.join_next().await.expect("it was begun");
    assert!(checked.is_err_and(|error| error.is_panic()), "bookings that nobody was told of are noticed");
}
