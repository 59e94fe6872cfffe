//! `boxoffice backup`.

use std::path::Path;
use std::process::ExitCode;

use domain::AuditReport;
use serde_json::json;
use store::{BackupError, Sqlite, Store as _};

use super::{Failure, audit, print_output};
use crate::config::{Backup, DatabaseUrl};

/// Copies the file beside a server that runs, and audits the copy before it says that there is one.
pub(super) async fn run(args: &Backup) -> Result<ExitCode, Failure> {
    let file = match args.database.url() {
        DatabaseUrl::Sqlite(file) => file,
        // It has tools of its own, which also copy what others keep there.
        DatabaseUrl::Postgres(url) => {
            let how = format!("pg_dump --format=custom --file={} {url}", args.to.display());
            return Err(Failure::Failed(format!("PostgreSQL copies itself: run `{how}`")));
        }
    };
    let bytes = Sqlite::open_reader(&file)?.backup(args.to.clone()).await?;
    let report = match verify(&args.to).await {
        Ok(report) => report,
        Err(why) => {
            // Nobody must take it for a backup.
            std::fs::remove_file(&args.to)?;
            return Err(Failure::Failed(format!("the copy could not be used and was removed: {why}")));
        }
    };
    let clean = report.violations.is_empty();
    if args.json {
        let mut shown = audit::as_json(&report);
        shown["file"] = json!(args.to.display().to_string());
        shown["bytes"] = json!(bytes);
        print_output(shown);
    } else {
        print_output(format_args!("{}: {bytes} bytes", args.to.display()));
        audit::print_report(&report);
    }
    // The contradictions are the original's, so the copy is as good as it and stays.
    Ok(ExitCode::from(u8::from(!clean)))
}

async fn verify(copy: &Path) -> Result<AuditReport, String> {
    let store = Sqlite::open_reader(copy).map_err(|error| Failure::from(error).to_string())?;
    store.audit().await.map_err(|fault| Failure::from(fault).to_string())
}

impl From<BackupError> for Failure {
    fn from(error: BackupError) -> Self {
        use std::error::Error as _;
        let cause = error.source().map(|cause| format!(": {cause}")).unwrap_or_default();
        match error {
            BackupError::Fault(fault) => fault.into(),
            BackupError::Exists(_) | BackupError::Io { .. } | BackupError::Sqlite(_) => {
                Self::Failed(format!("{error}{cause}"))
            }
        }
    }
}
