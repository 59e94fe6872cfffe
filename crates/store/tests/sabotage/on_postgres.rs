//! The remaining guards on PostgreSQL when its locks and guards are removed one by one. No other test of this
//! process is affected.

use std::sync::Arc;

use domain::sabotage;
use store::conformance::fixture::{Fixture, outcome_code};
use store::{Postgres, Reply, Store};
use testkit::{Database, PostgresServer};
use tokio::sync::Barrier;
use tokio::task::JoinSet;

use crate::memory_harness;

const INSTANCES: usize = 3;
const ORDERS: usize = 60;

async fn open(database: &Database) -> Arc<Postgres> {
    let url = database.url().parse().expect("a URL");
    Arc::new(Postgres::open(&url, true).await.expect("a store"))
}

/// Three instances book on one event concurrently, one ticket per batch. Asserts that the counters are
/// correct, and returns the causes of failed orders.
async fn book_concurrently() -> Vec<String> {
    let database = PostgresServer::shared().await.create_database().await;
    // Only for the commands and ids of its fixture.
    let harness = memory_harness();
    let fixture = Fixture::new(&harness);
    let new = fixture.new_event(10_000);
    let event = new.id;
    let first = open(&database).await;
    let create = store::conformance::fixture::command(domain::Action::CreateEvent(Box::new(new)));
    assert_eq!(outcome_code(&first.execute(vec![create.into()]).await[0]), "ok");
    let (mut instances, connected) = (JoinSet::new(), Arc::new(Barrier::new(INSTANCES)));
    for _ in 0..INSTANCES {
        let store = open(&database).await;
        let orders: Vec<_> = (0..ORDERS).map(|_| fixture.book(event, "a", 1)).collect();
        let connected = connected.clone();
        instances.spawn(async move {
            let mut replies = Vec::new();
            for (number, order) in orders.into_iter().enumerate() {
                replies.extend(store.execute(vec![order.into()]).await);
                // The first order connects; the following ones of all instances are concurrent.
                if number == 0 {
                    connected.wait().await;
                }
            }
            replies
        });
    }
    let replies: Vec<Reply> = instances.join_all().await.into_iter().flatten().collect();
    let held = replies.iter().filter(|reply| outcome_code(reply) == "ok").count();
    let found = first.event(event).await.expect("a read").expect("an event");
    assert_eq!(found.inventory.held as usize, held);
    assert_eq!(first.audit().await.expect("an audit").violations, Vec::<String>::new());
    let why = |reply: &Reply| match reply {
        Reply::Failed(store::Fault::Broken(cause)) => Some(cause.to_string()),
        _ => None,
    };
    replies.iter().filter_map(why).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn each_database_guard_holds_without_the_previous_one() {
    assert_eq!(book_concurrently().await, Vec::<String>::new(), "with its locks no order fails");
    sabotage::remove("row-lock");
    let failed = book_concurrently().await;
    assert!(
        failed.iter().any(|why| why.contains("a guard missed: -- Updates the counters of events")),
        "{failed:?}"
    );
    sabotage::remove("row-count-check");
    let failed = book_concurrently().await;
    assert!(failed.iter().any(|why| why.contains("ledger_pkey")), "{failed:?}");
}
