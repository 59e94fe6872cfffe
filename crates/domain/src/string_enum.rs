//! Enums whose values are words in JSON and in the database. The words of an enum stand beside its variants,
//! once.

macro_rules! string_enum {
    (@error ($text:literal) $($word:literal)*) => { $text };
    (@error () $($word:literal)*) => { concat!("must be one of" $(, " ", $word)*) };
    ($($(#[$doc:meta])* $name:ident $(($error:literal))? {
        $($(#[$each:meta])* $variant:ident = $word:literal,)*
    })*) => {$(
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum $name { $($(#[$each])* $variant,)* }

        impl $name {
            /// All values.
            pub const ALL: &[Self] = &[$(Self::$variant,)*];

            /// The value in JSON and in the database.
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $word,)* }
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(self.as_str())
            }
        }

        impl std::str::FromStr for $name {
            type Err = &'static str;

            fn from_str(word: &str) -> Result<Self, Self::Err> {
                match word {
                    $($word => Ok(Self::$variant),)*
                    _ => Err(string_enum!(@error ($($error)?) $($word)*)),
                }
            }
        }
    )*};
}
pub(crate) use string_enum;
