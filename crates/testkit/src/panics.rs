//! Injected panics in the background tasks of a running server, which must be built to support them.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::wait::eventually;
use crate::{Client, Server, Setup};

/// Panics per task: enough for it to be down for more than a second in total.
const PANICS: u64 = 4;
/// The tasks without which the server cannot sell.
const ESSENTIAL: [&str; 2] = ["desk", "listener"];

/// The panics to inject, by task.
#[derive(Clone, Debug)]
pub struct Panics {
    folder: Arc<TempDir>,
    injected: Arc<Mutex<BTreeMap<String, u64>>>,
}

impl Default for Panics {
    fn default() -> Self {
        Self { folder: Arc::new(tempfile::tempdir().expect("a folder")), injected: Arc::default() }
    }
}

impl Panics {
    /// Configures a server to inject these panics.
    #[must_use]
    pub fn inject_into(&self, setup: Setup) -> Setup {
        setup.environment("BOXOFFICE_PANIC_FILE", self.file())
    }

    fn file(&self) -> PathBuf {
        self.folder.path().join("panics")
    }

    /// Makes a task panic so many more times, each time as soon as it is restarted.
    pub fn inject(&self, task: &str, times: u64) {
        let mut injected = self.injected.lock().unwrap_or_else(PoisonError::into_inner);
        *injected.entry(task.to_owned()).or_default() += times;
        let mut text = String::new();
        for (task, times) in injected.iter() {
            writeln!(text, "{task} {times}").expect("writing to a string succeeds");
        }
        std::fs::write(self.file(), text).expect("a file");
    }

    /// Makes every background task of the server panic, one after the other. Each must be reported while it
    /// is down, restarted, and counted. Returns the names of all tasks.
    pub async fn expect_restarts(&self, server: &Server) -> BTreeSet<String> {
        // Connect before the panics: the listener is one of the tasks.
        let mut client = server.anonymous();
        let names: BTreeSet<String> = tasks(&mut client).await.keys().cloned().collect();
        for name in &names {
            self.expect_restart(&mut client, name).await;
            let counted = server.metric(&format!("boxoffice_task_restarts_total{{task=\"{name}\"}}")).await;
            assert_eq!(counted, PANICS, "{name}");
            assert_eq!(server.metric(&format!("boxoffice_task_up{{task=\"{name}\"}}")).await, 1);
            let message = format!("a background task panicked; it is restarted task=\"{name}\"");
            assert!(server.log().all().iter().any(|line| line.contains(&message)), "{}", server.log().tail());
        }
        names
    }

    /// Makes one task panic. It must be reported while it is down, and restarted.
    pub async fn expect_restart(&self, client: &mut Client, name: &str) {
        self.inject(name, PANICS);
        let response = eventually(&format!("{name} is down"), async || {
            let response = client.get("/readyz?verbose").await;
            (response.json()["tasks"][name]["status"] == "down").then_some(response)
        })
        .await;
        if ESSENTIAL.contains(&name) {
            response.expect_problem(503, "unavailable");
        } else {
            assert_eq!(response.expect(200)["status"], "degraded", "{name}: {response:?}");
        }
        eventually(&format!("{name} is up again"), async || {
            let task = &tasks(client).await[name];
            (*task == json!({"status": "ok", "restarts": PANICS})).then_some(())
        })
        .await;
        eventually("the server is ready again", async || {
            let response = client.get("/readyz").await;
            (response.json()["status"] == "ready").then_some(())
        })
        .await;
    }
}

/// The background tasks as reported by `/readyz`.
async fn tasks(client: &mut Client) -> serde_json::Map<String, Value> {
    let body = client.get("/readyz?verbose").await.json();
    body["tasks"].as_object().unwrap_or_else(|| panic!("no tasks in {body}")).clone()
}
