//! Several clients that book, confirm and cancel without a pause, and keep a journal of what they hear.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use serde_json::json;
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::wait::within_deadline;
use crate::{Client, ConnectionLost, Journal, Server};

/// Tells the users of one load from those of another.
static LOADS: AtomicU64 = AtomicU64::new(0);

/// Clients at work.
#[derive(Debug)]
pub struct Load {
    clients: JoinSet<Journal>,
    stop: Arc<AtomicBool>,
    acknowledged: watch::Receiver<u64>,
}

struct Worker {
    name: String,
    client: Client,
    events: Arc<[String]>,
    stop: Arc<AtomicBool>,
    acknowledged: Arc<watch::Sender<u64>>,
    journal: Journal,
}

impl Load {
    /// Sends so many clients to work on events that are theirs alone. Each works until it is stopped or
    /// its connection breaks.
    pub fn start(server: &Server, events: &[String], clients: usize) -> Self {
        let load = LOADS.fetch_add(1, Ordering::Relaxed);
        let stop = Arc::new(AtomicBool::new(false));
        let (sender, acknowledged) = watch::channel(0);
        let (sender, events) = (Arc::new(sender), Arc::<[String]>::from(events));
        let mut set = JoinSet::new();
        for number in 0..clients {
            let worker = Worker {
                name: format!("buyer-{load}-{number}"),
                client: server.service(),
                events: events.clone(),
                stop: stop.clone(),
                acknowledged: sender.clone(),
                journal: Journal::default(),
            };
            set.spawn(worker.work());
        }
        Self { clients: set, stop, acknowledged }
    }

    /// Waits until so many changes were acknowledged.
    pub async fn wait_for_acknowledged(&mut self, changes: u64) {
        let enough = self.acknowledged.wait_for(|count| *count >= changes);
        let outcome = within_deadline("the load makes progress", enough).await.map(|count| *count);
        outcome.expect("the clients are at work");
    }

    /// Changes acknowledged so far.
    pub fn acknowledged_count(&self) -> u64 {
        *self.acknowledged.borrow()
    }

    /// Has the clients stop after the request they are at; what they were told.
    pub async fn stop(self) -> Journal {
        self.stop.store(true, Ordering::Relaxed);
        self.wait_until_disconnected().await
    }

    /// Waits until every client has lost its connection; what they were told.
    pub async fn wait_until_disconnected(self) -> Journal {
        let journals = within_deadline("the clients come to an end", self.clients.join_all()).await;
        let mut all = Journal::default();
        for journal in journals {
            all.merge(journal);
        }
        all
    }
}

impl Worker {
    async fn work(mut self) -> Journal {
        let mut turn = 0;
        while !self.stop.load(Ordering::Relaxed) && self.turn(turn).await.is_ok() {
            turn += 1;
        }
        self.journal
    }

    /// One booking: left pending, paid, paid and given back, or given up unpaid.
    async fn turn(&mut self, turn: usize) -> Result<(), ConnectionLost> {
        let Some(booking) = self.book(turn).await? else { return Ok(()) };
        let mut paid = false;
        if turn % 4 == 1 || turn % 4 == 2 {
            let body = json!({"paymentTransactionId": format!("pay-{booking}")});
            paid = self.change(&booking, "confirm", &body, "confirmed").await?;
        }
        if turn % 4 == 3 || (turn % 4 == 2 && paid) {
            self.change(&booking, "cancel", &json!({}), "cancelled").await?;
        }
        Ok(())
    }

    async fn book(&mut self, turn: usize) -> Result<Option<String>, ConnectionLost> {
        let event = self.events[turn % self.events.len()].clone();
        let user = format!("{}-{turn}", self.name);
        let body = json!({"eventId": event, "ticketQuantity": 1 + turn % 2, "userId": user});
        self.journal.creating(&event);
        let answer = self.client.try_request(hyper::Method::POST, "/v1/bookings", Some(&body)).await?;
        let made = self.journal.created(&event, &answer);
        self.count(made.is_some());
        Ok(made)
    }

    async fn change(
        &mut self,
        booking: &str,
        how: &str,
        body: &serde_json::Value,
        status: &'static str,
    ) -> Result<bool, ConnectionLost> {
        let path = format!("/v1/bookings/{booking}/{how}");
        self.journal.changing(booking, status);
        let answer = self.client.try_request(hyper::Method::POST, &path, Some(body)).await?;
        let made = self.journal.changed(booking, &answer);
        self.count(made);
        Ok(made)
    }

    fn count(&self, made: bool) {
        if made {
            self.acknowledged.send_modify(|count| *count += 1);
        }
    }
}
