//! The load to generate.

use std::net::SocketAddr;
use std::time::Duration;

use crate::client::Client;
use crate::mix::Mix;

/// The load to generate.
pub struct Load {
    /// The servers; connections are spread evenly over them.
    pub targets: Vec<SocketAddr>,
    /// The tokens of the clients.
    pub callers: Callers,
    /// The time of the next request.
    pub pace: Pace,
    /// Number of connections, over all targets.
    pub connections: usize,
    /// Duration of the measurement, which starts after `warm_up`.
    pub duration: Duration,
    /// Time before the measurement.
    pub warm_up: Duration,
    /// Number of events, created for this run.
    pub events: usize,
    /// Zipf exponent of event popularity: event k, counted from 1, has a weight of 1 / k^exponent.
    pub zipf: f64,
    /// Tickets per event.
    pub capacity: u32,
    /// Time in which bookings must be paid.
    pub hold: Duration,
    /// Number of users; `None`: each booking has a new user.
    pub users: Option<u64>,
    /// The operations and their weights.
    pub mix: Mix,
    /// The seed of the operations.
    pub seed: u64,
    /// Processes whose CPU time is reported.
    pub pids: Vec<u32>,
    /// The start of the events, as RFC 3339.
    pub starts_at: String,
}

/// The tokens of the clients.
pub struct Callers {
    /// Books, confirms and cancels for all users.
    pub service: String,
    /// Creates events and reads counters.
    pub admin: String,
}

/// The time of the next request.
#[derive(Clone, Copy, Debug)]
pub enum Pace {
    /// Closed loop: after the response to the previous one of the connection. Slow responses mean fewer
    /// requests.
    Closed,
    /// Open loop: on a schedule, independent of responses. Latency counts from the scheduled instant, so that
    /// the requests that a stalled server delays count, too (no coordinated omission).
    Open {
        /// Requests per second, over all connections; at least 1.
        per_second: u32,
    },
}

impl Load {
    /// Returns a client with the admin token for one of the targets.
    pub(crate) fn admin(&self, number: usize) -> Result<Client, String> {
        Client::new(self.targets[number % self.targets.len()], &self.callers.admin)
    }
}
