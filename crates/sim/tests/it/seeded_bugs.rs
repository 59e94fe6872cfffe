//! Mutation testing: every guard is removed, alone or together with the guards that mask it, and at least one
//! checker must detect that. The table in `docs/reliability.md` shows which.

use std::fmt::Write as _;
use std::sync::Mutex;

use domain::sabotage::{Guard, remove_here};

use crate::{protocol, store_guards};

/// Number of seeds that are simulated per mutation.
const SEEDS: usize = 1500;

/// Guards that mask each other, removed together.
const REMOVED_TOGETHER: &[&[Guard]] = &[
    &[Guard::Capacity, Guard::CapacityCheck],
    &[Guard::UserLimit, Guard::UserLimitCheck],
    &[Guard::RefundIsFinal, Guard::RefundUnique],
    &[Guard::RowLock, Guard::SequenceCheck],
    &[Guard::RowLock, Guard::RowCountCheck],
    &[Guard::RowLock, Guard::SequenceCheck, Guard::VersionCheck],
];

/// The checkers that detect a mutation.
struct Row {
    guards: Vec<Guard>,
    model: bool,
    simulator: bool,
    store: bool,
}

fn run_without(guards: &[Guard]) -> Row {
    let model = {
        let _removed = remove_here(guards, || false);
        protocol::SMALL_MODELS.iter().any(|config| sim::model::search(config).is_err())
    };
    let simulator = sim::find_detecting_seed(guards, SEEDS).is_some();
    let store = {
        let _removed = remove_here(guards, || false);
        let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
        !runtime.block_on(store_guards::unrejected_statements()).is_empty()
    };
    Row { guards: guards.to_vec(), model, simulator, store }
}

#[test]
fn removing_any_guard_is_detected() {
    // Only PostgreSQL needs a follow-up query for the outcome of a COMMIT; the tests of the server on
    // PostgreSQL detect the removal of that guard. Nothing detects the removal of the locks: no invariant
    // depends on them, and some scenarios have none that can be trusted.
    let guards = Guard::ALL.iter().filter(|guard| ![Guard::OutcomeLookup, Guard::Locks].contains(guard));
    let alone = guards.map(std::slice::from_ref);
    let jobs: Vec<&[Guard]> = alone.chain(REMOVED_TOGETHER.iter().copied()).collect();
    let (next, rows) = (Mutex::new(jobs.into_iter()), Mutex::new(Vec::new()));
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                loop {
                    let Some(guards) = next.lock().unwrap().next() else { return };
                    let row = run_without(guards);
                    rows.lock().unwrap().push(row);
                }
            });
        }
    });
    let mut rows = rows.into_inner().unwrap();
    rows.sort_by_key(|row| (row.guards.len(), row.guards.clone()));
    let is_undetected = |row: &&Row| !(row.model || row.simulator || row.store);
    let undetected: Vec<_> = rows.iter().filter(is_undetected).map(|row| row.guards.clone()).collect();
    assert_eq!(undetected, Vec::<Vec<Guard>>::new(), "no checker detects the removal of these");
    compare_with_page(&table(&rows));
}

fn table(rows: &[Row]) -> String {
    let mut table = String::from("| removed guards | model | simulator | store |\n|---|---|---|---|\n");
    for row in rows {
        let names: Vec<_> = row.guards.iter().map(|guard| guard.name()).collect();
        let tick = |detected: bool| if detected { "yes" } else { "–" };
        let model = tick(row.model);
        let simulator = tick(row.simulator);
        let store = tick(row.store);
        writeln!(table, "| `{}` | {model} | {simulator} | {store} |", names.join("` and `"))
            .expect("writing to a string does not fail");
    }
    table
}

/// Checks that the page shows the current table. `UPDATE_DOCS=1` writes it.
#[expect(clippy::disallowed_methods, reason = "a switch of this test")]
fn compare_with_page(table: &str) {
    const BEGIN: &str = "<!-- seeded bugs: written by a test -->\n";
    const END: &str = "<!-- end of seeded bugs -->";
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/reliability.md");
    let page = std::fs::read_to_string(path).expect("the page is readable");
    let (before, rest) = page.split_once(BEGIN).expect("the page marks the start of the table");
    let (shown, after) = rest.split_once(END).expect("the page marks the end of the table");
    if std::env::var("UPDATE_DOCS").is_ok() {
        std::fs::write(path, format!("{before}{BEGIN}{table}{END}{after}")).expect("the page is writable");
        return;
    }
    assert_eq!(
        shown, table,
        "docs/reliability.md is out of date: UPDATE_DOCS=1 cargo test -p sim --all-features"
    );
}
