//! Names of all keys and channels on a Redis server. No other file of this crate builds one.
//!
//! The braces are literal: they mark the hash tag, which selects the slot in a Redis cluster, so all keys of
//! one script are in one slot. Neither a [`Key`] nor an instance's name contains a brace or white space.

use crate::{Key, Rule};

/// Prefix of channels; the instance's name follows.
pub(super) const CHANNEL_PREFIX: &str = "lk:wake:";

const LOCK_PREFIX: &str = "lk:{";

/// The admissions of a rule for a key.
pub(super) fn rate_limit(rule: Rule, key: &Key) -> String {
    format!("rl:{{{key}}}:{}", rule.name())
}

/// The three keys of a lock: its owner, its queue, and the deadlines until which each entry of the queue
/// counts as waiting.
pub(super) fn lock(key: &Key) -> [String; 3] {
    [format!("{LOCK_PREFIX}{key}}}"), format!("{LOCK_PREFIX}{key}}}:q"), format!("{LOCK_PREFIX}{key}}}:w")]
}

/// The lock whose owner is stored under `text`, the first name of [`lock`]; `None` for any other text.
pub(super) fn parse_lock(text: &str) -> Option<Key> {
    let (scope, id) = text.strip_prefix(LOCK_PREFIX)?.strip_suffix('}')?.split_once(':')?;
    Key::new(scope, id).ok()
}

/// The channel on which an instance receives notifications.
pub(super) fn channel(instance: &str) -> String {
    format!("{CHANNEL_PREFIX}{instance}")
}

/// A key that is written to check that the server accepts writes. It expires after a millisecond.
pub(super) fn probe(instance: &str) -> String {
    format!("lk:probe:{instance}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_spelled_as_documented_and_read_back() {
        let key = Key::new("event", "evt_1:a").unwrap();
        assert_eq!(lock(&key), ["lk:{event:evt_1:a}", "lk:{event:evt_1:a}:q", "lk:{event:evt_1:a}:w"]);
        assert_eq!(rate_limit(Rule::parse("book", "5/10s").unwrap(), &key), "rl:{event:evt_1:a}:book");
        assert_eq!(parse_lock(&lock(&key)[0]), Some(key));
        for text in ["", "lk:{event:evt_1", "lk:{event}", "lk:{event:a}:q", "lk:{event:a{b}}"] {
            assert_eq!(parse_lock(text), None, "{text}");
        }
    }
}
