//! The connection that wakes waiters: one channel of an instance, on which the server says what was granted.
//!
//! What it says is a hint. Whoever waits asks by itself, less often, so a message that is lost costs time.

use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt as _;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, sleep_until};

use super::entry::Grant;
use super::keys;
use super::link::Link;
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
            link.counters.subscribed.add(1);
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
    let mut said = std::pin::pin!(listener.on_message());
    let (mut ring_at, mut silent) = (Instant::now() + RING_EVERY, false);
    loop {
        tokio::select! {
            message = said.next() => {
                let Some(message) = message else { return };
                silent = false;
                let text = str::from_utf8(message.get_payload_bytes()).unwrap_or_default();
                if let Some(ring) = Ring::parse(text) && heard.send(ring).is_err() {
                    return;
                }
            }
            () = sleep_until(ring_at) => {
                if silent {
                    return;
                }
                let mut ring = redis::cmd("PUBLISH");
                ring.arg(keys::channel(instance)).arg("ring");
                // A ring that was not even sent says nothing about this connection.
                silent = link.ask::<i64>(&ring).await.is_ok();
                ring_at = Instant::now() + RING_EVERY;
            }
        }
    }
}
