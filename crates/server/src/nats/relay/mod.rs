//! The relay: fills the stream from the ledger, every entry once and in order per event, whatever dies.
//!
//! One relay at a time, by a lock; where the lock fails, the stream itself is the guard. Each message names
//! the sequence and the message that must be the last ones before it, so that one that is sent late, or by
//! somebody who does not know the latest, is refused with all that follow it. After any refusal the stream is
//! asked what is on it, and the relay goes on from there. Where there are notes of how far it had got, they
//! spare work and decide nothing.

mod filling;
mod message;
pub(crate) mod stream;

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use coordination::{Key, Lock, LockError, LockOptions, Tenure};
use domain::{Clock, EventId, Ids};
use engine::Publish;
use serde_json::{Value, json};
use store::{Fault, Store};
use tokio::sync::Notify;
use tokio::time::sleep;

use self::filling::Filling;
use super::Nats;
use super::subject::GROWN;
use crate::limit::{RELAY_GROWN_MAX, RELAY_STANDBY, RELAY_TENURE_MAX};

/// What the relay needs of the rest of the program.
#[derive(Clone)]
pub(crate) struct Ground {
    pub(crate) store: Arc<dyn Store>,
    pub(crate) lock: Arc<dyn Lock>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) ids: Arc<dyn Ids>,
}

/// Why the stream cannot be filled now.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Trouble {
    /// NATS does not answer, or not in time.
    #[error("NATS does not answer: {0}")]
    Away(String),
    /// Somebody else fills it, or the stream is not what it was: look again.
    #[error("the stream was changed by somebody else")]
    Changed,
    /// Somebody has to do something about it.
    #[error("{0}")]
    Operator(String),
    /// The database does not answer.
    #[error("the ledger cannot be read: {0}")]
    Store(#[from] Fault),
}

/// How the relay of this process is getting on.
#[derive(Clone, Debug, Default)]
pub(crate) struct Standing {
    /// Whether it is the one that fills the stream.
    pub(crate) fills: bool,
    /// Entries that are not on the stream yet, as far as is known.
    pub(crate) behind: u64,
    /// Between the latest entry that was put on the stream and that moment, in microseconds.
    pub(crate) lag_micros: u64,
    /// Entries put on the stream since the start.
    pub(crate) told: u64,
    /// Why the stream cannot be filled.
    pub(crate) trouble: Option<String>,
}

/// The relay of this process.
#[derive(Default)]
pub(crate) struct Relay {
    standing: Mutex<Standing>,
    grown: Mutex<BTreeSet<EventId>>,
    wake: Notify,
}

impl Publish for Relay {
    fn grown(&self, events: &[EventId]) {
        let mut grown = self.grown.lock().unwrap_or_else(PoisonError::into_inner);
        let room = RELAY_GROWN_MAX.saturating_sub(grown.len());
        // What finds no room is found in the ledger.
        grown.extend(events.iter().take(room));
        drop(grown);
        self.wake.notify_one();
    }
}

impl Relay {
    /// How it is getting on.
    pub(crate) fn standing(&self) -> Standing {
        self.standing.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn note(&self, change: impl FnOnce(&mut Standing)) {
        change(&mut self.standing.lock().unwrap_or_else(PoisonError::into_inner));
    }

    /// The ledgers that have grown since this was last asked.
    fn take_grown(&self) -> BTreeSet<EventId> {
        std::mem::take(&mut *self.grown.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// For `/readyz?verbose`.
    pub(crate) fn describe(&self) -> Value {
        let standing = self.standing();
        json!({
            "status": standing.trouble.as_deref().unwrap_or("ok"),
            "fills": standing.fills,
            "behind": standing.behind,
            "lagMillis": standing.lag_micros / 1_000,
        })
    }

    /// Fills the stream whenever it is this relay's turn, for as long as it is let.
    pub(crate) async fn run<T>(&self, nats: &Nats, ground: &Ground) -> T {
        loop {
            let tenure = tokio::select! {
                tenure = lead(ground) => tenure,
                never = self.pass_on(nats) => never,
            };
            let trouble = self.fill(nats, ground, tenure).await;
            self.note(|standing| {
                standing.fills = false;
                standing.trouble = trouble.as_ref().and_then(Trouble::told);
            });
            let pause = pause(trouble.as_ref(), ground.ids.random()[0]);
            tokio::select! {
                () = sleep(pause) => (),
                never = self.pass_on(nats) => never,
            }
        }
    }

    /// One turn: from a look at the stream to whatever ends it; nothing where the turn itself has ended.
    async fn fill(&self, nats: &Nats, ground: &Ground, tenure: Option<Tenure>) -> Option<Trouble> {
        let turn = async {
            match Filling::begin(self, nats, ground).await {
                Ok(mut filling) => filling.go_on().await,
                Err(trouble) => trouble,
            }
        };
        let lost = async {
            match &tenure {
                Some(tenure) => tenure.lost().await,
                None => std::future::pending().await,
            }
        };
        let trouble = tokio::select! { trouble = turn => trouble, () = lost => return None };
        match &trouble {
            Trouble::Changed => tracing::debug!("the stream is filled by another instance, or was changed"),
            Trouble::Away(why) => tracing::debug!(why, "the stream cannot be filled now"),
            Trouble::Operator(_) | Trouble::Store(_) => tracing::error!(%trouble, "the stream is not filled"),
        }
        Some(trouble)
    }

    /// Tells the instance that fills the stream what has grown here.
    async fn pass_on<T>(&self, nats: &Nats) -> T {
        loop {
            self.wake.notified().await;
            if !nats.is_up() {
                continue;
            }
            let ids: Vec<String> = self.take_grown().iter().map(ToString::to_string).collect();
            if !ids.is_empty() {
                // A hint: where it is lost, the ledger is looked at a little later.
                let _ = nats.client().publish(GROWN, ids.join(",").into()).await;
            }
        }
    }
}

/// Waits for its turn; goes on without the lock where that cannot be asked for.
async fn lead(ground: &Ground) -> Option<Tenure> {
    let key = Key::new("relay", "ledger").ok()?;
    let options = LockOptions { wait: RELAY_STANDBY, max_hold: RELAY_TENURE_MAX, ..LockOptions::default() };
    loop {
        match ground.lock.acquire(&key, options).await {
            Ok(tenure) => return Some(tenure),
            Err(LockError::Unavailable(_)) => return None,
            Err(_) => sleep(Duration::from_millis(100)).await,
        }
    }
}

impl Trouble {
    /// What is said about it. That another instance fills the stream is none.
    fn told(&self) -> Option<String> {
        match self {
            Self::Away(_) | Self::Operator(_) | Self::Store(_) => Some(self.to_string()),
            Self::Changed => None,
        }
    }
}

/// How long to leave the stream alone. Whoever was beaten to it stays away for longer than the other needs to
/// go on; by chance, so that two do not come back together.
fn pause(trouble: Option<&Trouble>, luck: u8) -> Duration {
    match trouble {
        None => Duration::ZERO,
        Some(Trouble::Away(_) | Trouble::Store(_)) => Duration::from_millis(250),
        Some(Trouble::Changed) => Duration::from_millis(100) + RELAY_STANDBY.mul_f64(f64::from(luck) / 256.0),
        Some(Trouble::Operator(_)) => RELAY_STANDBY,
    }
}
