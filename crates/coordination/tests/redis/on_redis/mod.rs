//! Tests that need Redis; where it is not installed, `make test` skips them.

mod faults;
mod harness;
mod idle;
mod limiter;
mod limiter_conforms;
mod lock;
mod lock_conforms;
mod mutants;
