//! The relay: fills the stream from the ledger, every entry once and in order per event, whatever dies.
//!
//! One relay at a time, by a lock; where the lock fails, the stream itself is the guard. Each message names the
//! sequence of its event's last message, as the stream has said it, so that one that is sent late, or by a relay that
//! does not know the latest, is refused. After any refusal the stream is asked what is on it, and the relay goes on
//! from there. Where there are notes of how far it had got, they spare work and decide nothing.

mod filling;
mod port;
mod progress;

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use coordination::{Key, Lock, LockError, LockGuard, LockOptions};
use domain::{Clock, EventId, Ids};
use store::Store;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep};

use self::filling::Filling;
use self::progress::Progress;
use crate::Publish;
use crate::limit::{RELAY_GROWN_MAX, RELAY_SCAN_EVERY, RELAY_STANDBY, RELAY_TENURE_MAX};

pub use self::port::{Bell, Glance, Stored, Stream, Survey, Told, Trouble};

/// What the relay needs of the rest of the program.
#[derive(Clone)]
pub struct Ground {
    /// Where the ledgers are, and the notes of how far they were told.
    pub store: Arc<dyn Store>,
    /// Lets one relay at a time fill the stream.
    pub lock: Arc<dyn Lock>,
    /// Tells how old news are.
    pub clock: Arc<dyn Clock>,
    /// Keeps relays that beat each other apart.
    pub ids: Arc<dyn Ids>,
    /// The way to the stream.
    pub bell: Arc<dyn Bell>,
}

/// How the relay of this process is getting on.
#[derive(Clone, Debug, Default)]
pub struct Standing {
    /// Whether it is the one that fills the stream.
    pub fills: bool,
    /// Entries that are not on the stream yet, as far as is known to who fills it, or would if it could be reached;
    /// elsewhere 0.
    pub behind: u64,
    /// Between the latest entry that was put on the stream and that moment, in microseconds.
    pub lag_micros: u64,
    /// Entries put on the stream since the start.
    pub told: u64,
    /// For how many seconds entries have waited while none was published; 0 where none waits.
    pub waiting_seconds: u64,
    /// Why the stream cannot be filled, or is not.
    pub trouble: Option<String>,
}

/// The relay of this process.
#[derive(Default)]
pub struct Relay {
    standing: Mutex<Standing>,
    progress: Mutex<Progress>,
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
    pub fn standing(&self) -> Standing {
        let mut standing = self.standing.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let progress = self.progress();
        if let Some((unpublished, seconds)) = progress.waiting() {
            standing.waiting_seconds = seconds;
            if let Some(stall) = progress.stall() {
                standing.behind = standing.behind.max(unpublished);
                standing.trouble.get_or_insert(stall);
            }
        }
        standing
    }

    fn progress(&self) -> MutexGuard<'_, Progress> {
        self.progress.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// An entry was published.
    fn published(&self) {
        self.progress().published();
    }

    /// So many entries are not on the stream.
    fn sample(&self, unpublished: u64) {
        self.progress().sample(unpublished);
    }

    fn note(&self, change: impl FnOnce(&mut Standing)) {
        change(&mut self.standing.lock().unwrap_or_else(PoisonError::into_inner));
    }

    /// The ledgers that have grown since this was last asked.
    fn take_grown(&self) -> BTreeSet<EventId> {
        std::mem::take(&mut *self.grown.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Fills the stream whenever it is this relay's turn, for as long as it is let.
    pub async fn run<T>(&self, ground: &Ground) -> T {
        let mut counted = None;
        // A turn that a panic has ended says nothing of itself.
        self.note(|standing| standing.fills = false);
        loop {
            let tenure = tokio::select! {
                biased;
                never = self.pass_on(&*ground.bell) => never,
                tenure = self.lead(ground) => tenure,
            };
            let trouble = self.fill(ground, tenure).await;
            self.note(|standing| {
                standing.fills = false;
                standing.trouble = trouble.as_ref().and_then(Trouble::told);
            });
            if let Some(trouble) = &trouble {
                self.progress().ended(trouble.to_string());
            }
            let rest = async {
                self.count(&*ground.store, trouble.as_ref(), &mut counted).await;
                sleep(pause(trouble.as_ref(), ground.ids.random()[0])).await;
            };
            tokio::select! { biased; never = self.pass_on(&*ground.bell) => never, () = rest => () }
        }
    }

    /// One turn: from a look at the stream to whatever ends it; nothing where the turn itself has ended.
    async fn fill(&self, ground: &Ground, tenure: Option<LockGuard>) -> Option<Trouble> {
        let turn = async {
            match Filling::begin(self, ground).await {
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
        let trouble = tokio::select! { biased; trouble = turn => trouble, () = lost => return None };
        match &trouble {
            Trouble::Changed(why) => {
                tracing::debug!(why, "the stream is filled elsewhere, or was changed");
            }
            Trouble::Away(why) => tracing::debug!(why, "the stream cannot be filled now"),
            Trouble::Operator(_) | Trouble::Store(_) => tracing::error!(%trouble, "the stream is not filled"),
        }
        Some(trouble)
    }

    /// Counts, now and then, what no note says to be on the stream, while this relay does not fill it. Where another
    /// instance fills it, that one shows the number.
    async fn count(&self, store: &dyn Store, trouble: Option<&Trouble>, counted: &mut Option<Instant>) {
        let Some(trouble) = trouble else { return self.rest() };
        if matches!(trouble, Trouble::Changed(_)) {
            self.note(|standing| standing.behind = 0);
        }
        if counted.is_some_and(|at| at.elapsed() < RELAY_SCAN_EVERY) {
            return;
        }
        *counted = Some(Instant::now());
        // A ledger that cannot be read tells nothing new.
        let Ok(unpublished) = store.unpublished_entry_count().await else { return };
        self.sample(unpublished);
        if !matches!(trouble, Trouble::Changed(_)) {
            self.note(|standing| standing.behind = unpublished);
        }
    }

    /// Another instance has the turn: what this one could not do is no trouble any more.
    fn rest(&self) {
        self.progress().rest();
        self.note(|standing| (standing.behind, standing.trouble) = (0, None));
    }

    /// Waits for its turn; goes on without the lock where that cannot be asked for.
    async fn lead(&self, ground: &Ground) -> Option<LockGuard> {
        let key = Key::new("relay", "ledger").ok()?;
        let options =
            LockOptions { wait: RELAY_STANDBY, max_lease: RELAY_TENURE_MAX, ..LockOptions::default() };
        loop {
            match ground.lock.acquire(&key, options).await {
                Ok(tenure) => return Some(tenure),
                Err(LockError::Unavailable(_)) => return None,
                Err(_) => {
                    self.rest();
                    sleep(Duration::from_millis(100)).await;
                }
            }
        }
    }

    /// Tells the instance that fills the stream what has grown here.
    async fn pass_on<T>(&self, bell: &dyn Bell) -> T {
        loop {
            self.wake.notified().await;
            if !bell.is_up() {
                continue;
            }
            let grown = self.take_grown();
            if !grown.is_empty() {
                bell.hint(grown).await;
            }
        }
    }
}

impl Trouble {
    /// What is said about it. That another instance fills the stream is none.
    fn told(&self) -> Option<String> {
        match self {
            Self::Away(_) | Self::Operator(_) | Self::Store(_) => Some(self.to_string()),
            Self::Changed(_) => None,
        }
    }
}

/// How long to leave the stream alone. Whoever was beaten to it stays away for longer than the other needs to
/// go on; by chance, so that two do not come back together.
fn pause(trouble: Option<&Trouble>, luck: u8) -> Duration {
    match trouble {
        None => Duration::ZERO,
        Some(Trouble::Away(_) | Trouble::Store(_)) => Duration::from_millis(250),
        Some(Trouble::Changed(_)) => {
            Duration::from_millis(100) + RELAY_STANDBY.mul_f64(f64::from(luck) / 256.0)
        }
        Some(Trouble::Operator(_)) => RELAY_STANDBY,
    }
}
