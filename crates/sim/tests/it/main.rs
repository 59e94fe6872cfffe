//! Tests that run the simulator and the model, and tests of both.

mod protocol;
#[cfg(feature = "sabotage")]
mod seeded_bugs;
mod seeds;
mod store_guards;
