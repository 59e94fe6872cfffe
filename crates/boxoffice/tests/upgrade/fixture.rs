//! Databases and streams that earlier versions of the program wrote, and their responses.
//!
//! `fixtures/COMMIT/{sqlite,postgres}` has the database, the store directory of the NATS server beside it,
//! and a manifest. A fixture is never changed; each version that is released adds one (`make
//! upgrade-fixtures`).

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use testkit::{Client, Exit, NatsServer, Program, Response, Server, eventually};

use crate::ledger_stream::streams;

/// Every fixture: one folder for each version.
pub(crate) const FOLDER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/upgrade/fixtures");

/// Counts and responses of the earlier version when the fixture was written.
#[derive(Debug, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Manifest {
    /// Number of entries in all ledgers.
    pub(crate) ledger_entries: u64,
    /// Number of those entries that are on the stream.
    pub(crate) published_entries: u64,
    /// Creation time of the stream, as JetStream reports it.
    pub(crate) stream_created: String,
    pub(crate) stats: Value,
    /// Events by names of their special properties.
    pub(crate) events: BTreeMap<String, Value>,
    /// Bookings of the special users, in every state.
    pub(crate) bookings: Vec<Value>,
    /// Refunds of the special users.
    pub(crate) refunds: Vec<Value>,
    /// Requests over HTTP whose responses were stored under an idempotency key.
    pub(crate) requests: Vec<Request>,
    /// A request over NATS whose reply was stored under its message id.
    pub(crate) nats_request: NatsRequest,
}

/// A `POST` and its response.
#[derive(Debug, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Request {
    /// `admin`, `service`, or a user.
    pub(crate) caller: String,
    pub(crate) path: String,
    pub(crate) idempotency_key: String,
    pub(crate) body: Value,
    pub(crate) status: u16,
    pub(crate) response: String,
}

/// A request over NATS and its reply.
#[derive(Debug, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct NatsRequest {
    pub(crate) subject: String,
    pub(crate) request: Value,
    pub(crate) reply: Value,
}

impl Request {
    /// Sends the request.
    pub(crate) async fn send(&self, server: &Server) -> Response {
        let mut client = caller(server, &self.caller);
        let headers = [("content-type", "application/json"), ("idempotency-key", &*self.idempotency_key)];
        client.request_with(hyper::Method::POST, &self.path, &headers, self.body.to_string()).await
    }
}

impl NatsRequest {
    /// Sends the request once an instance has subscribed, and returns the reply.
    pub(crate) async fn send(subject: &str, request: &Value, nats: &NatsServer) -> Value {
        let client = streams(nats).await.client();
        let reply = eventually("an instance replies", async || {
            client.request(subject.to_owned(), request.to_string().into()).await.ok()
        });
        serde_json::from_slice(&reply.await.payload).expect("JSON")
    }
}

/// A client with the role, or the user id, of this name.
fn caller(server: &Server, name: &str) -> Client {
    match name {
        "admin" => server.admin(),
        "service" => server.service(),
        user => server.user(user),
    }
}

/// The data that one earlier version wrote on one kind of database.
#[derive(Debug)]
pub(crate) struct Fixture {
    pub(crate) folder: PathBuf,
}

impl Fixture {
    /// The database: a file of SQLite, or a dump of PostgreSQL.
    pub(crate) fn database(&self) -> PathBuf {
        let name = if self.folder.ends_with("sqlite") { "boxoffice.db" } else { "dump.sql" };
        self.folder.join(name)
    }

    pub(crate) fn manifest_file(&self) -> PathBuf {
        self.folder.join("manifest.json")
    }

    /// Packs or unpacks (`how`) a store directory of NATS.
    pub(crate) async fn tar(&self, how: &[&str], store: &Path) {
        let mut tar = Command::new("tar");
        tar.args(how).arg("--file").arg(self.folder.join("stream.tar.gz")).arg("--directory").arg(store);
        tar.arg(".");
        let finished = Program::finish(tar).await;
        assert_eq!(finished.exit, Exit::Code(0), "{finished:?}");
    }
}
