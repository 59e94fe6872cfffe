//! A hundred clients, one ticket.

use std::sync::Arc;

use testkit::{Client, Response, Server, event_body};
use tokio::sync::Barrier;
use tokio::task::JoinSet;

use crate::server;

const CLIENTS: usize = 100;

/// Connections that are open already, so that a race is about tickets and not about sockets.
async fn crowd(server: &Server) -> Vec<Client> {
    let mut clients = Vec::new();
    for _ in 0..CLIENTS {
        let mut client = server.anonymous();
        client.connect().await.expect("the server takes connections");
        clients.push(client);
    }
    clients
}

/// Everybody wants one ticket, each for themselves, all released together.
async fn race(server: &Server, clients: Vec<Client>, event: &str) -> (Vec<Client>, Vec<Response>) {
    let start = Arc::new(Barrier::new(clients.len()));
    let mut runners = JoinSet::new();
    for (number, mut client) in clients.into_iter().enumerate() {
        client.use_token(server.tokens().user(&format!("{event}-{number}")));
        let (start, event) = (start.clone(), event.to_owned());
        runners.spawn(async move {
            start.wait().await;
            let answer = client.book(&event, 1).await;
            (client, answer)
        });
    }
    runners.join_all().await.into_iter().unzip()
}

fn count(answers: &[Response], status: u16) -> usize {
    answers.iter().filter(|answer| answer.status == status).count()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_last_ticket_is_sold_once() {
    const ROUNDS: usize = 300;
    let server = server().await;
    let mut admin = server.admin();
    let mut clients = crowd(&server).await;
    let may_be_late = server.setup().url().starts_with("postgres://");
    let (mut decided, mut events, mut bookings) = (0, 0, 0);
    while decided < ROUNDS {
        let event = admin.create_event(&event_body(1)).await;
        let answers;
        (clients, answers) = race(&server, clients, &event).await;
        assert_eq!(answers.len(), CLIENTS);
        let counts = admin.counts(&event).await;
        (events, bookings) = (events + 1, bookings + counts.0);
        // On a machine that stands still for seconds PostgreSQL does not answer in time, and nobody may win.
        if may_be_late && count(&answers, 503) > 0 {
            assert!(count(&answers, 201) <= 1 && counts.0 <= 1, "{answers:?}");
            assert!(events < ROUNDS + 20, "the database does not answer");
            continue;
        }
        assert_eq!((count(&answers, 201), counts), (1, (1, 0, 0)), "round {decided}");
        for answer in answers.iter().filter(|answer| answer.status != 201) {
            answer.expect_problem(409, "sold_out");
        }
        decided += 1;
    }
    let report = server.expect_clean().await;
    assert_eq!((&report["events"], &report["bookings"]), (&events.into(), &bookings.into()));
}

/// Without the guards the same race must go wrong, or it would show nothing.
#[cfg(feature = "sabotage")]
mod without_guards {
    use super::*;

    async fn sabotaged(guards: &str) -> Server {
        let setup = crate::setup().await;
        setup.environment("BOXOFFICE_SABOTAGE", guards).start().await
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn without_capacity_checks_a_server_oversells_and_the_audit_reports_it() {
        let server = sabotaged("capacity,capacity-check").await;
        let mut clients = crowd(&server).await;
        let event = server.admin().create_event(&event_body(1)).await;
        let answers;
        (clients, answers) = race(&server, clients, &event).await;
        drop(clients);
        assert!(count(&answers, 201) > 1, "the race must oversell");
        let (code, report) = server.audit().await;
        assert_eq!((code, &report["clean"]), (1, &false.into()), "{report:#}");
        let violations = report["violations"].to_string();
        assert!(violations.contains(&event), "{violations}");
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn database_constraints_alone_prevent_overselling() {
        let server = sabotaged("capacity").await;
        let mut clients = crowd(&server).await;
        let mut admin = server.admin();
        for _ in 0..5 {
            let event = admin.create_event(&event_body(1)).await;
            let answers;
            (clients, answers) = race(&server, clients, &event).await;
            assert_eq!((count(&answers, 201), count(&answers, 500)), (1, CLIENTS - 1));
            for answer in answers.iter().filter(|answer| answer.status == 500) {
                answer.expect_problem(500, "internal_error");
            }
            assert_eq!(admin.counts(&event).await, (1, 0, 0));
        }
        server.expect_clean().await;
    }
}
