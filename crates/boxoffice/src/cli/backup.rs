//! `boxoffice backup`: copies the database file and audits the copy.

use std::path::Path;
use std::process::ExitCode;

use domain::AuditReport;
use serde_json::json;
use store::{BackupError, Sqlite, Store as _};

use super::{Failure, audit, print_output};
use crate::config::{Backup, DatabaseUrl};

/// Copies the file while a server may run on it, and audits the copy before reporting success.
pub(super) async fn run(args: &Backup) -> Result<ExitCode, Failure> {
    let file = match args.database.url() {
        DatabaseUrl::Sqlite(file) => file,
        // PostgreSQL has its own tools, which also copy data of other programs.
        DatabaseUrl::Postgres(url) => {
            let command = format!("pg_dump --format=custom --file={} {url}", args.to.display());
            return Err(Failure::Failed(format!(
                "PostgreSQL databases are backed up with pg_dump: run `{command}`"
            )));
        }
    };
    let bytes = Sqlite::open_reader(&file)?.backup(args.to.clone()).await?;
    let report = match verify(&args.to).await {
        Ok(report) => report,
        Err(why) => {
            // It must not be mistaken for a backup.
            std::fs::remove_file(&args.to)?;
            return Err(Failure::Failed(format!("the copy is unusable and was removed: {why}")));
        }
    };
    if args.json {
        let mut report_json = audit::as_json(&report);
        report_json["file"] = json!(args.to.display().to_string());
        report_json["bytes"] = json!(bytes);
        print_output(report_json);
    } else {
        print_output(format_args!("{}: {bytes} bytes", args.to.display()));
        audit::print_report(&report);
    }
    // Violations come from the original, so the copy is kept.
    Ok(audit::exit_code(&report))
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
