//! The operations of `bench` and their weights: `book=10,confirm=7,cancel=2,leave=1`.

use std::str::FromStr;

use crate::limit::BENCH_WEIGHT_MAX;

/// An operation of a client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Operation {
    Book,
    Confirm,
    Cancel,
    Leave,
    ReadAvailability,
}

/// Operations with their weights: at least one operation, and none repeated.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct OperationWeights(pub(crate) Vec<(Operation, u32)>);

impl FromStr for OperationWeights {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let mut all: Vec<(Operation, u32)> = Vec::new();
        for part in text.split(',') {
            let (name, weight) = part.split_once('=').unwrap_or((part, "1"));
            let operation = operation(name).ok_or_else(|| {
                format!("unknown operation {name:?}: must be book, confirm, cancel, leave or availability")
            })?;
            let weight = weight.parse().ok().filter(|weight| (1..=BENCH_WEIGHT_MAX).contains(weight));
            let weight =
                weight.ok_or_else(|| format!("the weight of {name} must be from 1 to {BENCH_WEIGHT_MAX}"))?;
            if all.iter().any(|(known, _)| *known == operation) {
                return Err(format!("{name} is repeated"));
            }
            all.push((operation, weight));
        }
        Ok(Self(all))
    }
}

fn operation(name: &str) -> Option<Operation> {
    Some(match name {
        "book" => Operation::Book,
        "confirm" => Operation::Confirm,
        "cancel" => Operation::Cancel,
        "leave" => Operation::Leave,
        "availability" => Operation::ReadAvailability,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn operations_are_parsed_with_their_weights() {
        let weights: OperationWeights = "book=6,confirm=3,availability".parse().unwrap();
        let expected = [(Operation::Book, 6), (Operation::Confirm, 3), (Operation::ReadAvailability, 1)];
        assert_eq!(weights.0, expected);
        for invalid in ["", "sell", "book=0", "book=1001", "book,book", "book=x"] {
            assert!(invalid.parse::<OperationWeights>().is_err(), "{invalid:?}");
        }
    }
}
