//! What stands when the rules forget to look whether tickets are left, and what is found when the database
//! has forgotten it, too. A process of its own: what is taken away stays away.

mod on_postgres;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use domain::{Clock, EventId, Timestamp, sabotage};
use store::conformance::Rig;
use store::conformance::stage::Stage;
use store::{Sqlite, SqliteOptions, Store};

struct Noon;

impl Clock for Noon {
    fn now(&self) -> Timestamp {
        "2027-01-15T12:00:00Z".parse().expect("an instant")
    }
}

struct Memory(Arc<Sqlite>);

impl Memory {
    fn new() -> Self {
        let options = SqliteOptions { clock: Arc::new(Noon), inline: true };
        Self(Arc::new(Sqlite::in_memory(&options).expect("a store")))
    }
}

#[async_trait]
impl Rig for Memory {
    fn store(&self) -> Arc<dyn Store> {
        self.0.clone()
    }

    async fn advance(&self, _by: Duration) {
        unreachable!("time stands still here");
    }

    async fn tamper(&self, _sql: &str, _event: EventId) -> bool {
        false
    }
}

#[tokio::test]
async fn the_database_guards_what_the_rules_forget_and_the_audit_what_both_forget() {
    sabotage::remove("capacity");
    let rig = Memory::new();
    let stage = Stage::new(&rig);
    let mut new = stage.concert(10);
    new.ticket_types = vec![stage.ticket_type(Some(2)), stage.ticket_type(None)];
    let [small, large] = [new.ticket_types[0].id, new.ticket_types[1].id];
    let event = stage.create(new).await.id;
    let order = |kind, quantity| stage.order(event, "a", domain::Ask::Items(vec![(kind, quantity)]));
    let commands = vec![order(small, 2), order(small, 1), order(large, 9), order(large, 8), order(large, 1)];
    assert_eq!(stage.words(commands).await, ["ok", "failed", "failed", "ok", "failed"]);
    assert_eq!(stage.event(event).await.available(), 0);
    stage.clean().await;

    sabotage::remove("capacity-check");
    let rig = Memory::new();
    let stage = Stage::new(&rig);
    let event = stage.create(stage.concert(10)).await.id;
    assert_eq!(stage.words(vec![stage.book(event, "a", 10), stage.book(event, "b", 1)]).await, ["ok", "ok"]);
    let report = stage.store.audit().await.expect("an audit");
    assert!(!report.violations.is_empty(), "an oversold event is not noticed");
}
