//! The connection that wakes waiters: one channel of an instance, on which the server says what was granted.
//!
//! What it says is a hint. Whoever waits asks by itself, less often, so a message that is lost costs time.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures_util::StreamExt as _;
use tokio::sync::mpsc;
use tokio::time::sleep;

use super::connection::Link;
use super::entry::Grant;
use super::keys;
use crate::Key;

/// Pause before the next try to listen.
const PAUSE: Duration = Duration::from_millis(100);
/// How often this instance rings its own bell, to hear whether it still works.
const RING_EVERY: Duration = Duration::from_secs(1);

/// What was heard.
pub(super) enum Ring {
    /// Listening anew: whatever was said before is lost.
    Subscribed,
    /// The key is this caller's now.
    Granted { number: u64, key: Key, grant: Grant },
    /// So many wait for what this caller owns.
    Waiting { number: u64, waiting: u64 },
}

impl Ring {
    fn parse(text: &str) -> Option<Self> {
        let mut words = text.split(' ');
        let what = words.next()?;
        let number = words.next()?.parse().ok()?;
        match what {
            "waiting" => Some(Self::Waiting { number, waiting: words.next()?.parse().ok()? }),
            "grant" => {
                let mut next = || words.next()?.parse().ok();
                let grant = Grant { token: next()?, waiting: next()?, server_micros: next()? };
                Some(Self::Granted { number, key: keys::key_of_lock(words.next()?)?, grant })
            }
            _ => None,
        }
    }
}

/// Listens for as long as it is polled.
pub(super) async fn listen(link: Arc<Link>, instance: String, heard: mpsc::UnboundedSender<Ring>) {
    loop {
        link.up().await;
        if let Ok(listener) = link.listen().await {
            link.counters.subscriptions.add(1);
            if heard.send(Ring::Subscribed).is_err() {
                return;
            }
            listen_on(&link, &instance, listener, &heard).await;
        }
        sleep(PAUSE).await;
    }
}

/// Passes on what is said, until the connection ends or a ring of our own is not heard.
async fn listen_on(
    link: &Link,
    instance: &str,
    mut listener: redis::aio::PubSub,
    heard: &mpsc::UnboundedSender<Ring>,
) {
    let silent = AtomicBool::new(false);
    let mut said = listener.on_message();
    let listening = async {
        while let Some(message) = said.next().await {
            silent.store(false, Ordering::Relaxed);
            let text = str::from_utf8(message.get_payload_bytes()).unwrap_or_default();
            if let Some(ring) = Ring::parse(text)
                && heard.send(ring).is_err()
            {
                return;
            }
        }
    };
    tokio::select! {
        () = listening => {}
        () = ring_while_heard(link, instance, &silent) => {}
    }
}

/// Rings our own bell now and then, until it was not heard.
async fn ring_while_heard(link: &Link, instance: &str, silent: &AtomicBool) {
    let mut ring = redis::cmd("PUBLISH");
    ring.arg(keys::channel(instance)).arg("ring");
    loop {
        sleep(RING_EVERY).await;
        if silent.swap(true, Ordering::Relaxed) {
            return;
        }
        // A ring that was not even sent says nothing about this connection.
        if link.ask::<i64>(&ring).await.is_err() {
            silent.store(false, Ordering::Relaxed);
        }
    }
}
