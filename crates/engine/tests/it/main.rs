//! Tests of the engine with a real lock, a real limiter and a store in memory, under a clock that tests
//! control; and on real databases with corrupt rows.

mod clock;
#[cfg(test)]
mod corrupt;
mod fixture;
#[cfg(test)]
mod large;
mod leases;
mod listener;
#[cfg(test)]
mod on_postgres;
mod overdue;
