//! `boxoffice config`: prints the settings of `serve`.

use std::process::ExitCode;

use serde_json::json;

use super::{Failure, print_output};
use crate::config::{Cli, Config};

#[expect(clippy::unnecessary_wraps, reason = "every command has the same signature")]
pub(super) fn run(args: &Config) -> Result<ExitCode, Failure> {
    let settings = Cli::settings();
    if args.json {
        let entry =
            |[name, value, origin]: &[String; 3]| (name.clone(), json!({"value": value, "from": origin}));
        print_output(json!(settings.iter().map(entry).collect::<serde_json::Map<_, _>>()));
        return Ok(ExitCode::SUCCESS);
    }
    let width = settings.iter().map(|[name, ..]| name.len()).max().unwrap_or(0);
    for [name, value, origin] in settings {
        print_output(format_args!("{name:width$}  {value}  ({origin})"));
    }
    Ok(ExitCode::SUCCESS)
}
