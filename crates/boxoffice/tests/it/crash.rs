//! Crash recovery after `kill -9` under load: everything that was acknowledged is stored, and nothing else.
//!
//! `KILLS=100` runs a longer campaign, on a file that was filled with bookings first.

use std::time::Duration;

use testkit::{Client, Exit, Journal, Load, Server, event_body, id_of, number_from_environment};
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::{program, server};

const CLIENTS: usize = 8;
/// Number of kills unless `KILLS` is set.
const KILLS: u32 = 10;

/// Runs a load on the server, kills and restarts it, and checks the database. Returns the restarted server
/// and the duration of its start.
async fn run_and_kill(mut server: Server, changes: u64, acknowledged: &mut Journal) -> (Server, Duration) {
    let mut admin = server.admin();
    // Each round also creates events; the load cannot sell out the first one.
    let events =
        [admin.create_event(&event_body(1_000_000)).await, admin.create_event(&event_body(50)).await];
    let mut load = Load::start(&server, &events, CLIENTS);
    load.wait_for_acknowledged(changes).await;
    server.kill9();
    let journal = load.wait_until_disconnected().await;
    // The file as the killed process left it: its WAL is not checkpointed yet.
    server.program().expect_clean(server.database()).await;
    let began = Instant::now();
    let server = server.restart().await;
    let took = began.elapsed();
    journal.check(&mut server.admin()).await;
    acknowledged.merge(journal);
    (server, took)
}

async fn expect_second_owner_refused(server: &mut Server) {
    let mut second = server.setup().spawn();
    assert_eq!(second.wait_for_exit().await, Exit::Code(3), "{}", second.stderr.tail());
    assert!(second.stderr.tail().contains("owned by another running boxoffice"), "{}", second.stderr.tail());
    let url = format!("sqlite://{}", server.database().display());
    let migrate = server.program().run(["migrate", "--database", &url]).await;
    assert_eq!(migrate.exit, Exit::Code(3), "{migrate:?}");
    assert!(server.is_running());
}

#[expect(clippy::print_stdout, reason = "the result of a campaign")]
fn report(kills: u32, acknowledged: &Journal, starts: &[Duration]) {
    let slowest = starts.iter().max().copied().unwrap_or_default();
    println!(
        "{kills} kills, {} acknowledged bookings checked, refusals {:?}, slowest start {slowest:?}",
        acknowledged.len(),
        acknowledged.codes(),
    );
}

/// Kills a server repeatedly, and checks everything that it acknowledged. Returns the duration of each
/// start.
async fn campaign(mut server: Server, kills: u32) -> Vec<Duration> {
    let mut acknowledged = Journal::default();
    let mut starts = Vec::new();
    for kill in 0..kills {
        // Each kill is at another point: during the first commits, during a checkpoint, or in between.
        let changes = 1 + u64::from(kill) * 37 % 400;
        let took;
        (server, took) = run_and_kill(server, changes, &mut acknowledged).await;
        starts.push(took);
        expect_second_owner_refused(&mut server).await;
    }
    acknowledged.check(&mut server.admin()).await;
    server.expect_clean().await;
    server.terminate();
    assert_eq!(server.wait_for_exit().await, Exit::Code(0));
    report(kills, &acknowledged, &starts);
    starts
}

#[tokio::test(flavor = "multi_thread")]
async fn kill_9_loses_nothing_that_was_acknowledged() {
    campaign(server().await, number_from_environment("KILLS").unwrap_or(KILLS)).await;
}

/// On a file with many bookings. Runs only in a campaign, because filling the file takes long.
#[tokio::test(flavor = "multi_thread")]
async fn kill_9_of_a_server_with_many_bookings() {
    const EVENTS: usize = 10;
    const BOOKINGS_PER_EVENT: usize = 10_000;
    if number_from_environment("KILLS").is_none() {
        println!("skipped: set KILLS to fill a file with {} bookings first", EVENTS * BOOKINGS_PER_EVENT);
        return;
    }
    let mut server = server().await;
    let mut fillers = JoinSet::new();
    for _ in 0..EVENTS {
        let event = server.admin().create_event(&event_body(1_000_000)).await;
        for part in 0..10 {
            fillers.spawn(fill(server.service(), event.clone(), part, BOOKINGS_PER_EVENT / 10));
        }
    }
    fillers.join_all().await;
    server.kill9();
    let report = program().expect_clean(server.database()).await;
    assert_eq!(report["bookings"], EVENTS * BOOKINGS_PER_EVENT);
    let starts = campaign(server.restart().await, 3).await;
    println!("{} bookings in the file: started in {starts:?}", report["bookings"]);
}

async fn fill(mut client: Client, event: String, part: usize, bookings: usize) {
    for number in 0..bookings {
        let response = client.book_for(&format!("filler-{part}-{number}"), &event, 1).await;
        id_of(&response.expect(201));
    }
}
