//! The key of a lock or of a rate limit.

use std::fmt;
use std::sync::Arc;

use crate::limit::{ID_BYTES_MAX, SCOPE_BYTES_MAX};

/// A scope and an id, shown as `scope:id`, e.g. `event:evt_01h455vb4pex5vsknk084sn02q`.
///
/// Invariants: the scope is 1 to 32 characters of `a–z 0–9 _`, the id 1 to 128 of `A–Z a–z 0–9 . _ : @ -`.
/// Therefore the first colon always ends the scope, two different keys never have the same text, and no key
/// contains a character that is special to the store it is sent to (braces, wildcards, white space, control
/// characters). Cloning is cheap.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Key {
    text: Arc<str>,
}

impl Key {
    /// A key of a valid scope and id.
    ///
    /// [`InvalidKey`] identifies the part that is empty, too long or contains a character outside its set.
    pub fn new(scope: &str, id: &str) -> Result<Self, InvalidKey> {
        let scope_fits = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_';
        let id_fits = |byte: u8| byte.is_ascii_alphanumeric() || b"._:@-".contains(&byte);
        if !(1..=SCOPE_BYTES_MAX).contains(&scope.len()) || !scope.bytes().all(scope_fits) {
            return Err(InvalidKey::Scope);
        }
        if !(1..=ID_BYTES_MAX).contains(&id.len()) || !id.bytes().all(id_fits) {
            return Err(InvalidKey::Id);
        }
        Ok(Self { text: format!("{scope}:{id}").into() })
    }

    /// The whole key, `scope:id`.
    pub fn as_str(&self) -> &str {
        &self.text
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Key({})", self.text)
    }
}

/// An invalid part of a [`Key`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum InvalidKey {
    /// The scope is empty, too long or contains a character outside `a–z 0–9 _`.
    #[error("a key's scope is 1 to 32 characters of a-z, 0-9 and _")]
    Scope,
    /// The id is empty, too long or contains a character outside `A–Z a–z 0–9 . _ : @ -`.
    #[error("a key's id is 1 to 128 characters of A-Z, a-z, 0-9 and . _ : @ -")]
    Id,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_shows_its_scope_and_id() {
        let key = Key::new("event", "evt_01").unwrap();
        assert_eq!(
            (key.to_string().as_str(), format!("{key:?}").as_str()),
            ("event:evt_01", "Key(event:evt_01)")
        );
    }

    #[test]
    fn keys_with_special_characters_are_rejected() {
        for scope in ["", "Event", "a:b", "a{", "a b", "ä", &"a".repeat(33)] {
            assert_eq!(Key::new(scope, "1"), Err(InvalidKey::Scope), "{scope:?}");
        }
        for id in ["", "{1}", "a*", "a b", "a\r\n", "a\0", "ä", "a>b", "a/b", &"a".repeat(129)] {
            assert_eq!(Key::new("user", id), Err(InvalidKey::Id), "{id:?}");
        }
        assert!(Key::new(&"a".repeat(32), &"a".repeat(128)).is_ok());
    }

    #[test]
    fn a_colon_in_an_id_never_makes_two_keys_equal() {
        assert_ne!(Key::new("a", "b:c").unwrap(), Key::new("a", "b").unwrap());
        assert_eq!(Key::new("a:b", "c"), Err(InvalidKey::Scope));
    }
}
