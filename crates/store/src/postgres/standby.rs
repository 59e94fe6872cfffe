//! The synchronous standbys of a server, and the state of their connections.

use std::time::Duration;

use tokio_postgres::{Error, Row};

use crate::limit::COMMIT_WAIT_MAX;

/// The synchronous standbys of a server.
#[derive(Clone, Debug, PartialEq)]
pub struct Standbys {
    /// The setting `synchronous_standby_names`; empty if a commit waits for no standby.
    pub setting: String,
    /// Number of named standbys that a commit waits for.
    pub needed: usize,
    /// Named standbys that are not connected; empty if `*` names all.
    pub missing: Vec<String>,
    /// Number of named standbys that are connected.
    pub connected: usize,
    /// True if this user may see the state of the connected standbys (`pg_read_all_stats` or `pg_monitor`).
    pub are_visible: bool,
    /// The longest time for which a commit of this user has been waiting for them.
    pub commit_wait: Duration,
}

impl Standbys {
    /// Decodes the row of `health.sql`.
    pub(super) fn from_row(row: &Row) -> Result<Self, Error> {
        let setting: String = row.try_get("setting")?;
        let seconds: f64 = row.try_get("wait_seconds")?;
        let connected: Vec<String> = row.try_get("connected")?;
        let are_visible: bool = row.try_get("are_visible")?;
        let commit_wait = Duration::try_from_secs_f64(seconds).unwrap_or_default();
        let StandbyNames { needed, names } = StandbyNames::parse(&setting);
        let matches = |name: &str, standby: &str| name == "*" || name.eq_ignore_ascii_case(standby);
        let is_missing =
            |name: &&String| !connected.iter().any(|standby| matches(name, standby)) && *name != "*";
        let missing = names.iter().filter(is_missing).cloned().collect();
        let connected =
            connected.iter().filter(|standby| names.iter().any(|name| matches(name, standby))).count();
        Ok(Self { setting, needed, missing, connected, are_visible, commit_wait })
    }

    /// The reason why no commit is acknowledged now, if one has waited for longer than `COMMIT_WAIT_MAX`.
    pub fn stall_reason(&self) -> Option<String> {
        let is_hanging = self.commit_wait > COMMIT_WAIT_MAX;
        is_hanging.then(|| {
            let seconds = self.commit_wait.as_secs();
            format!("commits wait for standbys that do not respond, the longest for {seconds} s")
        })
    }

    /// The reason why a commit may wait for standbys: some named ones are not connected. Independent of
    /// whether a commit is waiting now.
    pub fn degraded_reason(&self) -> Option<String> {
        let Self { needed, connected, missing, .. } = self;
        let missing =
            if missing.is_empty() { String::new() } else { format!("; missing: {}", missing.join(", ")) };
        if needed > connected {
            return Some(format!(
                "a commit waits for {needed} of the standbys in synchronous_standby_names, and {connected} \
                 are connected{missing}"
            ));
        }
        (!missing.is_empty())
            .then(|| format!("standbys in synchronous_standby_names are not connected{missing}"))
    }
}

/// The setting `synchronous_standby_names`, parsed as the server parses it.
#[derive(Debug, PartialEq)]
struct StandbyNames {
    needed: usize,
    names: Vec<String>,
}

impl StandbyNames {
    /// Parses `one, two`; `2 (one, two)`; `FIRST 2 (…)`; `ANY 2 (…)`. A name with other characters is in
    /// double quotes.
    fn parse(setting: &str) -> Self {
        let (method, list) = setting.split_once('(').unwrap_or(("", setting));
        // In quotes, a parenthesis is part of a name.
        let (method, list) = if method.contains('"') { ("", setting) } else { (method, list) };
        let number = method.split_whitespace().find_map(|word| word.parse().ok());
        let names = split_names(list);
        let needed = if names.is_empty() { 0 } else { number.unwrap_or(1) };
        Self { needed, names }
    }
}

/// The names of a list that ends with or without a parenthesis, unquoted.
fn split_names(list: &str) -> Vec<String> {
    let mut names = Vec::new();
    let mut name = String::new();
    let mut quoted = false;
    let mut characters = list.chars().peekable();
    while let Some(character) = characters.next() {
        match character {
            '"' if quoted && characters.peek() == Some(&'"') => name.extend(characters.next()),
            '"' => quoted = !quoted,
            ',' | ')' if !quoted => names.push(std::mem::take(&mut name)),
            space if space.is_whitespace() && !quoted => {}
            other => name.push(other),
        }
    }
    names.push(name);
    names.retain(|name| !name.is_empty());
    names
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn r1_standby_names_are_parsed_like_the_server() {
        let cases: [(&str, usize, &[&str]); 9] = [
            ("", 0, &[]),
            ("absent", 1, &["absent"]),
            ("*", 1, &["*"]),
            ("s1, S_2", 1, &["s1", "S_2"]),
            ("2 (s1, s2, s3)", 2, &["s1", "s2", "s3"]),
            ("FIRST 2 (s1,s2,s3)", 2, &["s1", "s2", "s3"]),
            ("any 1 ( s1 , \"s 2\" )", 1, &["s1", "s 2"]),
            ("\"a \"\"b\"\" (c), d\"", 1, &["a \"b\" (c), d"]),
            ("ANY 1 (*)", 1, &["*"]),
        ];
        for (setting, needed, names) in cases {
            let names = names.iter().map(ToString::to_string).collect();
            assert_eq!(StandbyNames::parse(setting), StandbyNames { needed, names }, "{setting}");
        }
    }
}
