//! The operations of clients and their weights.

use std::fmt;

use fastrand::Rng;

/// An operation of a client.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Step {
    /// Books one ticket.
    Book,
    /// Reports the payment of the oldest open booking of this client.
    Confirm,
    /// Cancels that booking.
    Cancel,
    /// Forgets that booking, so that it expires.
    Leave,
    /// Reads the availability of an event.
    ReadAvailability,
}

impl Step {
    const ALL: [(Self, &'static str); 5] = [
        (Self::Book, "book"),
        (Self::Confirm, "confirm"),
        (Self::Cancel, "cancel"),
        (Self::Leave, "leave"),
        (Self::ReadAvailability, "availability"),
    ];

    /// Returns the name on the command line and in reports.
    pub(crate) fn name(self) -> &'static str {
        Self::ALL.iter().find(|(step, _)| *step == self).map_or("", |(_, name)| name)
    }
}

/// The weights of the operations: `book=10,confirm=7,cancel=2,leave=1`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mix(Vec<(Step, u32)>);

impl Mix {
    /// Each operation with its weight, at least 1. There is at least one operation, and none is repeated.
    pub fn new(weights: Vec<(Step, u32)>) -> Self {
        Self(weights)
    }

    /// Draws the next operation.
    pub(crate) fn draw(&self, rng: &mut Rng) -> Step {
        let mut left = rng.u32(0..self.0.iter().map(|(_, weight)| weight).sum());
        for (step, weight) in &self.0 {
            match left.checked_sub(*weight) {
                Some(rest) => left = rest,
                None => return *step,
            }
        }
        unreachable!("the number drawn is below the sum of the weights")
    }

    /// Returns true if later operations use the bookings, so that clients must remember them.
    pub(crate) fn uses_bookings(&self) -> bool {
        self.0.iter().any(|(step, _)| matches!(step, Step::Confirm | Step::Cancel | Step::Leave))
    }
}

impl fmt::Display for Mix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, (step, weight)) in self.0.iter().enumerate() {
            let comma = if index == 0 { "" } else { "," };
            write!(f, "{comma}{}={weight}", step.name())?;
        }
        Ok(())
    }
}

/// The popularity of events: event k, counted from 1, is drawn with a weight of 1 / k^exponent. 0 is uniform.
pub(crate) struct Popularity(Vec<f64>);

impl Popularity {
    pub(crate) fn new(events: usize, exponent: f64) -> Self {
        let mut sum = 0.0;
        let weights = (1..=u32::try_from(events).unwrap_or(u32::MAX)).map(|rank| {
            sum += f64::from(rank).powf(-exponent);
            sum
        });
        Self(weights.collect())
    }

    pub(crate) fn draw(&self, rng: &mut Rng) -> usize {
        let sum = self.0.last().copied().unwrap_or_default();
        let point = rng.f64() * sum;
        self.0.partition_point(|reached| *reached <= point).min(self.0.len().saturating_sub(1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn operations_are_drawn_by_their_weights() {
        let mix = Mix::new(vec![(Step::Book, 6), (Step::Confirm, 3), (Step::ReadAvailability, 1)]);
        assert_eq!(mix.to_string(), "book=6,confirm=3,availability=1");
        assert!(mix.uses_bookings() && !Mix::new(vec![(Step::Book, 1)]).uses_bookings());
        let mut rng = Rng::with_seed(1);
        let drawn: Vec<Step> = (0..10_000).map(|_| mix.draw(&mut rng)).collect();
        let count = |step| drawn.iter().filter(|one| **one == step).count();
        for (step, tenths) in [(Step::Book, 6), (Step::Confirm, 3), (Step::ReadAvailability, 1)] {
            assert!(count(step).abs_diff(tenths * 1_000) < 200, "{step:?}: {}", count(step));
        }
    }

    #[test]
    fn event_popularity_follows_zipfs_law() {
        let drawn = |exponent: f64| {
            let (popularity, mut rng) = (Popularity::new(4, exponent), Rng::with_seed(2));
            let mut counts = [0_usize; 4];
            for _ in 0..10_000 {
                counts[popularity.draw(&mut rng)] += 1;
            }
            counts
        };
        assert!(drawn(0.0).iter().all(|count| count.abs_diff(2_500) < 300), "{:?}", drawn(0.0));
        // 1 + 1/2 + 1/3 + 1/4 = 25/12
        let zipf = drawn(1.0);
        for (count, expected) in zipf.into_iter().zip([4_800, 2_400, 1_600, 1_200]) {
            assert!(count.abs_diff(expected) < 300, "{zipf:?}");
        }
    }
}
