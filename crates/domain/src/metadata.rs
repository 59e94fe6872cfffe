//! The metadata of a booking: texts that its caller wants to find again with it.

use std::collections::BTreeMap;

use crate::limit::{METADATA_KEY_CHARS_MAX, METADATA_KEYS_MAX, METADATA_VALUE_BYTES_MAX};

/// Up to [`METADATA_KEYS_MAX`] texts by key. No rule reads them, and the ledger does not contain them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Metadata(BTreeMap<Box<str>, Box<str>>);

/// The reason why metadata is invalid. The messages do not quote the input.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MetadataError {
    /// Too many keys.
    #[error("must have at most {METADATA_KEYS_MAX} keys")]
    Keys,
    /// A key occurs twice.
    #[error("must not have a key twice")]
    Duplicate,
    /// A key is empty, too long, or contains a control character.
    #[error("must have keys of 1 to {METADATA_KEY_CHARS_MAX} characters without control characters")]
    Key,
    /// A value is too long, or contains a control character other than a tab or a line break.
    #[error(
        "must have values of at most {METADATA_VALUE_BYTES_MAX} bytes without control characters other than \
         tabs and line breaks"
    )]
    Value,
}

impl Metadata {
    /// Metadata with these keys and values.
    pub fn new(
        pairs: impl IntoIterator<Item = (impl Into<Box<str>>, impl Into<Box<str>>)>,
    ) -> Result<Self, MetadataError> {
        let mut metadata = BTreeMap::new();
        for (key, value) in pairs {
            let (key, value): (Box<str>, Box<str>) = (key.into(), value.into());
            let is_key = (1..=METADATA_KEY_CHARS_MAX).contains(&key.chars().count());
            if !is_key || key.contains(char::is_control) {
                return Err(MetadataError::Key);
            }
            let is_control = |character: char| character.is_control() && !"\t\n\r".contains(character);
            if value.len() > METADATA_VALUE_BYTES_MAX || value.contains(is_control) {
                return Err(MetadataError::Value);
            }
            if metadata.insert(key, value).is_some() {
                return Err(MetadataError::Duplicate);
            }
            if metadata.len() > METADATA_KEYS_MAX {
                return Err(MetadataError::Keys);
            }
        }
        Ok(Self(metadata))
    }

    /// True if there is no key.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The keys with their values, in the order of the keys.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(key, value)| (&**key, &**value))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metadata_is_bounded() {
        let pairs = |count: usize| (0..count).map(|number| (number.to_string(), "value"));
        let most = Metadata::new(pairs(20)).unwrap();
        assert_eq!((most.iter().count(), most.is_empty()), (20, false));
        assert!(Metadata::new(pairs(0)).unwrap().is_empty());
        assert_eq!(Metadata::new(pairs(21)), Err(MetadataError::Keys));
        assert_eq!(Metadata::new([("a", "1"), ("a", "1")]), Err(MetadataError::Duplicate));
        let (longest, too_long) = ("ß".repeat(100), "k".repeat(101));
        assert!(Metadata::new([(longest.as_str(), "")]).is_ok());
        for key in ["", "a\nb", too_long.as_str()] {
            assert_eq!(Metadata::new([(key, "value")]), Err(MetadataError::Key), "{key}");
        }
        assert!(Metadata::new([("key", "v".repeat(500))]).is_ok());
        assert_eq!(Metadata::new([("key", "ß".repeat(251))]), Err(MetadataError::Value));
        assert!(Metadata::new([("key", "two\r\n\tlines")]).is_ok());
        for value in ["\0", "\u{1b}[0m", "\u{85}"] {
            assert_eq!(Metadata::new([("key", value)]), Err(MetadataError::Value));
        }
    }
}
