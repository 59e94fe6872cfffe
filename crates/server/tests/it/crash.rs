//! Kill -9, in the middle of everything: what was acknowledged stands, and nothing else has happened.
//!
//! `KILLS=100` runs a longer campaign, on a file that was filled with bookings first.

use std::time::Duration;

use testkit::{Client, Exit, Journal, Load, Server, event_body, id_of, number_from_environment};
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::{program, server};

const CLIENTS: usize = 8;
/// Kills where nobody asks for more.
const KILLS: u32 = 10;

/// One life of a server: started, worked hard, killed. Returns it restarted.
async fn run_and_kill(mut server: Server, changes: u64, told: &mut Journal) -> (Server, Duration) {
    let mut admin = server.admin();
    // An event is created under load, too; capacity for all that could come.
    let events =
        [admin.create_event(&event_body(1_000_000)).await, admin.create_event(&event_body(50)).await];
    let mut load = Load::start(&server, &events, CLIENTS);
    load.wait_for_acknowledged(changes).await;
    server.kill9();
    let journal = load.wait_until_disconnected().await;
    // The file as the dead process left it, its log not yet taken over.
    server.program().expect_clean(server.database()).await;
    let began = Instant::now();
    let server = server.restart().await;
    let took = began.elapsed();
    journal.check(&mut server.admin()).await;
    told.merge(journal);
    (server, took)
}

async fn refuse_second_owner(server: &mut Server) {
    let mut second = server.setup().spawn();
    assert_eq!(second.wait_for_exit().await, Exit::Code(3), "{}", second.stderr.tail());
    assert!(second.stderr.tail().contains("owned by another running boxoffice"), "{}", second.stderr.tail());
    let url = format!("sqlite://{}", server.database().display());
    let migrate = server.program().run(["migrate", "--database", &url]).await;
    assert_eq!(migrate.exit, Exit::Code(3), "{migrate:?}");
    assert!(server.is_running());
}

#[expect(clippy::print_stdout, reason = "the result of a campaign")]
fn report(kills: u32, told: &Journal, starts: &[Duration]) {
    let slowest = starts.iter().max().copied().unwrap_or_default();
    println!(
        "{kills} kills, {} acknowledged bookings checked, refusals {:?}, slowest start {slowest:?}",
        told.len(),
        told.codes(),
    );
}

/// Kills a server again and again and checks all it ever said; how long its starts took.
async fn campaign(mut server: Server, kills: u32) -> Vec<Duration> {
    let mut told = Journal::default();
    let mut starts = Vec::new();
    for kill in 0..kills {
        // At another point each time: of the first commits, of a checkpoint, of anything in between.
        let changes = 1 + u64::from(kill) * 37 % 400;
        let took;
        (server, took) = run_and_kill(server, changes, &mut told).await;
        starts.push(took);
        refuse_second_owner(&mut server).await;
    }
    told.check(&mut server.admin()).await;
    server.expect_clean().await;
    server.terminate();
    assert_eq!(server.wait_for_exit().await, Exit::Code(0));
    report(kills, &told, &starts);
    starts
}

#[tokio::test(flavor = "multi_thread")]
async fn kill_9_loses_nothing_that_was_acknowledged() {
    campaign(server().await, number_from_environment("KILLS").unwrap_or(KILLS)).await;
}

/// A full house first; only in a campaign, because filling it takes its time.
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
        let answer = client.book_for(&format!("filler-{part}-{number}"), &event, 1).await;
        id_of(&answer.expect(201));
    }
}
