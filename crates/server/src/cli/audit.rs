//! `boxoffice audit`.

use std::process::ExitCode;

use serde_json::json;
use store::{Sqlite, Store as _};

use super::{Failure, say};
use crate::config::Audit;

pub(super) async fn run(args: &Audit) -> Result<ExitCode, Failure> {
    let store = Sqlite::open_reader(&args.database.file.0)?;
    let report = store.audit().await.map_err(|fault| {
        use std::error::Error as _;
        let cause = fault.source().map(|cause| format!(": {cause}")).unwrap_or_default();
        Failure::Unreachable(format!("{fault}{cause}"))
    })?;
    let clean = report.violations.is_empty();
    if args.json {
        say(json!({
            "clean": clean, "violations": report.violations, "events": report.events,
            "bookings": report.bookings, "entries": report.entries, "refunds": report.refunds,
        }));
    } else {
        let verdict =
            if clean { "clean".to_owned() } else { format!("{} violations", report.violations.len()) };
        say(format_args!(
            "{verdict}: {} events, {} bookings, {} ledger entries, {} refunds",
            report.events, report.bookings, report.entries, report.refunds
        ));
        for violation in &report.violations {
            say(format_args!("- {violation}"));
        }
    }
    Ok(ExitCode::from(u8::from(!clean)))
}
