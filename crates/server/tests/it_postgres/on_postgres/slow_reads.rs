//! Reads that hang in the database.

use testkit::event_body;
use tokio::task::JoinSet;

use crate::server;

const READERS: usize = 30;

/// The readers of one table, which somebody has locked, have their slots and no others.
#[tokio::test(flavor = "multi_thread")]
async fn s1_reads_that_hang_are_refused_and_keep_nobody_else_waiting() {
    let server = server().await;
    let event = server.admin().create_event(&event_body(100)).await;
    let stranger = server.setup().postgres().connect().await;
    let lock = "BEGIN; LOCK TABLE refunds IN ACCESS EXCLUSIVE MODE";
    stranger.batch_execute(lock).await.expect("the lock");
    let mut readers = JoinSet::new();
    for _ in 0..READERS {
        let mut service = server.service();
        readers.spawn(async move { service.get("/v1/refunds").await });
    }
    let mut anonymous = server.anonymous();
    for user in 0..10 {
        let mut user = server.user(&format!("user-{user}"));
        user.book(&event, 1).await.expect(201);
        user.get("/v1/bookings").await.expect(200);
        anonymous.get("/v1/events").await.expect(200);
        anonymous.get("/readyz").await.expect(200);
    }
    let waiting = server.metric("boxoffice_reads_waiting").await;
    let answers = readers.join_all().await;
    assert!(waiting > 0, "readers wait while others are served");
    let (mut refused, mut failed) = (0, 0);
    for answer in answers {
        if answer.code() == "overloaded" {
            answer.expect_problem(503, "overloaded");
            assert_eq!(answer.header("retry-after"), "1");
            refused += 1;
        } else {
            answer.expect_problem(503, "unavailable");
            failed += 1;
        }
    }
    assert!(failed >= 2, "those with a slot meet the lock");
    assert!(refused > failed, "{refused} of {READERS} are refused");
    stranger.batch_execute("ROLLBACK").await.expect("the end of it");
    server.service().get("/v1/refunds").await.expect(200);
}
