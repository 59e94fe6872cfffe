//! `boxoffice sweep`: expires overdue bookings once.

use std::process::ExitCode;
use std::sync::Arc;

use engine::{Sweeper, SystemClock};
use serde_json::json;

use super::{Failure, database, embedded, print_output};
use crate::config::{LogFormat, Sweep};
use crate::log;

/// Expires every overdue booking once. On SQLite it owns the file while it runs, so no server can use the
/// file. A running server runs its own sweeper.
pub(super) async fn run(args: &Sweep) -> Result<ExitCode, Failure> {
    log::init(tracing::Level::WARN, LogFormat::Text);
    let store = database::open(&args.database.url(), false).await?;
    let engine = embedded::engine(store, Arc::new(SystemClock));
    let swept = Sweeper::default().sweep(&engine).await?;
    engine.drain().await;
    if args.json {
        print_output(json!({"bookings": swept.bookings, "tickets": swept.tickets, "failed": swept.failed}));
    } else {
        let failed = if swept.failed == 0 {
            String::new()
        } else {
            format!("; {} bookings could not be expired, see above and run `boxoffice audit`", swept.failed)
        };
        print_output(format_args!("freed {} bookings, {} tickets{failed}", swept.bookings, swept.tickets));
    }
    Ok(ExitCode::from(u8::from(swept.failed > 0)))
}
