//! What NATS has against this program: why it lets it not in, or not do something that it always does.
//!
//! The client library goes on trying and keeps the reason to itself; an operator wants it in the log, in
//! `/readyz` and from `doctor`.

use std::sync::{Mutex, PoisonError};

use async_nats::{Event, Server};

/// The reason that was heard since NATS last let this program in.
#[derive(Default)]
pub(crate) struct LastError(Mutex<Option<String>>);

impl LastError {
    /// The reason, where there is one.
    pub(crate) fn reason(&self) -> Option<String> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Takes a reason down; whether it is a new one.
    fn note(&self, reason: Option<&str>) -> bool {
        let mut noted = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        std::mem::replace(&mut *noted, reason.map(str::to_owned)).as_deref() != reason
    }

    /// Before every attempt to connect: what became of those before it.
    pub(super) fn attempted(&self, servers: &[Server]) {
        let Some(reason) = servers.iter().find_map(|server| server.last_error.as_deref()).map(humanize)
        else {
            return;
        };
        // Said once, not at each attempt.
        if self.note(Some(&reason)) {
            tracing::warn!(reason, "no connection to NATS; trying on");
        }
    }

    /// A message was stored: what was said against that before is true no more.
    pub(super) fn may_publish(&self) {
        if self.reason().is_some_and(|reason| reason.contains(LEDGER_REFUSED)) {
            self.note(None);
        }
    }

    /// Whatever happens to the connection.
    pub(super) fn on_event(&self, event: &Event) {
        match event {
            Event::Connected => {
                self.note(None);
                tracing::info!("NATS is connected");
            }
            Event::Disconnected => tracing::warn!("NATS is away; going on without until it is back"),
            Event::SlowConsumer(_) => tracing::error!("requests over NATS were dropped: too many at once"),
            Event::ServerError(error) => {
                let reason = humanize(&error.to_string());
                tracing::error!(reason, "NATS refuses");
                // The first of them stands for all: one right is rarely missing alone.
                if is_lasting(&reason) && self.reason().is_none() {
                    self.note(Some(&reason));
                }
            }
            Event::LameDuckMode | Event::Draining | Event::Closed | Event::ClientError(_) => {
                tracing::debug!(%event, "NATS");
            }
        }
    }
}

/// How NATS says that this program may not put messages on its stream.
const LEDGER_REFUSED: &str = r#"for Publish to "boxoffice.ledger."#;

/// Whether it concerns what this program does all the time. Where a reply may go is up to who asked.
fn is_lasting(reason: &str) -> bool {
    ["for Subscription to", r#"for Publish to "$JS.API."#, LEDGER_REFUSED]
        .iter()
        .any(|lasting| reason.contains(lasting))
}

/// What the library says, for people.
pub(crate) fn humanize(reason: &str) -> String {
    let reason = reason.strip_prefix("IO error: ").unwrap_or(reason);
    let reason = reason.strip_prefix("nats: ").unwrap_or(reason);
    match reason {
        _ if reason.starts_with("authorization violation") => "it refuses the credentials".to_owned(),
        "failed signing nonce" => "it asks for other credentials than the file's".to_owned(),
        _ => reason.to_owned(),
    }
}
