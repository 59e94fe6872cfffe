//! Panics in the background tasks of a running server, on demand. The server must be built for that.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::wait::eventually;
use crate::{Client, Server, Setup};

/// Panics of one task, so that it is down for more than a second in all.
const PANICS: u64 = 4;
/// The tasks without which nobody can buy.
const ESSENTIAL: [&str; 2] = ["desk", "listener"];

/// Which tasks are to panic, and how often.
#[derive(Clone, Debug)]
pub struct Panics {
    folder: Arc<TempDir>,
    demanded: Arc<Mutex<BTreeMap<String, u64>>>,
}

impl Default for Panics {
    fn default() -> Self {
        Self { folder: Arc::new(tempfile::tempdir().expect("a folder")), demanded: Arc::default() }
    }
}

impl Panics {
    /// A server that panics as these say.
    #[must_use]
    pub fn inject_into(&self, setup: Setup) -> Setup {
        setup.environment("BOXOFFICE_PANIC_FILE", self.file())
    }

    fn file(&self) -> PathBuf {
        self.folder.path().join("panics")
    }

    /// Has a task panic so many times more, again and again as soon as it is restarted.
    pub fn inject(&self, task: &str, times: u64) {
        let mut demanded = self.demanded.lock().unwrap_or_else(PoisonError::into_inner);
        *demanded.entry(task.to_owned()).or_default() += times;
        let mut text = String::new();
        for (task, times) in demanded.iter() {
            writeln!(text, "{task} {times}").expect("text takes all");
        }
        std::fs::write(self.file(), text).expect("a file");
    }

    /// Panics every background task that the server names, one after the other: each is shown while it is down,
    /// restarted, and counted. The names of all.
    pub async fn expect_restarts(&self, server: &Server) -> BTreeSet<String> {
        // Connected before, since the listener is one of the tasks.
        let mut client = server.anonymous();
        let names: BTreeSet<String> = tasks(&mut client).await.keys().cloned().collect();
        for name in &names {
            self.expect_restart(&mut client, name).await;
            let counted = server.metric(&format!("boxoffice_task_restarts_total{{task=\"{name}\"}}")).await;
            assert_eq!(counted, PANICS, "{name}");
            assert_eq!(server.metric(&format!("boxoffice_task_up{{task=\"{name}\"}}")).await, 1);
            let said = format!("a background task panicked; it is restarted task=\"{name}\"");
            assert!(server.log().all().iter().any(|line| line.contains(&said)), "{}", server.log().tail());
        }
        names
    }

    /// Panics one task: it is shown while it is down, and restarted.
    pub async fn expect_restart(&self, client: &mut Client, name: &str) {
        self.inject(name, PANICS);
        let answer = eventually(&format!("{name} is down"), async || {
            let answer = client.get("/readyz?verbose").await;
            (answer.json()["tasks"][name]["status"] == "down").then_some(answer)
        })
        .await;
        if ESSENTIAL.contains(&name) {
            answer.expect_problem(503, "unavailable");
        } else {
            assert_eq!(answer.expect(200)["status"], "degraded", "{name}: {answer:?}");
        }
        eventually(&format!("{name} is up again"), async || {
            let task = &tasks(client).await[name];
            (*task == json!({"status": "ok", "restarts": PANICS})).then_some(())
        })
        .await;
        eventually("the server is ready again", async || {
            let answer = client.get("/readyz").await;
            (answer.json()["status"] == "ready").then_some(())
        })
        .await;
    }
}

/// The background tasks as `/readyz` shows them.
async fn tasks(client: &mut Client) -> serde_json::Map<String, Value> {
    let shown = client.get("/readyz?verbose").await.json();
    shown["tasks"].as_object().unwrap_or_else(|| panic!("no tasks in {shown}")).clone()
}
