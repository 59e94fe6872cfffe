//! An earlier version and this one sell side by side on one PostgreSQL, one Redis and one NATS, as they do
//! while instances are replaced one by one. `ROUNDS` repeats it.

use testkit::{
    Journal, Load, NatsServer, PostgresServer, Program, RedisServer, Server, Setup, event_body,
    number_from_environment,
};

use crate::ledger_stream::expect_complete;
use crate::{previous, program};

/// Tickets of the event that each step sells out; of the other event there are plenty.
const FEW: u32 = 60;

#[tokio::test(flavor = "multi_thread")]
async fn versions_sell_side_by_side() {
    for round in 0..number_from_environment("ROUNDS").unwrap_or(1) {
        let journal = replace_instances().await;
        let (bookings, sold_out) = (journal.len(), journal.refusals("sold_out"));
        println!("round {round}: {bookings} bookings, {sold_out} refused as sold out, audits clean");
    }
}

/// Upgrades three instances of the earlier version one by one under load, then downgrades them again.
async fn replace_instances() -> Journal {
    let (nats, redis) = (NatsServer::start().await, RedisServer::start().await);
    let database = PostgresServer::shared().await.create_database().await;
    let start = async |version: Program| -> Server {
        let setup = Setup::new(version).on_postgres(&database).argument("--redis").argument(redis.url(0));
        setup.argument("--nats").argument(nats.url()).argument("--sweep-every").argument("1s").start().await
    };
    let mut servers = Vec::new();
    for _ in 0..3 {
        servers.push(start(previous()).await);
    }
    let plenty = servers[0].admin().create_event(&event_body(1_000_000)).await;
    let (mut all, mut small) = (Journal::default(), Vec::new());
    let versions = [program(), program(), program(), previous(), previous(), previous()];
    for (step, version) in versions.into_iter().enumerate() {
        let mut replaced = std::mem::replace(&mut servers[step % 3], start(version).await);
        let few = servers[0].admin().create_event(&event_body(FEW)).await;
        let events = [few.clone(), plenty.clone()];
        small.push(few);
        // The replaced instance ends while the two others, and the new one, sell.
        let mut loads: Vec<Load> = servers.iter().map(|server| Load::start(server, &events, 8)).collect();
        replaced.terminate();
        replaced.wait_for_exit().await;
        for load in &mut loads {
            load.wait_for_acknowledged(200).await;
        }
        for load in loads {
            all.merge(load.stop().await);
        }
    }
    let mut admin = servers[0].admin();
    all.check(&mut admin).await;
    let unexpected = |code: &&&str| !["sold_out", "insufficient_availability"].contains(*code);
    assert_eq!(all.codes().iter().find(unexpected), None);
    for event in &small {
        let (held, sold, available) = admin.counts(event).await;
        assert_eq!(held + sold + available, u64::from(FEW));
    }
    assert!(all.refusals("sold_out") > 0, "the race for the last tickets was run: {:?}", all.codes());
    expect_complete(&nats, &mut admin).await;
    for audit in [previous(), program()] {
        audit.expect_clean_at(&database.url()).await;
    }
    all
}
