//! A standard error that takes no lines, and what a server must do all the same.

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
    /// A pipe that nobody reads, although somebody could.
    Blocked,
}

impl BadLog {
    /// Standard error for one process, and what must live as long as it.
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

/// Sells, waits until an overdue hold is freed, and stops the server under load: all as with a healthy log. The
/// server sweeps more often than once a second.
pub async fn expect_service_and_stop(mut server: Server) {
    let mut admin = server.admin();
    let brief = with_fields(event_body(10), &json!({"holdSeconds": 1}));
    let brief = admin.create_event(&brief).await;
    admin.book_for("ada", &brief, 2).await.expect(201);
    eventually("the overdue hold is freed", async || {
        (admin.counts(&brief).await == (0, 0, 10)).then_some(())
    })
    .await;
    let event = admin.create_event(&event_body(1_000_000)).await;
    let mut load = Load::start(&server, std::slice::from_ref(&event), 8);
    load.wait_for_acknowledged(600).await;
    admin.get("/livez").await.expect(200);
    server.terminate();
    let journal = load.wait_until_disconnected().await;
    assert!(journal.codes().is_empty(), "a fault was answered: {:?}", journal.codes());
    assert_eq!(server.wait_for_exit().await, Exit::Code(0));
    server.expect_clean().await;
}
