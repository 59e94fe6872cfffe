//! The last authentication, connection or permission error of NATS.
//!
//! The client library retries without reporting the reason. Operators need it in the log, in `/readyz` and in
//! `doctor`.

use std::sync::{Mutex, PoisonError};

use async_nats::{Event, Server};

/// The last error since NATS was last connected.
#[derive(Default)]
pub(crate) struct LastError(Mutex<Option<String>>);

impl LastError {
    /// Returns the reason of the error; `None` if there is no error.
    pub(crate) fn reason(&self) -> Option<String> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Replaces the reason. Returns true if it differs from the previous one.
    fn replace(&self, reason: Option<&str>) -> bool {
        let mut current = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        std::mem::replace(&mut *current, reason.map(str::to_owned)).as_deref() != reason
    }

    /// Called before every attempt to connect, with the errors of earlier attempts.
    pub(crate) fn on_connect_attempt(&self, servers: &[Server]) {
        let Some(reason) = servers.iter().find_map(|server| server.last_error.as_deref()).map(humanize)
        else {
            return;
        };
        // Logged once, not for each attempt.
        if self.replace(Some(&reason)) {
            tracing::warn!(reason, "cannot connect to NATS; retrying");
        }
    }

    /// Called after a successful publish: clears an error that denied it.
    pub(crate) fn on_publish_ok(&self) {
        if self.reason().is_some_and(|reason| reason.contains(LEDGER_PUBLISH_DENIED)) {
            self.replace(None);
        }
    }

    /// Called for every event of the connection.
    pub(crate) fn on_event(&self, event: &Event) {
        match event {
            Event::Connected => {
                self.replace(None);
                tracing::info!("NATS is connected");
            }
            Event::Disconnected => tracing::warn!("NATS unavailable; continuing without it"),
            Event::SlowConsumer(_) => tracing::error!("requests over NATS were dropped: too many at once"),
            Event::ServerError(error) => {
                let reason = humanize(&error.to_string());
                tracing::error!(reason, "NATS reports an error");
                // The first error is kept: several permissions are usually missing together.
                if is_persistent(&reason) && self.reason().is_none() {
                    self.replace(Some(&reason));
                }
            }
            Event::LameDuckMode | Event::Draining | Event::Closed | Event::ClientError(_) => {
                tracing::debug!(%event, "NATS");
            }
        }
    }
}

/// The part of a permission error that denies a publish to the stream.
const LEDGER_PUBLISH_DENIED: &str = r#"for Publish to "boxoffice.ledger."#;

/// Returns true if the error concerns permissions that this program always needs. A denied reply does not:
/// its subject is chosen by the requester.
fn is_persistent(reason: &str) -> bool {
    ["for Subscription to", r#"for Publish to "$JS.API."#, LEDGER_PUBLISH_DENIED]
        .iter()
        .any(|denied| reason.contains(denied))
}

/// Rewrites an error text of the library for operators.
pub(crate) fn humanize(reason: &str) -> String {
    let reason = reason.strip_prefix("IO error: ").unwrap_or(reason);
    let reason = reason.strip_prefix("nats: ").unwrap_or(reason);
    match reason {
        _ if reason.starts_with("authorization violation") => "authentication failed".to_owned(),
        "failed signing nonce" => "the server requires other credentials than those in the file".to_owned(),
        _ => reason.to_owned(),
    }
}
