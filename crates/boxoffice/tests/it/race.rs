//! A hundred clients compete for one ticket.

use std::sync::Arc;

use testkit::{Client, Response, Server, event_body};
use tokio::sync::Barrier;
use tokio::task::JoinSet;

use crate::server;

const CLIENTS: usize = 100;

/// Clients with open connections, so that connecting does not influence the race.
async fn connected_clients(server: &Server) -> Vec<Client> {
    let mut clients = Vec::new();
    for _ in 0..CLIENTS {
        let mut client = server.anonymous();
        client.connect().await.expect("the server takes connections");
        clients.push(client);
    }
    clients
}

/// Every client books one ticket, each for another user, all released together by a barrier.
async fn race(server: &Server, clients: Vec<Client>, event: &str) -> (Vec<Client>, Vec<Response>) {
    let start = Arc::new(Barrier::new(clients.len()));
    let mut runners = JoinSet::new();
    for (number, mut client) in clients.into_iter().enumerate() {
        client.use_token(server.tokens().user(&format!("{event}-{number}")));
        let (start, event) = (start.clone(), event.to_owned());
        runners.spawn(async move {
            start.wait().await;
            let response = client.book(&event, 1).await;
            (client, response)
        });
    }
    runners.join_all().await.into_iter().unzip()
}

fn count(responses: &[Response], status: u16) -> usize {
    responses.iter().filter(|response| response.status == status).count()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_last_ticket_is_sold_once() {
    const ROUNDS: usize = 300;
    let server = server().await;
    let mut admin = server.admin();
    let mut clients = connected_clients(&server).await;
    let may_time_out = server.setup().url().starts_with("postgres://");
    let (mut decided, mut events, mut bookings) = (0, 0, 0);
    while decided < ROUNDS {
        let event = admin.create_event(&event_body(1)).await;
        let responses;
        (clients, responses) = race(&server, clients, &event).await;
        assert_eq!(responses.len(), CLIENTS);
        let counts = admin.counts(&event).await;
        (events, bookings) = (events + 1, bookings + counts.0);
        // On a machine that stalls for seconds PostgreSQL times out, and possibly no client gets the ticket.
        if may_time_out && count(&responses, 503) > 0 {
            assert!(count(&responses, 201) <= 1 && counts.0 <= 1, "{responses:?}");
            assert!(events < ROUNDS + 20, "the database does not respond");
            continue;
        }
        assert_eq!((count(&responses, 201), counts), (1, (1, 0, 0)), "round {decided}");
        for response in responses.iter().filter(|response| response.status != 201) {
            response.expect_problem(409, "sold_out");
        }
        decided += 1;
    }
    let report = server.expect_clean().await;
    assert_eq!((&report["events"], &report["bookings"]), (&events.into(), &bookings.into()));
}

/// Without the guards the same race must fail; otherwise it would prove nothing.
#[cfg(feature = "sabotage")]
mod without_guards {
    use super::*;

    async fn start_without(guards: &str) -> Server {
        let setup = crate::setup().await;
        setup.environment("BOXOFFICE_SABOTAGE", guards).start().await
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn without_capacity_checks_a_server_oversells_and_the_audit_reports_it() {
        let server = start_without("capacity,capacity-check").await;
        let mut clients = connected_clients(&server).await;
        let event = server.admin().create_event(&event_body(1)).await;
        let responses;
        (clients, responses) = race(&server, clients, &event).await;
        drop(clients);
        assert!(count(&responses, 201) > 1, "the race must oversell");
        let (code, report) = server.audit().await;
        assert_eq!((code, &report["clean"]), (1, &false.into()), "{report:#}");
        let violations = report["violations"].to_string();
        assert!(violations.contains(&event), "{violations}");
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn database_constraints_alone_prevent_overselling() {
        let server = start_without("capacity").await;
        let mut clients = connected_clients(&server).await;
        let mut admin = server.admin();
        for _ in 0..5 {
            let event = admin.create_event(&event_body(1)).await;
            let responses;
            (clients, responses) = race(&server, clients, &event).await;
            assert_eq!((count(&responses, 201), count(&responses, 500)), (1, CLIENTS - 1));
            for response in responses.iter().filter(|response| response.status == 500) {
                response.expect_problem(500, "internal_error");
            }
            assert_eq!(admin.counts(&event).await, (1, 0, 0));
        }
        server.expect_clean().await;
    }
}
