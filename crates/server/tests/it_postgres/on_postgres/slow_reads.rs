//! Reads that hang in the database.

use hyper::Method;
use serde_json::json;
use testkit::{Response, Server, event_body};
use tokio::task::JoinSet;

use crate::server;

/// Readers of each kind, more than there are slots.
const READERS: usize = 10;
/// Requests beside them, more than the database has connections.
const OTHERS: usize = 20;
/// No booking of anybody's.
const UNKNOWN: &str = "/v1/bookings/bkg_01h00000000000000000000000/confirm";

/// Reads of users, of anybody, and of services: all of what is locked.
fn read(server: &Server) -> JoinSet<Response> {
    let mut readers = JoinSet::new();
    for number in 0..READERS {
        let user = (server.user(&format!("user-{number}")), "/v1/events");
        for (mut client, path) in
            [user, (server.anonymous(), "/v1/events"), (server.service(), "/v1/refunds")]
        {
            readers.spawn(async move { client.get(path).await });
        }
    }
    readers
}

/// Look-ups of payments, and questions about readiness.
fn look_up(server: &Server) -> JoinSet<Response> {
    let mut others = JoinSet::new();
    for number in 0..OTHERS {
        let (mut service, mut anonymous) = (server.service(), server.anonymous());
        others.spawn(async move {
            if number % 2 == 0 {
                return anonymous.get("/readyz").await;
            }
            let body = json!({"paymentTransactionId": "pay-1"});
            service.try_request(Method::POST, UNKNOWN, Some(&body)).await.expect("an answer")
        });
    }
    others
}

async fn all_kinds_wait(server: &Server) -> bool {
    for callers in ["users", "addresses", "services"] {
        if server.metric(&format!("boxoffice_reads_waiting{{callers=\"{callers}\"}}")).await == 0 {
            return false;
        }
    }
    true
}

/// Reads of locked tables take the connections of readers and no others.
#[tokio::test(flavor = "multi_thread")]
async fn s1_blocked_reads_are_refused_and_do_not_delay_other_requests() {
    let server = server().await;
    server.admin().create_event(&event_body(100)).await;
    let stranger = server.setup().postgres().connect().await;
    let mut were_first = false;
    // A busy machine may take longer for a round than the lock does.
    for _ in 0..10 {
        let lock = "BEGIN; LOCK TABLE event_details, refunds IN ACCESS EXCLUSIVE MODE";
        stranger.batch_execute(lock).await.expect("the lock");
        let (mut readers, mut answers) = (read(&server), Vec::new());
        let mut take_answer = |readers: &mut JoinSet<Response>| {
            answers.extend(readers.try_join_next().map(|answer| answer.expect("a task that does not panic")));
            !answers.is_empty()
        };
        while !take_answer(&mut readers) && !all_kinds_wait(&server).await {}
        let others = look_up(&server).join_all().await;
        were_first = !take_answer(&mut readers);
        answers.extend(readers.join_all().await);
        stranger.batch_execute("ROLLBACK").await.expect("the end of it");
        for other in others {
            assert!([200, 404].contains(&other.status.as_u16()), "{other:?}");
        }
        let (refused, failed): (Vec<_>, Vec<_>) =
            answers.into_iter().partition(|answer| answer.code() == "overloaded");
        for answer in &refused {
            answer.expect_problem(503, "overloaded");
            assert_eq!(answer.header("retry-after"), "1");
        }
        for answer in &failed {
            answer.expect_problem(503, "unavailable");
        }
        if were_first {
            assert!(refused.len() >= READERS && !failed.is_empty(), "{refused:?} {failed:?}");
            break;
        }
    }
    assert!(were_first, "others wait for readers");
    server.service().get("/v1/refunds").await.expect(200);
}
