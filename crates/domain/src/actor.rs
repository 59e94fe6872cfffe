//! The actors on whose behalf changes are made.

use std::fmt;
use std::str::FromStr;

use crate::UserId;

/// The actor on whose behalf a change is made. Written as `user:buyer-1`, `service:gateway`, `admin:alice` or
/// `system`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Actor {
    /// A buyer, subject to ownership, limits and cut-offs.
    User(UserId),
    /// A trusted program, such as the receiver of payment webhooks.
    Service(UserId),
    /// An organiser or operator.
    Admin(UserId),
    /// The program itself, for clean-up. No rule for users applies.
    System,
}

impl fmt::Display for Actor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::User(id) => write!(f, "user:{id}"),
            Self::Service(id) => write!(f, "service:{id}"),
            Self::Admin(id) => write!(f, "admin:{id}"),
            Self::System => f.write_str("system"),
        }
    }
}

impl FromStr for Actor {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let invalid = "must be user:…, service:…, admin:… or system";
        let Some((role, id)) = text.split_once(':') else {
            return if text == "system" { Ok(Self::System) } else { Err(invalid) };
        };
        let id: UserId = id.parse().map_err(|_| invalid)?;
        match role {
            "user" => Ok(Self::User(id)),
            "service" => Ok(Self::Service(id)),
            "admin" => Ok(Self::Admin(id)),
            _ => Err(invalid),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_actor_is_written_and_parsed_with_its_role() {
        let id: UserId = "a:b".parse().unwrap();
        for (actor, text) in [
            (Actor::User(id.clone()), "user:a:b"),
            (Actor::Service(id.clone()), "service:a:b"),
            (Actor::Admin(id), "admin:a:b"),
            (Actor::System, "system"),
        ] {
            assert_eq!(actor.to_string(), text);
            assert_eq!(text.parse(), Ok(actor));
        }
        for text in ["", "user", "root:a", "system:a", "user:", ":a", "User:a", "SYSTEM"] {
            assert!(text.parse::<Actor>().is_err(), "{text}");
        }
    }
}
