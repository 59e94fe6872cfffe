//! The engine with a real lock, a real limiter and a store in memory, under a clock that tests own.

mod clock;
mod leases;
mod overdue;
mod stage;
