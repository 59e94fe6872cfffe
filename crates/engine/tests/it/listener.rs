//! Notifications of the commit listener.

use std::sync::{Arc, Mutex};

use domain::{Actor, CapturedPayment, EventId, Refusal};
use engine::{Caller, CommitListener, Engine, Error, Ports};

use crate::fixture::{as_user, book, event_in, start, user};

/// Records the events of all notifications.
#[derive(Default)]
struct Recorder(Mutex<Vec<EventId>>);

impl CommitListener for Recorder {
    fn ledgers_advanced(&self, events: &[EventId]) {
        self.0.lock().expect("no panic").extend(events);
    }
}

#[tokio::test(start_paused = true)]
async fn a_refusal_notifies_the_listener_if_it_records_a_refund() {
    let (template, ports) = start(0);
    let recorder = Arc::new(Recorder::default());
    let engine = Engine::start(Ports { commit_listener: recorder.clone(), ..ports }, *template.policy());
    let notified = || std::mem::take(&mut *recorder.0.lock().unwrap());
    let event = event_in(&engine, 3_600).await;
    let booking = book(&engine, "ada", &event, 2).await;
    let service = Caller { actor: Actor::Service(user("gateway")), ..as_user("gateway") };
    engine.cancel(service.clone(), booking.id, None, None).await.outcome.unwrap();
    assert_eq!(notified(), [event.id; 3], "an event, a booking and a cancellation");

    let again = engine.cancel(service.clone(), booking.id, None, None).await.outcome;
    assert!(matches!(again, Err(Error::Refused(refusal)) if refusal.refund().is_none()));
    assert_eq!(notified(), [], "nothing was written");

    let payment = CapturedPayment { transaction: "pay-1".parse().unwrap(), amount: None };
    let late = engine.confirm(service, booking.id, payment, None).await;
    assert!(
        matches!(&late, Err(Error::Refused(refusal)) if matches!(**refusal, Refusal::InvalidState { .. })),
        "{late:?}"
    );
    assert_eq!(notified(), [event.id], "the refund is in the ledger");
}
