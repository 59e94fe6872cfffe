//! Readers while a writer runs, and after it was killed.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use domain::BookingId;
use store::conformance::Harness;
use store::conformance::fixture::{Fixture, HOLD};
use store::{BookingList, Sqlite, Store};

use crate::conformance::{FileHarness, ManualClock, options};

/// Books, confirms, cancels and makes holds overdue until `stop` is set. Returns the number of rounds.
async fn keep_writing(harness: &FileHarness, stop: &AtomicBool) -> usize {
    let fixture = Fixture::new(harness);
    let mut events = Vec::new();
    for limit in [None, Some(1_000), Some(3)] {
        events.push(
            fixture
                .create(domain::NewEvent { max_tickets_per_user: limit, ..fixture.new_event(12) })
                .await
                .id,
        );
    }
    let mut batches = 0;
    while !stop.load(Ordering::SeqCst) {
        let event = events[batches % 3];
        let replies =
            fixture.execute(["a", "b", "c"].map(|name| fixture.book(event, name, 1)).to_vec()).await;
        let held: Vec<_> = replies
            .iter()
            .filter_map(|reply| match reply.answer() {
                Some(domain::Answer::Booking(booking)) => Some(booking.clone()),
                _ => None,
            })
            .collect();
        let mut next: Vec<_> =
            held.first().map(|booking| fixture.confirm(booking, "t")).into_iter().collect();
        next.extend(held.iter().take(2).map(|booking| fixture.cancel(booking)));
        fixture.execute(next).await;
        harness.advance(HOLD / 4).await;
        batches += 1;
    }
    batches
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_audit_during_writes_is_clean() {
    let harness = Arc::new(FileHarness::new());
    let stop = Arc::new(AtomicBool::new(false));
    let writer = {
        let (harness, stop) = (harness.clone(), stop.clone());
        tokio::task::JoinSet::from_iter([async move { keep_writing(&harness, &stop).await }])
    };
    let reader = Sqlite::open_reader(&harness.path).unwrap();
    let (mut seen, mut grown) = (0, 0);
    // Until the audits have seen the ledgers grow many times.
    while grown < 20 {
        for store in [&reader, &*harness.store] {
            let report = store.audit().await.unwrap();
            assert_eq!(report.violations, Vec::<String>::new());
            assert!(report.entries >= seen, "a later read saw fewer entries");
            grown += usize::from(report.entries > seen);
            seen = report.entries;
        }
    }
    stop.store(true, Ordering::SeqCst);
    assert!(writer.join_all().await[0] > 5);
}

/// Copies the file and its WAL, as they are on the disk when a process is killed.
fn copy_after_kill(harness: &FileHarness, name: &str) -> PathBuf {
    let path = harness.path.with_file_name(name);
    fs::copy(&harness.path, &path).unwrap();
    fs::copy(wal_path(&harness.path), wal_path(&path)).unwrap();
    path
}

/// The path of the WAL, which contains the commits that are not in the file yet.
fn wal_path(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push("-wal");
    name.into()
}

/// A killed process leaves its last commits only in the WAL; the next connection recovers them.
#[tokio::test]
async fn a_reader_recovers_the_wal_after_a_kill() {
    let harness = FileHarness::new();
    let fixture = Fixture::new(&harness);
    let event = fixture.create(fixture.new_event(100)).await.id;
    let last = fixture.hold(event, &[("a", 1); 50]).await.pop().unwrap();
    let alone = copy_after_kill(&harness, "alone.db");
    assert!(fs::metadata(wal_path(&alone)).unwrap().len() > 0, "nothing is left to recover");

    let reader = Sqlite::open_reader(&alone).unwrap();
    assert_eq!(reader.booking(last.id).await.unwrap(), Some((*last).clone()));
    let report = reader.audit().await.unwrap();
    assert_eq!((report.bookings, report.violations), (50, Vec::new()));
    // And a new owner can write while the reader is open.
    let owner = Sqlite::open(&alone, true, &options(&ManualClock::new())).unwrap();
    let order = fixture.book(event, "b", 1);
    let id = order.booking_id().unwrap();
    owner.execute(vec![order.into()]).await;
    assert!(reader.booking(id).await.unwrap().is_some());
}

/// A WAL that is truncated anywhere, as a kill may leave it, contains a prefix of the commits, each complete
/// or not at all.
#[tokio::test]
async fn a_truncated_wal_recovers_to_a_commit_boundary() {
    let harness = FileHarness::new();
    let fixture = Fixture::new(&harness);
    let event = fixture.create(fixture.new_event(1_000)).await.id;
    for _ in 0..20 {
        let held = fixture.hold(event, &[("a", 1), ("b", 2)]).await;
        fixture.execute(vec![fixture.confirm(&held[0], "t"), fixture.cancel(&held[0])]).await;
    }
    let whole = fs::metadata(wal_path(&harness.path)).unwrap().len();
    let mut counts = Vec::new();
    for part in 1..=24 {
        let path = copy_after_kill(&harness, &format!("cut-{part}.db"));
        let wal = fs::File::options().write(true).open(wal_path(&path)).unwrap();
        wal.set_len(whole * part / 24).unwrap();
        let Ok(reader) = Sqlite::open_reader(&path) else {
            // Truncated before the schema was complete.
            assert!(counts.is_empty());
            continue;
        };
        let report = reader.audit().await.unwrap();
        assert_eq!(report.violations, Vec::<String>::new());
        // A batch of two orders has two entries, one of a payment and a cancellation three: never one.
        let page = reader.ledger(event, 0, 1_000).await.unwrap();
        let whole_batches = (0..=20).any(|n| [1 + n * 5, 3 + n * 5].contains(&page.rows.len()));
        assert!(whole_batches || page.rows.is_empty(), "{} entries", page.rows.len());
        counts.push(report.entries);
    }
    assert!(counts.is_sorted() && counts.last() == Some(&101), "{counts:?}");
    assert!(counts.first() < counts.last());
}

/// A batch that was started runs to its end even if its caller drops the future.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_batch_completes_without_its_caller() {
    let harness = FileHarness::new();
    let fixture = Fixture::new(&harness);
    let event = fixture.create(fixture.new_event(100)).await.id;
    for _ in 0..10 {
        let commands: Vec<_> = (0..5).map(|_| store::Submission::from(fixture.book(event, "a", 1))).collect();
        let ids: Vec<BookingId> = commands.iter().filter_map(|each| each.command.booking_id()).collect();
        {
            let mut call = std::pin::pin!(fixture.store.execute(commands));
            let once = std::future::poll_fn(|context| {
                std::task::Poll::Ready(call.as_mut().poll(context).is_ready())
            });
            once.await;
        }
        // It runs without its caller: only reads are needed to observe it.
        loop {
            let all = BookingList::All { after: None };
            let rows = fixture.store.bookings(all, None, 100).await.unwrap().rows;
            match rows.iter().filter(|booking| ids.contains(&booking.id)).count() {
                0 => tokio::task::yield_now().await,
                count => {
                    assert_eq!(count, 5);
                    break;
                }
            }
        }
    }
    fixture.assert_audit_clean().await;
}
