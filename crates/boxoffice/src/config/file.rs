//! The configuration file, and the source of each setting.
//!
//! A key of the file is the name of a flag without its dashes, and its value becomes the default of that
//! flag. So flags and environment variables take precedence, and the same parser checks a value from any
//! source.

use std::collections::BTreeMap;
use std::path::Path;

use clap::builder::OsStr;
use clap::parser::ValueSource;
use clap::{ArgMatches, Command};

/// The contents of a file: one or several values per flag.
pub(super) type Values = BTreeMap<String, Vec<String>>;

/// Reads a file. The error names a key that is not a flag, or whose value has an unsupported type.
pub(super) fn read(path: &Path, command: &Command) -> Result<Values, String> {
    let in_file = |error: String| format!("{}: {error}", path.display());
    let text = std::fs::read_to_string(path).map_err(|error| in_file(error.to_string()))?;
    let table: toml::Table =
        text.parse().map_err(|error: toml::de::Error| in_file(redacted_error(&text, &error)))?;
    let known = |key: &str| flags(command).any(|(_, name)| name == key);
    let mut values = Values::new();
    for (key, value) in table {
        if !known(&key) {
            return Err(in_file(format!("unknown setting \"{key}\"")));
        }
        let list = match value {
            toml::Value::Array(list) => list,
            single => vec![single],
        };
        let texts = list.iter().map(scalar).collect::<Option<Vec<String>>>();
        values.insert(
            key.clone(),
            texts.ok_or_else(|| in_file(format!("\"{key}\" must be a string, number or boolean")))?,
        );
    }
    Ok(values)
}

/// Returns the message and the line number of an error, but not the line itself, which may contain a secret.
fn redacted_error(text: &str, error: &toml::de::Error) -> String {
    let start = error.span().map_or(0, |span| span.start);
    let line = text.bytes().take(start).filter(|byte| *byte == b'\n').count() + 1;
    format!("line {line}: {}", error.message())
}

fn scalar(value: &toml::Value) -> Option<String> {
    match value {
        toml::Value::String(text) => Some(text.clone()),
        toml::Value::Integer(number) => Some(number.to_string()),
        toml::Value::Boolean(flag) => Some(flag.to_string()),
        toml::Value::Float(_) | toml::Value::Datetime(_) | toml::Value::Array(_) | toml::Value::Table(_) => {
            None
        }
    }
}

/// Returns every setting: the flags of all commands that have an environment variable.
fn flags(command: &Command) -> impl Iterator<Item = (&str, &str)> {
    let arguments = command.get_subcommands().flat_map(Command::get_arguments);
    arguments
        .filter(|argument| argument.get_env().is_some())
        .filter_map(|argument| Some((argument.get_id().as_str(), argument.get_long()?)))
}

/// Sets the values of the file as the defaults of the flags.
pub(super) fn apply(command: Command, values: &Values) -> Command {
    let names: Vec<String> = command.get_subcommands().map(|each| each.get_name().to_owned()).collect();
    names.into_iter().fold(command, |command, name| {
        command.mut_subcommand(name, |subcommand| {
            let known: Vec<(String, Vec<String>)> = subcommand
                .get_arguments()
                .filter_map(|argument| {
                    let values = values.get(argument.get_long()?)?;
                    Some((argument.get_id().to_string(), values.clone()))
                })
                .collect();
            known.into_iter().fold(subcommand, |subcommand, (id, values)| {
                subcommand
                    .mut_arg(id, |argument| argument.default_values(values.into_iter().map(OsStr::from)))
            })
        })
    })
}

/// Returns every setting of a command as `[name, value, source]`. Secrets are masked.
pub(super) fn effective(command: &Command, matches: &ArgMatches, values: &Values) -> Vec<[String; 3]> {
    let settings = command.get_arguments().filter(|argument| argument.get_env().is_some());
    settings
        .filter_map(|argument| {
            let (id, name) = (argument.get_id().as_str(), argument.get_long()?);
            let raw = matches.get_raw(id).map(|values| {
                let text = |value: &std::ffi::OsStr| value.to_string_lossy().into_owned();
                values.map(text).collect::<Vec<_>>().join(", ")
            });
            let source = match matches.value_source(id) {
                Some(ValueSource::CommandLine) => "flag",
                Some(ValueSource::EnvVariable) => "environment",
                Some(_) if values.contains_key(name) => "file",
                Some(_) => "default",
                None => "unset",
            };
            // In an address only the password is masked.
            if name == "database" {
                let value = store::masked(&raw.unwrap_or_default());
                return Some([name.to_owned(), value, source.to_owned()]);
            }
            let masked = argument.is_hide_env_values_set() && raw.is_some();
            let value = if masked { "********".to_owned() } else { raw.unwrap_or_default() };
            Some([name.to_owned(), value, source.to_owned()])
        })
        .collect()
}
