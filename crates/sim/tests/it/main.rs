//! Tests of the simulator and with it.
