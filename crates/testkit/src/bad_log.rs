//! A standard error that accepts no lines, and the behaviour of a server that has one.

use std::io::PipeReader;
use std::process::Stdio;

use serde_json::json;

use crate::process::Exit;
use crate::request_bodies::{event_body, with_fields};
use crate::wait::eventually;
use crate::{Load, Server};

/// A standard error that cannot be written to.
#[derive(Clone, Debug)]
pub enum BadLog {
    /// As a shell redirects it: `2>&-`, `2>/dev/full`.
    Redirected(String),
    /// A pipe without a reader.
    Broken,
    /// A pipe whose reader never reads.
    Blocked,
}

impl BadLog {
    /// Standard error for one process, and the reader that must live as long as the process.
    pub(crate) fn open(&self) -> (Stdio, Option<PipeReader>) {
        match self {
            Self::Redirected(_) => (Stdio::null(), None),
            Self::Broken => {
                let (reader, writer) = std::io::pipe().expect("a pipe");
                drop(reader);
                (writer.into(), None)
            }
            Self::Blocked => {
                let (reader, writer) = std::io::pipe().expect("a pipe");
                (writer.into(), Some(reader))
            }
        }
    }
}

/// Checks that the server sells tickets, frees an overdue hold, and stops under load, as with a working log.
/// The server must sweep more often than once a second.
pub async fn expect_service_and_stop(mut server: Server) {
    let mut admin = server.admin();
    let short_hold = with_fields(event_body(10), &json!({"holdSeconds": 1}));
    let short_hold = admin.create_event(&short_hold).await;
    admin.book_for("ada", &short_hold, 2).await.expect(201);
    eventually("the overdue hold is freed", async || {
        (admin.counts(&short_hold).await == (0, 0, 10)).then_some(())
    })
    .await;
    let event = admin.create_event(&event_body(1_000_000)).await;
    let mut load = Load::start(&server, std::slice::from_ref(&event), 8);
    load.wait_for_acknowledged(600).await;
    admin.get("/livez").await.expect(200);
    server.terminate();
    let journal = load.wait_until_disconnected().await;
    assert!(journal.codes().is_empty(), "a response was a fault: {:?}", journal.codes());
    assert_eq!(server.wait_for_exit().await, Exit::Code(0));
    server.expect_clean().await;
}
