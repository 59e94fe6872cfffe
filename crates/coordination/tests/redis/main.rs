//! The lock and the limiter on a real Redis server: the conformance suites, mutants that must fail them, and
//! the failures of a server.
//!
//! Time is real here, because the server's is. Tests wait for conditions; the only bounds on time are
//! guarantees.

mod on_redis;
