//! The subscription that wakes waiters: one channel per instance, on which the scripts publish grants and the
//! number of waiters.
//!
//! Messages are hints. Every waiter also polls, less often, so a lost message costs time only.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use futures_util::StreamExt as _;
use tokio::sync::mpsc;
use tokio::time::sleep;

use super::connection::Connection;
use super::entry::Grant;
use super::keys;
use crate::Key;
use crate::limit::{HEARTBEAT_EVERY, RESUBSCRIBE_PAUSE};

/// An event on the subscription.
pub(super) enum Notification {
    /// A new subscription; earlier messages may be lost.
    Subscribed,
    /// The key was handed over to this caller.
    Granted { number: u64, key: Key, grant: Grant },
    /// The number of callers that wait for the key that this caller owns. The scripts publish only 1, when
    /// the first waiter joins the queue, and 0, when the last one leaves it.
    Waiters { number: u64, count: u64 },
}

impl Notification {
    fn parse(text: &str) -> Option<Self> {
        let mut parts = text.split(' ');
        let kind = parts.next()?;
        let number = parts.next()?.parse().ok()?;
        match kind {
            "waiting" => Some(Self::Waiters { number, count: parts.next()?.parse().ok()? }),
            "grant" => {
                let mut next = || parts.next()?.parse().ok();
                let grant = Grant { token: next()?, waiting: next()?, server_micros: next()? };
                Some(Self::Granted { number, key: keys::parse_lock(parts.next()?)?, grant })
            }
            _ => None,
        }
    }
}

/// Subscribes, forwards notifications and resubscribes, until dropped.
pub(super) async fn receive(
    connection: Arc<Connection>,
    instance: String,
    notifications: mpsc::UnboundedSender<Notification>,
) {
    loop {
        connection.wait_until_up().await;
        if let Ok(subscription) = connection.subscribe().await {
            connection.counters.subscriptions.add(1);
            if notifications.send(Notification::Subscribed).is_err() {
                return;
            }
            forward_messages(&connection, &instance, subscription, &notifications).await;
        }
        sleep(RESUBSCRIBE_PAUSE).await;
    }
}

/// Forwards messages until the subscription ends or a heartbeat does not arrive.
async fn forward_messages(
    connection: &Connection,
    instance: &str,
    mut subscription: redis::aio::PubSub,
    notifications: &mpsc::UnboundedSender<Notification>,
) {
    let is_silent = AtomicBool::new(false);
    let mut messages = subscription.on_message();
    let forward = async {
        while let Some(message) = messages.next().await {
            is_silent.store(false, Ordering::Relaxed);
            let text = str::from_utf8(message.get_payload_bytes()).unwrap_or_default();
            if let Some(notification) = Notification::parse(text)
                && notifications.send(notification).is_err()
            {
                return;
            }
        }
    };
    tokio::select! {
        () = forward => {}
        () = publish_heartbeats(connection, instance, &is_silent) => {}
    }
}

/// Publishes heartbeats; returns when no message at all arrived within an interval.
async fn publish_heartbeats(connection: &Connection, instance: &str, is_silent: &AtomicBool) {
    let mut heartbeat = redis::cmd("PUBLISH");
    heartbeat.arg(keys::channel(instance)).arg("heartbeat");
    loop {
        sleep(HEARTBEAT_EVERY).await;
        if is_silent.swap(true, Ordering::Relaxed) {
            return;
        }
        // A failed publish does not show that the subscription is dead.
        if connection.query::<i64>(&heartbeat).await.is_err() {
            is_silent.store(false, Ordering::Relaxed);
        }
    }
}
