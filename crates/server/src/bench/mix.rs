//! What the clients do, and how often.

use std::fmt;
use std::str::FromStr;

use fastrand::Rng;

/// One thing that a client does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Step {
    /// Books one ticket.
    Book,
    /// Reports the payment of the oldest booking that this client has not settled yet.
    Confirm,
    /// Gives that booking up.
    Cancel,
    /// Leaves that booking alone for good: it expires.
    Leave,
    /// Asks how many tickets are left.
    Look,
}

impl Step {
    const ALL: [(Self, &'static str); 5] = [
        (Self::Book, "book"),
        (Self::Confirm, "confirm"),
        (Self::Cancel, "cancel"),
        (Self::Leave, "leave"),
        (Self::Look, "availability"),
    ];

    /// Its name on the command line and in reports.
    pub(crate) fn name(self) -> &'static str {
        Self::ALL.iter().find(|(step, _)| *step == self).map_or("", |(_, name)| name)
    }
}

/// How often each step is taken, in parts: `book=10,confirm=7,cancel=2,leave=1`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Mix(Vec<(Step, u32)>);

/// Most parts of one step.
const PARTS_MAX: u32 = 1_000;

impl Mix {
    /// The next step.
    pub(super) fn draw(&self, rng: &mut Rng) -> Step {
        let mut left = rng.u32(0..self.0.iter().map(|(_, parts)| parts).sum());
        for (step, parts) in &self.0 {
            match left.checked_sub(*parts) {
                Some(rest) => left = rest,
                None => return *step,
            }
        }
        unreachable!("less was drawn than there are parts")
    }

    /// Whether bookings are settled after they were made, so that clients have to remember them.
    pub(super) fn settles(&self) -> bool {
        self.0.iter().any(|(step, _)| matches!(step, Step::Confirm | Step::Cancel | Step::Leave))
    }
}

impl FromStr for Mix {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let mut mix: Vec<(Step, u32)> = Vec::new();
        for part in text.split(',') {
            let (name, parts) = part.split_once('=').unwrap_or((part, "1"));
            let step = Step::ALL.iter().find(|(_, known)| *known == name).map(|(step, _)| *step);
            let step = step.ok_or_else(|| {
                format!("there is no step {name:?}; there are book, confirm, cancel, leave and availability")
            })?;
            let parts = parts.parse().ok().filter(|parts| (1..=PARTS_MAX).contains(parts));
            let parts = parts.ok_or_else(|| format!("the parts of {name} are from 1 to {PARTS_MAX}"))?;
            if mix.iter().any(|(known, _)| *known == step) {
                return Err(format!("{name} stands there twice"));
            }
            mix.push((step, parts));
        }
        Ok(Self(mix))
    }
}

impl fmt::Display for Mix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (place, (step, parts)) in self.0.iter().enumerate() {
            let comma = if place == 0 { "" } else { "," };
            write!(f, "{comma}{}={parts}", step.name())?;
        }
        Ok(())
    }
}

/// Which event is wanted: event k, from 1, as often as 1 / k^exponent says. 0 is evenly.
pub(super) struct Popularity(Vec<f64>);

impl Popularity {
    pub(super) fn new(events: usize, exponent: f64) -> Self {
        let mut sum = 0.0;
        let weights = (1..=u32::try_from(events).unwrap_or(u32::MAX)).map(|rank| {
            sum += f64::from(rank).powf(-exponent);
            sum
        });
        Self(weights.collect())
    }

    pub(super) fn draw(&self, rng: &mut Rng) -> usize {
        let sum = self.0.last().copied().unwrap_or_default();
        let point = rng.f64() * sum;
        self.0.partition_point(|reached| *reached <= point).min(self.0.len().saturating_sub(1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mix_is_parsed_and_drawn_by_its_weights() {
        let mix: Mix = "book=6,confirm=3,availability".parse().unwrap();
        assert_eq!(mix.to_string(), "book=6,confirm=3,availability=1");
        assert!(mix.settles() && !"book".parse::<Mix>().unwrap().settles());
        let mut rng = Rng::with_seed(1);
        let drawn: Vec<Step> = (0..10_000).map(|_| mix.draw(&mut rng)).collect();
        let count = |step| drawn.iter().filter(|one| **one == step).count();
        for (step, tenths) in [(Step::Book, 6), (Step::Confirm, 3), (Step::Look, 1)] {
            assert!(count(step).abs_diff(tenths * 1_000) < 200, "{step:?}: {}", count(step));
        }
        for wrong in ["", "sell", "book=0", "book=1001", "book,book", "book=x"] {
            assert!(wrong.parse::<Mix>().is_err(), "{wrong:?}");
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
