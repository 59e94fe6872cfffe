//! The tasks of a simulation.

/// Spawns a task that ends with the simulation.
#[expect(clippy::disallowed_methods, reason = "it ends with the runtime of its simulation")]
pub(crate) fn spawn<T: Send + 'static>(
    work: impl Future<Output = T> + Send + 'static,
) -> tokio::task::JoinHandle<T> {
    tokio::spawn(work)
}
