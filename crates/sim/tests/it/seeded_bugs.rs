//! Every guard, taken away alone or with the one that covers for it: somebody must notice. Who does is the
//! table in `docs/reliability.md`.

use std::fmt::Write as _;
use std::sync::Mutex;

use domain::sabotage::{Guard, remove_here};

use crate::{protocol, store_guards};

/// Seeds that a missing guard is hunted with.
const SEEDS: usize = 1500;

/// Guards that cover for each other, taken away together.
const TOGETHER: &[&[Guard]] = &[
    &[Guard::Capacity, Guard::CapacityCheck],
    &[Guard::UserLimit, Guard::UserLimitCheck],
    &[Guard::RefundedForGood, Guard::RefundUnique],
    &[Guard::RowLock, Guard::SeqCompared],
    &[Guard::RowLock, Guard::RowsCounted],
    &[Guard::RowLock, Guard::SeqCompared, Guard::VersionCompared],
];

struct Row {
    guards: Vec<Guard>,
    model: bool,
    simulator: bool,
    store: bool,
}

fn try_without(guards: &[Guard]) -> Row {
    let model = {
        let _missing = remove_here(guards, || false);
        protocol::SMALL_MODELS.iter().any(|setting| sim::model::search(setting).is_err())
    };
    let simulator = sim::find_detecting_seed(guards, SEEDS).is_some();
    let store = {
        let _missing = remove_here(guards, || false);
        let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
        !runtime.block_on(store_guards::unnoticed()).is_empty()
    };
    Row { guards: guards.to_vec(), model, simulator, store }
}

#[test]
fn removing_any_guard_is_detected() {
    // Only PostgreSQL has to be asked what became of a COMMIT; the tests of the server on it miss that guard. Nobody
    // misses the locks, there or here, where some worlds have none that can be trusted.
    let here = Guard::ALL.iter().filter(|guard| ![Guard::FollowUp, Guard::Locks].contains(guard));
    let alone = here.map(std::slice::from_ref);
    let jobs: Vec<&[Guard]> = alone.chain(TOGETHER.iter().copied()).collect();
    let (next, rows) = (Mutex::new(jobs.into_iter()), Mutex::new(Vec::new()));
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                loop {
                    let Some(guards) = next.lock().unwrap().next() else { return };
                    let row = try_without(guards);
                    rows.lock().unwrap().push(row);
                }
            });
        }
    });
    let mut rows = rows.into_inner().unwrap();
    rows.sort_by_key(|row| (row.guards.len(), row.guards.clone()));
    let missed = |row: &&Row| !(row.model || row.simulator || row.store);
    let unnoticed: Vec<_> = rows.iter().filter(missed).map(|row| row.guards.clone()).collect();
    assert_eq!(unnoticed, Vec::<Vec<Guard>>::new(), "nobody misses these");
    compare(&table(&rows));
}

fn table(rows: &[Row]) -> String {
    let mut table = String::from("| taken away | model | simulator | store |\n|---|---|---|---|\n");
    for row in rows {
        let names: Vec<_> = row.guards.iter().map(|guard| guard.name()).collect();
        let tick = |noticed: bool| if noticed { "yes" } else { "–" };
        let (model, simulator, store) = (tick(row.model), tick(row.simulator), tick(row.store));
        writeln!(table, "| `{}` | {model} | {simulator} | {store} |", names.join("` and `"))
            .expect("strings take everything");
    }
    table
}

/// The page shows the table as it is now; `UPDATE_DOCS=1` writes it.
#[expect(clippy::disallowed_methods, reason = "a switch of this test")]
fn compare(table: &str) {
    const BEGIN: &str = "<!-- seeded bugs: written by a test -->\n";
    const END: &str = "<!-- end of seeded bugs -->";
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/reliability.md");
    let page = std::fs::read_to_string(path).expect("the page");
    let (before, rest) = page.split_once(BEGIN).expect("the page has a place for the table");
    let (shown, after) = rest.split_once(END).expect("the place has an end");
    if std::env::var("UPDATE_DOCS").is_ok() {
        std::fs::write(path, format!("{before}{BEGIN}{table}{END}{after}"))
            .expect("a page that can be written");
        return;
    }
    assert_eq!(
        shown, table,
        "docs/reliability.md is out of date: UPDATE_DOCS=1 cargo test -p sim --all-features"
    );
}
