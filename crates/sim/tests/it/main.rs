//! Tests of the simulator and with it.

mod protocol;
#[cfg(feature = "sabotage")]
mod seeded_bugs;
mod seeds;
mod store_guards;
