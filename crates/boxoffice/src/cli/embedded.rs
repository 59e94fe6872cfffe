//! An engine for commands that run without a server.

use std::error::Error as _;
use std::sync::Arc;

use coordination::local::{LocalLimiter, LocalLock};
use domain::Clock;
use engine::{Engine, NoopListener, Ports, SystemClock, SystemIds};
use store::{Fault, Store};

use super::Failure;
use crate::config::default_policy;

/// Starts an engine on a store, with a lock and a limiter for one process.
pub(super) fn engine(store: Arc<dyn Store>, clock: Arc<dyn Clock>) -> Arc<Engine> {
    let system_clock = Arc::new(SystemClock);
    let ports = Ports {
        store,
        lock: Arc::new(LocalLock::new(system_clock.clone())),
        lease: None,
        limiter: Arc::new(LocalLimiter::new(system_clock)),
        clock,
        ids: Arc::new(SystemIds),
        commit_listener: Arc::new(NoopListener),
    };
    Engine::start(ports, default_policy())
}

impl From<engine::Error> for Failure {
    fn from(error: engine::Error) -> Self {
        match error {
            engine::Error::Fault(fault) => fault.into(),
            refused => Self::Failed(refused.to_string()),
        }
    }
}

impl From<Fault> for Failure {
    fn from(fault: Fault) -> Self {
        let cause = fault.source().map(|cause| format!(": {cause}")).unwrap_or_default();
        let message = format!("{fault}{cause}");
        match fault {
            Fault::Unavailable(_) => Self::Unreachable(message),
            Fault::OutcomeUnknown(_) | Fault::Broken(_) => Self::Failed(message),
        }
    }
}
