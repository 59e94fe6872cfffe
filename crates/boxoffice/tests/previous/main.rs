//! Campaigns with an earlier version of the program. `PREVIOUS` is the path of its binary; the make targets
//! `upgrade-fixtures` and `upgrade-campaign` build it and run these.

#[path = "../upgrade/fixture.rs"]
mod fixture;
#[path = "../it_nats/ledger_stream.rs"]
mod ledger_stream;
mod side_by_side;
mod write;

use testkit::Program;

/// The program under test.
fn program() -> Program {
    Program::new(env!("CARGO_BIN_EXE_boxoffice"))
}

/// The earlier version.
fn previous() -> Program {
    Program::new(std::env::var_os("PREVIOUS").expect("PREVIOUS is the path of an earlier version's binary"))
}
