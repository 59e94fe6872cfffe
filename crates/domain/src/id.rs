//! Ids: UUIDv7 inside (RFC 9562 §5.7), TypeID outside (TypeID specification 0.3).
//!
//! An id of one kind is never accepted as an id of another: the compiler and the prefix ensure it. An id
//! contains the time of its creation and is therefore never a secret.

use std::fmt;
use std::str::FromStr;

use uuid::Uuid;

/// A source of randomness: it supplies the random part of every new id.
pub trait Ids: Send + Sync {
    /// Returns ten fresh random bytes, drawn for each id and never derived from the previous ones.
    fn random(&self) -> [u8; 10];
}

/// The reason why a text is not an id of the expected kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum IdError {
    /// The text does not start with the kind's prefix and an underscore.
    #[error("must begin with \"{0}_\"")]
    Prefix(&'static str),
    /// The part after the prefix is not 26 characters of the TypeID alphabet that encode 128 bits.
    #[error("must end in 26 characters of 0-9 and a-z without i, l, o, u, the first at most 7")]
    Suffix,
}

/// Crockford's alphabet in lower case, as the TypeID specification requires.
const ALPHABET: &[u8; 32] = b"0123456789abcdefghjkmnpqrstvwxyz";
const SUFFIX_LEN: usize = 26;

/// The five bits that each byte of the alphabet encodes; `None` for every other byte.
const VALUES: [Option<u8>; 256] = {
    let mut values = [None; 256];
    let mut value = 0;
    while value < 32 {
        values[ALPHABET[value as usize] as usize] = Some(value);
        value += 1;
    }
    values
};

fn encode(id: Uuid) -> [u8; SUFFIX_LEN] {
    let mut rest = id.as_u128();
    let mut suffix = [b'0'; SUFFIX_LEN];
    for digit in suffix.iter_mut().rev() {
        *digit = ALPHABET[(rest & 31) as usize];
        rest >>= 5;
    }
    suffix
}

fn decode(suffix: &str) -> Result<Uuid, IdError> {
    let bytes = suffix.as_bytes();
    // 26 characters encode 130 bits, so the first may use only three of its five.
    if bytes.len() != SUFFIX_LEN || bytes[0] > b'7' {
        return Err(IdError::Suffix);
    }
    let mut value: u128 = 0;
    for byte in bytes {
        let bits = VALUES[usize::from(*byte)].ok_or(IdError::Suffix)?;
        value = (value << 5) | u128::from(bits);
    }
    Ok(Uuid::from_u128(value))
}

macro_rules! ids {
    ($($(#[$doc:meta])* $kind:ident = $prefix:literal;)*) => {$(
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $kind(Uuid);

        impl $kind {
            /// The prefix of every id of this kind, without the underscore.
            pub const PREFIX: &'static str = $prefix;

            /// Creates an id from the time `now` and ten fresh random bytes of an [`Ids`].
            pub fn new(now: super::Timestamp, random: [u8; 10]) -> Self {
                let millis = u64::try_from(now.micros() / 1_000).unwrap_or(0);
                Self(uuid::Builder::from_unix_timestamp_millis(millis, &random).into_uuid())
            }

            /// Creates an id from its form in databases.
            pub fn from_bytes(bytes: [u8; 16]) -> Self {
                Self(Uuid::from_bytes(bytes))
            }

            /// The id's form in databases; sorts by creation time.
            pub fn bytes(&self) -> &[u8; 16] {
                self.0.as_bytes()
            }
        }

        impl fmt::Display for $kind {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                let suffix = encode(self.0);
                write!(f, concat!($prefix, "_{}"), std::str::from_utf8(&suffix).map_err(|_| fmt::Error)?)
            }
        }

        impl fmt::Debug for $kind {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(self, f)
            }
        }

        impl FromStr for $kind {
            type Err = IdError;
            fn from_str(text: &str) -> Result<Self, IdError> {
                let suffix = text.strip_prefix(concat!($prefix, "_")).ok_or(IdError::Prefix($prefix))?;
                decode(suffix).map(Self)
            }
        }

        impl serde::Serialize for $kind {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> serde::Deserialize<'de> for $kind {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
                text.parse().map_err(serde::de::Error::custom)
            }
        }
    )*};
}

ids! {
    /// An event: `evt_…`.
    EventId = "evt";
    /// A ticket type of an event: `tt_…`.
    TicketTypeId = "tt";
    /// A booking: `bkg_…`.
    BookingId = "bkg";
    /// A refund: `rfd_…`.
    RefundId = "rfd";
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Timestamp;

    /// The valid vectors of the TypeID specification, without their prefixes.
    #[test]
    fn agrees_with_the_published_vectors() {
        let check = |suffix: &str, uuid: &str| {
            let id = Uuid::parse_str(uuid).unwrap();
            assert_eq!(decode(suffix), Ok(id));
            assert_eq!(std::str::from_utf8(&encode(id)).unwrap(), suffix);
        };
        check("00000000000000000000000000", "00000000-0000-0000-0000-000000000000");
        check("00000000000000000000000001", "00000000-0000-0000-0000-000000000001");
        check("0000000000000000000000000a", "00000000-0000-0000-0000-00000000000a");
        check("0000000000000000000000000g", "00000000-0000-0000-0000-000000000010");
        check("00000000000000000000000010", "00000000-0000-0000-0000-000000000020");
        check("7zzzzzzzzzzzzzzzzzzzzzzzzz", "ffffffff-ffff-ffff-ffff-ffffffffffff");
        check("0123456789abcdefghjkmnpqrs", "0110c853-1d09-52d8-d73e-1194e95b5f19");
        check("01h455vb4pex5vsknk084sn02q", "01890a5d-ac96-774b-bcce-b302099a8057");
    }

    /// The invalid vectors of the TypeID specification that concern the suffix or a wrong prefix.
    #[test]
    fn refuses_the_published_invalid_vectors() {
        for (text, error) in [
            ("PREFIX_00000000000000000000000000", IdError::Prefix("bkg")),
            ("12345_00000000000000000000000000", IdError::Prefix("bkg")),
            ("_00000000000000000000000000", IdError::Prefix("bkg")),
            ("", IdError::Prefix("bkg")),
            ("bkg_", IdError::Suffix),
            ("bkg__00000000000000000000000000", IdError::Suffix),
            ("bkg_1234567890123456789012345", IdError::Suffix),
            ("bkg_123456789012345678901234567", IdError::Suffix),
            ("bkg_1234567890123456789012345 ", IdError::Suffix),
            ("bkg_0123456789ABCDEFGHJKMNPQRS", IdError::Suffix),
            ("bkg_123456789-123456789-123456", IdError::Suffix),
            ("bkg_ooooooiiiiiiuuuuuuulllllll", IdError::Suffix),
            ("bkg_i23456789ol23456789oi23456", IdError::Suffix),
            ("bkg_123456789-0123456789-01234", IdError::Suffix),
            ("bkg_8zzzzzzzzzzzzzzzzzzzzzzzzz", IdError::Suffix),
            ("bkg_0000000000000000000000000é", IdError::Suffix),
        ] {
            assert_eq!(text.parse::<BookingId>(), Err(error), "{text}");
        }
    }

    #[test]
    fn an_id_of_one_kind_does_not_parse_as_another() {
        let id = EventId::new(Timestamp::from_micros(1_700_000_000_000_000).unwrap(), [7; 10]);
        assert!(id.to_string().parse::<BookingId>().is_err());
        assert_eq!(id.to_string().parse::<EventId>(), Ok(id));
    }

    #[test]
    fn new_ids_are_version_7_and_sort_by_time() {
        let at = |micros| BookingId::new(Timestamp::from_micros(micros).unwrap(), [0xff; 10]);
        assert!(at(1_700_000_000_000_000) < at(1_700_000_000_001_000));
        assert_eq!(at(1_700_000_000_000_000).0.get_version_num(), 7);
    }
}
