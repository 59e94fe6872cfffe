//! Database files are removed, renamed or replaced under a running server: no acknowledged change is lost.

use std::ffi::OsString;
use std::fs::{copy, remove_file, rename};
use std::path::{Path, PathBuf};

use testkit::{Client, Exit, event_body, eventually};

use crate::server;

fn with_suffix(database: &Path, suffix: &str) -> PathBuf {
    let mut name = OsString::from(database);
    name.push(suffix);
    name.into()
}

/// Fault of one of the database's files.
#[derive(Clone, Copy, Debug)]
enum Loss {
    Removed,
    Renamed,
    Replaced,
}

fn inject_loss(database: &Path, suffix: &str, loss: Loss) {
    let (file, elsewhere) = (with_suffix(database, suffix), with_suffix(database, ".elsewhere"));
    let result = match loss {
        Loss::Removed => remove_file(file),
        Loss::Renamed => rename(file, elsewhere),
        Loss::Replaced => copy(&file, &elsewhere).and_then(|_| rename(elsewhere, file)),
    };
    assert!(result.is_ok(), "{suffix} {loss:?}: {result:?}");
}

/// Waits until changes are refused. Then readiness must fail, too, and reads must work.
async fn expect_refused(admin: &mut Client, event: &str) {
    let refused = eventually("changes are refused", async || {
        let response = admin.book_for("ada", event, 1).await;
        (response.status.as_u16() != 201).then_some(response)
    })
    .await;
    refused.expect_problem(503, "unavailable");
    admin.get("/readyz").await.expect_problem(503, "unavailable");
    admin.get(&format!("/v1/events/{event}")).await.expect(200);
}

#[tokio::test(flavor = "multi_thread")]
async fn d2_changes_are_refused_while_a_database_file_is_missing() {
    for (suffix, loss) in [
        ("", Loss::Removed),
        ("", Loss::Renamed),
        ("", Loss::Replaced),
        ("-wal", Loss::Removed),
        ("-wal", Loss::Replaced),
        ("-shm", Loss::Removed),
    ] {
        let mut server = server().await;
        let mut admin = server.admin();
        let event = admin.create_event(&event_body(100)).await;
        admin.book_for("ada", &event, 1).await.expect(201);
        inject_loss(server.database(), suffix, loss);
        expect_refused(&mut admin, &event).await;
        let reason = if matches!(loss, Loss::Replaced) { "was replaced" } else { "was removed or renamed" };
        server.log().expect(reason).await;
        server.terminate();
        assert_eq!(server.wait_for_exit().await, Exit::Code(0), "{suffix} {loss:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn d2_sales_resume_after_a_renamed_file_is_restored() {
    let server = server().await;
    let mut admin = server.admin();
    let event = admin.create_event(&event_body(100)).await;
    let database = server.database();
    inject_loss(database, "", Loss::Renamed);
    expect_refused(&mut admin, &event).await;
    rename(with_suffix(database, ".elsewhere"), database).unwrap();
    admin.book_for("ada", &event, 1).await.expect(201);
    admin.get("/readyz").await.expect(200);
    server.expect_clean().await;
}
