//! The state of a writer's connection. See [`super::outcome`] for the transitions.

use super::replication::ReplicationCheck;
use super::session::Session;

/// The state of a writer's connection.
#[derive(Default)]
#[expect(clippy::large_enum_variant, reason = "a store has two writers, each with one state")]
pub(super) enum ConnectionState {
    /// There is no connection.
    #[default]
    Disconnected,
    /// Ready for a batch.
    Ready(Session),
    /// There is no connection, and a commit of the last one may be on the primary only. No batch begins in
    /// this state.
    ReplicationUnknown,
    /// An empty commit is running, to check that the standbys have all earlier commits. No batch begins in
    /// this state.
    CheckingReplication(ReplicationCheck),
}
