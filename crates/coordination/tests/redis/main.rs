//! Both primitives on a real Redis server: the conformance suites, mutants that must not pass them, and every
//! way in which a server can fail.
//!
//! Time is real here, as the server's is. Waits are for the thing itself; the only bounds on time are promises.

mod on_redis;
