//! `boxoffice audit`: recomputes and verifies every count.

use std::process::ExitCode;

use domain::AuditReport;
use serde_json::{Value, json};

use super::{Failure, database, print_output};
use crate::config::Audit;

pub(super) async fn run(args: &Audit) -> Result<ExitCode, Failure> {
    let store = database::open_reader(&args.database.url()).await?;
    let report = store.audit().await.map_err(|fault| {
        use std::error::Error as _;
        let cause = fault.source().map(|cause| format!(": {cause}")).unwrap_or_default();
        Failure::Unreachable(format!("{fault}{cause}"))
    })?;
    if args.json {
        print_output(as_json(&report));
    } else {
        print_report(&report);
    }
    Ok(exit_code(&report))
}

/// Returns 0 if everything is verified, 1 if there are violations, and 4 if there are none, but entries of
/// unknown kinds prevented a complete audit.
pub(super) fn exit_code(report: &AuditReport) -> ExitCode {
    ExitCode::from(match (report.is_clean(), report.violations.is_empty()) {
        (true, _) => 0,
        (false, false) => 1,
        (false, true) => 4,
    })
}

/// Returns the report as JSON.
pub(super) fn as_json(report: &AuditReport) -> Value {
    json!({
        "clean": report.is_clean(), "violations": report.violations, "events": report.events,
        "bookings": report.bookings, "entries": report.entries, "refunds": report.refunds,
        "unknownKinds": report.unknown_kinds,
    })
}

/// Prints the report as text: the number of rows checked, every violation, and the entries of unknown kinds.
pub(super) fn print_report(report: &AuditReport) {
    let verdict = match report.violations.len() {
        0 if report.is_clean() => "clean".to_owned(),
        0 => "incomplete, without a violation".to_owned(),
        count => format!("{count} violations"),
    };
    print_output(format_args!(
        "{verdict}: {} events, {} bookings, {} ledger entries, {} refunds",
        report.events, report.bookings, report.entries, report.refunds
    ));
    for violation in &report.violations {
        print_output(format_args!("- {violation}"));
    }
    for (kind, entries) in &report.unknown_kinds {
        print_output(format_args!("not interpreted: {entries} ledger entries of the unknown kind {kind}"));
    }
}
