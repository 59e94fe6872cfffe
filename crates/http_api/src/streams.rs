//! The limits on the number of open availability streams.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};

use crate::limit::{STREAMS_MAX, STREAMS_PER_ADDRESS_MAX};

/// The number of open streams, in total and per address.
#[derive(Default)]
pub struct Streams(Mutex<StreamCounts>);

#[derive(Default)]
struct StreamCounts {
    total: usize,
    per_address: HashMap<IpAddr, usize>,
}

/// Counts as one open stream of an address until it is dropped.
pub(crate) struct StreamPermit {
    streams: Arc<Streams>,
    address: IpAddr,
}

impl Streams {
    /// The number of open streams.
    pub(crate) fn count(&self) -> usize {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).total
    }

    /// A permit for a stream; `None` if the total or the address has reached its limit.
    pub(crate) fn acquire(self: &Arc<Self>, address: IpAddr) -> Option<StreamPermit> {
        let mut counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let of_address = counts.per_address.get(&address).copied().unwrap_or(0);
        let is_at_limit = of_address >= STREAMS_PER_ADDRESS_MAX && !address.is_loopback();
        if is_at_limit || counts.total >= STREAMS_MAX {
            return None;
        }
        counts.total += 1;
        counts.per_address.insert(address, of_address + 1);
        Some(StreamPermit { streams: self.clone(), address })
    }
}

impl Drop for StreamPermit {
    fn drop(&mut self) {
        let mut counts = self.streams.0.lock().unwrap_or_else(PoisonError::into_inner);
        counts.total = counts.total.saturating_sub(1);
        let left = counts.per_address.get(&self.address).map_or(0, |count| count.saturating_sub(1));
        if left == 0 {
            counts.per_address.remove(&self.address);
        } else {
            counts.per_address.insert(self.address, left);
        }
    }
}
