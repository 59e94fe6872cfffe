//! Reads that block in the database.

use hyper::Method;
use serde_json::json;
use testkit::{Response, Server, event_body};
use tokio::task::JoinSet;

use crate::server;

/// Readers of each kind, more than there are slots.
const READERS: usize = 10;
/// Other requests, more than there are connections to the database.
const OTHERS: usize = 20;
/// Path of a booking that does not exist.
const UNKNOWN: &str = "/v1/bookings/bkg_01h00000000000000000000000/confirm";

/// Reads by users, by anonymous clients and by services, all of them of locked tables.
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

/// Payments, which look up a booking, and readiness checks.
fn look_up(server: &Server) -> JoinSet<Response> {
    let mut others = JoinSet::new();
    for number in 0..OTHERS {
        let (mut service, mut anonymous) = (server.service(), server.anonymous());
        others.spawn(async move {
            if number % 2 == 0 {
                return anonymous.get("/readyz").await;
            }
            let body = json!({"paymentTransactionId": "pay-1"});
            service.try_request(Method::POST, UNKNOWN, Some(&body)).await.expect("a response")
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

/// Reads of locked tables occupy the connections for reads, and no others.
#[tokio::test(flavor = "multi_thread")]
async fn s1_blocked_reads_are_refused_and_do_not_delay_other_requests() {
    let server = server().await;
    server.admin().create_event(&event_body(100)).await;
    let other_session = server.setup().postgres().connect().await;
    let mut were_first = false;
    // On a busy machine a round may take longer than reads wait for the lock.
    for _ in 0..10 {
        let lock = "BEGIN; LOCK TABLE event_details, refunds IN ACCESS EXCLUSIVE MODE";
        other_session.batch_execute(lock).await.expect("the lock");
        let (mut readers, mut responses) = (read(&server), Vec::new());
        let mut take_response = |readers: &mut JoinSet<Response>| {
            responses.extend(
                readers.try_join_next().map(|response| response.expect("a task that does not panic")),
            );
            !responses.is_empty()
        };
        while !take_response(&mut readers) && !all_kinds_wait(&server).await {}
        let others = look_up(&server).join_all().await;
        were_first = !take_response(&mut readers);
        responses.extend(readers.join_all().await);
        other_session.batch_execute("ROLLBACK").await.expect("the end of the transaction");
        for other in others {
            assert!([200, 404].contains(&other.status.as_u16()), "{other:?}");
        }
        let (refused, failed): (Vec<_>, Vec<_>) =
            responses.into_iter().partition(|response| response.code() == "overloaded");
        for response in &refused {
            response.expect_problem(503, "overloaded");
            assert_eq!(response.header("retry-after"), "1");
        }
        for response in &failed {
            response.expect_problem(503, "unavailable");
        }
        if were_first {
            assert!(refused.len() >= READERS && !failed.is_empty(), "{refused:?} {failed:?}");
            break;
        }
    }
    assert!(were_first, "other requests wait for reads");
    server.service().get("/v1/refunds").await.expect(200);
}
