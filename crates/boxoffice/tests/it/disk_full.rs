//! A full disk: clear errors, no data loss, and recovery without an operator once there is room again.

use testkit::{Exit, Load, Setup, SmallDisk, event_body, eventually};

use crate::program;

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_loses_nothing_and_recovers_automatically() {
    let disk = match SmallDisk::mount(8) {
        Ok(disk) => disk,
        Err(why) => {
            println!(
                "SKIPPED, NOT TESTED: no small disk can be mounted here (needs root, or user namespaces): \
                 {why}"
            );
            return;
        }
    };
    let setup =
        Setup::new(program().with_launcher(disk.launcher())).on_file(disk.folder().join("boxoffice.db"));
    let mut server = setup.start().await;
    let mut admin = server.admin();
    let event = admin.create_event(&event_body(1_000_000)).await;
    // A separate event, so that the journal has every booking of the load's event.
    let probe = admin.create_event(&event_body(1_000_000)).await;
    let mut acknowledged = testkit::Journal::default();
    let mut refusals = 0;
    // Twice: recovery must work more than once.
    for _ in 0..2 {
        disk.write_ballast(3 * 1024 * 1024);
        let load = Load::start(&server, std::slice::from_ref(&event), 6);
        let refused = eventually("the disk is full", async || {
            let response = admin.book_for("ada", &probe, 1).await;
            match response.status.as_u16() {
                201 => None,
                _ => Some(response),
            }
        })
        .await;
        refused.expect_problem(503, "unavailable");
        assert!(!refused.header("retry-after").is_empty(), "{refused:?}");
        // Reads continue.
        admin.get(&format!("/v1/events/{event}")).await.expect(200);
        let journal = load.stop().await;
        refusals += journal.refusals("unavailable");
        assert!(journal.codes().is_subset(&["unavailable"].into()), "{:?}", journal.codes());
        acknowledged.merge(journal);
        server.expect_clean().await;

        disk.remove_ballast();
        admin.book_for("ada", &probe, 1).await.expect(201);
        assert!(server.is_running());
    }
    println!("{} bookings acknowledged, {refusals} requests refused on a full disk", acknowledged.len());
    acknowledged.check(&mut admin).await;
    server.expect_clean().await;
    server.terminate();
    assert_eq!(server.wait_for_exit().await, Exit::Code(0));
    let server = server.restart().await;
    acknowledged.check(&mut server.admin()).await;
    server.expect_clean().await;
}
