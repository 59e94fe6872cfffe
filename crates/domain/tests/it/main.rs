//! The rules of booking, held against the contract. Nothing here does I/O but the one test that
//! compares `docs/booking-states.md` with what the rules do; time, ids and luck are all made up.

#[cfg(test)]
mod audit;
#[cfg(test)]
mod edits;
#[cfg(test)]
mod fixture;
#[cfg(test)]
mod histories;
#[cfg(test)]
mod invariants;
#[cfg(test)]
mod matrix;
#[cfg(test)]
mod model;
#[cfg(test)]
mod page;
#[cfg(test)]
mod properties;
#[cfg(test)]
mod refunds;
#[cfg(test)]
mod rules;
#[cfg(test)]
mod world;
