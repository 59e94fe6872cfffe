//! A load of several clients that book, confirm and cancel without a pause, and record the responses in a
//! journal.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use serde_json::json;
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::process::Exit;
use crate::request_bodies::{event_body, with_fields};
use crate::wait::{eventually, within_deadline};
use crate::{Client, ConnectionLost, Journal, Server};

/// Number of loads started; makes the user names of each load distinct.
static LOADS: AtomicU64 = AtomicU64::new(0);

/// Running clients.
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
    /// Starts so many clients on events that nothing else uses. Each runs until it is stopped or its
    /// connection is lost.
    pub fn start(server: &Server, events: &[String], clients: usize) -> Self {
        let load = LOADS.fetch_add(1, Ordering::Relaxed);
        let stop = Arc::new(AtomicBool::new(false));
        let (sender, acknowledged) = watch::channel(0);
        let sender = Arc::new(sender);
        let events = Arc::<[String]>::from(events);
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
            set.spawn(worker.run());
        }
        Self { clients: set, stop, acknowledged }
    }

    /// Waits until so many changes have been acknowledged.
    pub async fn wait_for_acknowledged(&mut self, changes: u64) {
        let enough = self.acknowledged.wait_for(|count| *count >= changes);
        let outcome = within_deadline("the load makes progress", enough).await.map(|count| *count);
        outcome.expect("the clients are running");
    }

    /// Number of acknowledged changes so far.
    pub fn acknowledged_count(&self) -> u64 {
        *self.acknowledged.borrow()
    }

    /// Stops the clients after their current requests; returns their journal.
    pub async fn stop(self) -> Journal {
        self.stop.store(true, Ordering::Relaxed);
        self.wait_until_disconnected().await
    }

    /// Waits until every client has lost its connection; returns their journal.
    pub async fn wait_until_disconnected(self) -> Journal {
        let journals = within_deadline("the clients end", self.clients.join_all()).await;
        let mut all = Journal::default();
        for journal in journals {
            all.merge(journal);
        }
        all
    }
}

impl Worker {
    async fn run(mut self) -> Journal {
        let mut round = 0;
        while !self.stop.load(Ordering::Relaxed) && self.run_booking(round).await.is_ok() {
            round += 1;
        }
        self.journal
    }

    /// One booking, left pending, paid, paid and cancelled, or cancelled unpaid.
    async fn run_booking(&mut self, round: usize) -> Result<(), ConnectionLost> {
        let Some(booking) = self.book(round).await? else { return Ok(()) };
        let mut paid = false;
        if round % 4 == 1 || round % 4 == 2 {
            let body = json!({"paymentTransactionId": format!("pay-{booking}")});
            paid = self.change(&booking, "confirm", &body, "confirmed").await?;
        }
        if round % 4 == 3 || (round % 4 == 2 && paid) {
            self.change(&booking, "cancel", &json!({}), "cancelled").await?;
        }
        Ok(())
    }

    async fn book(&mut self, round: usize) -> Result<Option<String>, ConnectionLost> {
        let event = self.events[round % self.events.len()].clone();
        let user = format!("{}-{round}", self.name);
        let body = json!({"eventId": event, "ticketQuantity": 1 + round % 2, "userId": user});
        self.journal.record_create_request(&event);
        let response = self.client.try_request(hyper::Method::POST, "/v1/bookings", Some(&body)).await?;
        let booking = self.journal.record_create_response(&event, &response);
        self.count(booking.is_some());
        Ok(booking)
    }

    async fn change(
        &mut self,
        booking: &str,
        action: &str,
        body: &serde_json::Value,
        status: &'static str,
    ) -> Result<bool, ConnectionLost> {
        let path = format!("/v1/bookings/{booking}/{action}");
        self.journal.record_change_request(booking, status);
        let response = self.client.try_request(hyper::Method::POST, &path, Some(body)).await?;
        let is_done = self.journal.record_change_response(booking, &response);
        self.count(is_done);
        Ok(is_done)
    }

    fn count(&self, is_done: bool) {
        if is_done {
            self.acknowledged.send_modify(|count| *count += 1);
        }
    }
}

/// Checks that the server sells tickets, frees an overdue hold, and stops under load, as with a working log.
/// The server must sweep more often than once a second.
pub async fn expect_service_and_stop(mut server: Server) {
    let mut admin = server.admin();
    let short_hold = with_fields(event_body(10), &json!({"holdSeconds": 1}));
    let short_hold = admin.create_event(&short_hold).await;
    admin.book_for("ada", &short_hold, 2).await.expect(201);
    eventually("the overdue hold is freed", async || {
        (admin.counts(&short_hold).await == (0, 0, 10)).then_some(())
    })
    .await;
    let event = admin.create_event(&event_body(1_000_000)).await;
    let mut load = Load::start(&server, std::slice::from_ref(&event), 8);
    load.wait_for_acknowledged(600).await;
    admin.get("/livez").await.expect(200);
    server.terminate();
    let journal = load.wait_until_disconnected().await;
    assert!(journal.codes().is_empty(), "a response was a fault: {:?}", journal.codes());
    assert_eq!(server.wait_for_exit().await, Exit::Code(0));
    server.expect_clean().await;
}
