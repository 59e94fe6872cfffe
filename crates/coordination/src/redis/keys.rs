//! How everything that lies on a Redis server is called. No other file spells a key or a channel.
//!
//! The braces are literal: what stands in them decides the place in a cluster, so all keys of one script are
//! in one place. A [`Key`] holds no brace and no white space, and an instance's name none either.

use crate::{Key, Rule};

/// Before an instance's name: its one channel.
pub(super) const CHANNEL_PREFIX: &str = "lk:wake:";

const LOCK_PREFIX: &str = "lk:{";

/// The admissions of a rule and a key.
pub(super) fn ring(rule: Rule, key: &Key) -> String {
    format!("rl:{{{key}}}:{}", rule.name())
}

/// The owner of a key, its queue, and until when each in the queue counts as waiting.
pub(super) fn lock(key: &Key) -> [String; 3] {
    [format!("{LOCK_PREFIX}{key}}}"), format!("{LOCK_PREFIX}{key}}}:q"), format!("{LOCK_PREFIX}{key}}}:w")]
}

/// The key of a lock whose owner's key is `text`; `None` for anything else.
pub(super) fn key_of_lock(text: &str) -> Option<Key> {
    let (scope, id) = text.strip_prefix(LOCK_PREFIX)?.strip_suffix('}')?.split_once(':')?;
    Key::new(scope, id).ok()
}

/// The channel on which an instance is told of its grants.
pub(super) fn channel(instance: &str) -> String {
    format!("{CHANNEL_PREFIX}{instance}")
}

/// A key that is written to see whether a server takes writes, and is gone a millisecond later.
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
        assert_eq!(ring(Rule::parse("book", "5/10s").unwrap(), &key), "rl:{event:evt_1:a}:book");
        assert_eq!(key_of_lock(&lock(&key)[0]), Some(key));
        for text in ["", "lk:{event:evt_1", "lk:{event}", "lk:{event:a}:q", "lk:{event:a{b}}"] {
            assert_eq!(key_of_lock(text), None, "{text}");
        }
    }
}
