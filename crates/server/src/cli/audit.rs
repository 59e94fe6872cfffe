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
    Ok(ExitCode::from(u8::from(!report.violations.is_empty())))
}

/// Returns the report as JSON.
pub(super) fn as_json(report: &AuditReport) -> Value {
    json!({
        "clean": report.violations.is_empty(), "violations": report.violations, "events": report.events,
        "bookings": report.bookings, "entries": report.entries, "refunds": report.refunds,
    })
}

/// Prints the report as text: the number of rows checked, and every violation.
pub(super) fn print_report(report: &AuditReport) {
    let verdict = match report.violations.len() {
        0 => "clean".to_owned(),
        count => format!("{count} violations"),
    };
    print_output(format_args!(
        "{verdict}: {} events, {} bookings, {} ledger entries, {} refunds",
        report.events, report.bookings, report.entries, report.refunds
    ));
    for violation in &report.violations {
        print_output(format_args!("- {violation}"));
    }
}
