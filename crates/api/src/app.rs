//! The state that all transports share.

use std::sync::Arc;

use domain::{Ids, RequestId};
use engine::Engine;
use supervisor::{Supervisor, Task};
use tokio_util::sync::CancellationToken;

use crate::dependency::Dependency;

/// The running service, as every transport sees it. What only one transport needs is in that transport.
#[derive(Clone)]
pub struct App {
    /// The use cases.
    pub engine: Arc<Engine>,
    /// The source of request ids.
    pub ids: Arc<dyn Ids>,
    /// Cancelled when shutdown begins.
    pub stop: CancellationToken,
    /// Supervises the background tasks that belong to no component.
    pub supervisor: Arc<Supervisor>,
    /// The servers that the service uses, for readiness and metrics.
    pub dependencies: Arc<[Arc<dyn Dependency>]>,
}

impl App {
    /// All background tasks of this process.
    pub fn tasks(&self) -> Vec<Arc<Task>> {
        let of_dependencies = self.dependencies.iter().flat_map(|dependency| dependency.tasks());
        self.engine.tasks().into_iter().chain(self.supervisor.tasks()).chain(of_dependencies).collect()
    }

    /// An id for a request without one: `req_` and random hexadecimal digits.
    pub fn generate_request_id(&self) -> RequestId {
        let bytes = self.ids.random();
        let id = bytes.iter().fold(String::from("req_"), |id, byte| format!("{id}{byte:02x}"));
        id.parse().unwrap_or_else(|_| unreachable!("hexadecimal digits are visible ASCII"))
    }
}
