//! Tests of the simulator and with it.

#[cfg(feature = "sabotage")]
mod seeded_bugs;
