//! Rate limits per user, over HTTP.
//!
//! A machine may stall at any moment. So the checks assume only that an attempt was decided between its
//! sending and its response. Responses that contradict the limit, whenever the attempts were decided, are an
//! error; a stall can hide an error, but cannot cause one. The suite in `coordination` tests the limiter to
//! the microsecond, with a fixed clock.

use std::time::Duration;

use hyper::Method;
use serde_json::json;
use testkit::{Client, Response, Server, Setup, event_body, id_of};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};

use crate::program;

/// Maximum difference between the clocks of server and test within a window.
const SLACK: Duration = Duration::from_millis(50);

/// One attempt, decided at some instant from `sent` to `received`.
struct Attempt {
    sent: Instant,
    received: Instant,
    /// Time to wait, if the attempt was refused.
    retry_after: Option<Duration>,
}

impl Attempt {
    /// Sends an attempt, and checks its response by itself.
    async fn send(client: &mut Client, path: &str, body: &str, policy: &Policy) -> Self {
        let sent = Instant::now();
        let response = client.post_text(path, body.to_owned()).await;
        let received = Instant::now();
        let retry_after = policy.check(&response);
        Self { sent, received, retry_after }
    }
}

/// The limit of a route, as its responses report it.
struct Policy {
    name: &'static str,
    limit: usize,
    window: Duration,
}

impl Policy {
    /// Checks the header fields, and the members of a refusal. Returns the time to wait after a refusal.
    fn check(&self, response: &Response) -> Option<Duration> {
        let (name, limit, seconds) = (self.name, self.limit, self.window.as_secs());
        assert_eq!(
            response.header("ratelimit-policy"),
            format!("\"{name}\";q={limit};w={seconds}"),
            "{response:?}"
        );
        let left = response.header("ratelimit").strip_prefix(&format!("\"{name}\";r="));
        let (left, reset) = left.and_then(|left| left.split_once(";t=")).expect("the remaining attempts");
        let (left, reset): (usize, u64) = (left.parse().expect("a number"), reset.parse().expect("seconds"));
        assert!(left < limit && reset <= seconds, "{response:?}");
        if response.status != 429 {
            assert_eq!(response.header("retry-after"), "", "{response:?}");
            return None;
        }
        let body = response.expect_problem(429, "rate_limited");
        assert_eq!((&body["rule"], &body["limit"], left), (&json!(name), &json!(limit), 0), "{response:?}");
        assert_eq!(body["windowMs"], json!(seconds * 1_000), "{response:?}");
        let millis = body["retryAfterMs"].as_u64().expect("a time to wait");
        assert!(millis > 0 && millis <= seconds * 1_000, "{response:?}");
        assert_eq!(
            response.header("retry-after"),
            millis.div_ceil(1_000).to_string(),
            "rounded up: {response:?}"
        );
        assert_eq!(reset, millis.div_ceil(1_000), "{response:?}");
        Some(Duration::from_millis(millis))
    }

    /// Expects that an exact sliding window can have decided these sequential attempts of one user.
    fn check_attempts(&self, attempts: &[Attempt]) {
        let accepted: Vec<&Attempt> =
            attempts.iter().filter(|attempt| attempt.retry_after.is_none()).collect();
        for group in accepted.windows(self.limit + 1) {
            let longest = group[self.limit].received - group[0].sent;
            assert!(longest + SLACK >= self.window, "{} within {longest:?}", self.limit + 1);
        }
        for attempt in attempts {
            let Some(wait) = attempt.retry_after else { continue };
            let before = accepted.iter().filter(|other| other.sent < attempt.sent);
            let in_window: Vec<_> =
                before.filter(|other| other.received + self.window + SLACK > attempt.sent).collect();
            assert!(in_window.len() >= self.limit, "refused after {} in the window", in_window.len());
            // The wait ends when the oldest attempt leaves the window, however many were refused since.
            let oldest = in_window[in_window.len() - self.limit];
            assert!(
                attempt.sent + wait <= oldest.received + self.window + SLACK,
                "the wait is too long: {wait:?}"
            );
            assert!(
                attempt.received + wait + SLACK >= oldest.sent + self.window,
                "the wait is too short: {wait:?}"
            );
        }
    }
}

/// Attempts that a test makes up: the time of each and, if it was refused, the time to wait, in milliseconds.
fn history(attempts: &[(u64, Option<u64>)]) -> Vec<Attempt> {
    let begin = Instant::now();
    let at = |millis| begin + Duration::from_millis(millis);
    let attempt = |(sent, wait): &(u64, Option<u64>)| Attempt {
        sent: at(*sent),
        received: at(*sent + 1),
        retry_after: wait.map(Duration::from_millis),
    };
    attempts.iter().map(attempt).collect()
}

#[tokio::test]
async fn the_checker_detects_violations_of_the_sliding_window() {
    let passes = |attempts: &[(u64, Option<u64>)]| {
        let policy = Policy { name: "book", limit: 2, window: Duration::from_secs(1) };
        let attempts = history(attempts);
        std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| policy.check_attempts(&attempts))).is_ok()
    };
    assert!(passes(&[(0, None), (400, None), (500, Some(500)), (700, Some(300)), (1_000, None)]));
    assert!(!passes(&[(0, None), (400, None), (900, None)]), "three within a window");
    assert!(!passes(&[(0, None), (400, None), (1_100, Some(300))]), "refused below the limit");
    assert!(!passes(&[(0, None), (400, None), (500, Some(900))]), "the wait began with the refused attempt");
    assert!(!passes(&[(0, None), (400, None), (500, Some(300))]), "the wait is too short");
}

async fn order(server: &Server) -> String {
    let event = server.admin().create_event(&event_body(1_000_000)).await;
    json!({"eventId": event, "ticketQuantity": 1}).to_string()
}

#[tokio::test]
async fn every_window_allows_exactly_the_limit() {
    let policy = Policy { name: "book", limit: 5, window: Duration::from_secs(1) };
    let server = Setup::new(program()).environment("BOXOFFICE_BOOK_LIMIT", "5/1s").start().await;
    let order = order(&server).await;
    let mut users = JoinSet::new();
    // The users send at different intervals, so that windows begin at all phases.
    for interval in [3, 17, 90, 190, 201, 230] {
        let (mut client, order) = (server.user(&format!("user-{interval}")), order.clone());
        users.spawn(async move {
            let policy = Policy { name: "book", limit: 5, window: Duration::from_secs(1) };
            let mut attempts = Vec::new();
            let end = Instant::now() + Duration::from_millis(3_500);
            while Instant::now() < end {
                let attempt = Attempt::send(&mut client, "/v1/bookings", &order, &policy).await;
                let next = attempt.sent + Duration::from_millis(interval);
                attempts.push(attempt);
                sleep_until(next).await;
            }
            attempts
        });
    }
    let mut refused = 0;
    for attempts in users.join_all().await {
        refused += attempts.iter().filter(|attempt| attempt.retry_after.is_some()).count();
        policy.check_attempts(&attempts);
    }
    assert!(refused > 0, "no user reached the limit");
}

#[tokio::test]
async fn a_retry_after_the_stated_delay_succeeds() {
    let policy = Policy { name: "book", limit: 2, window: Duration::from_secs(1) };
    let server = Setup::new(program()).environment("BOXOFFICE_BOOK_LIMIT", "2/1s").start().await;
    let (order, mut ada) = (order(&server).await, server.user("ada"));
    let mut attempts = Vec::new();
    let mut waited = 0;
    while waited < 5 {
        let attempt = Attempt::send(&mut ada, "/v1/bookings", &order, &policy).await;
        if let Some(wait) = attempt.retry_after {
            let retry_at = attempt.received + wait;
            attempts.push(attempt);
            sleep_until(retry_at).await;
            let again = Attempt::send(&mut ada, "/v1/bookings", &order, &policy).await;
            assert_eq!(again.retry_after, None, "refused after the stated wait");
            attempts.push(again);
            waited += 1;
        } else {
            attempts.push(attempt);
        }
    }
    policy.check_attempts(&attempts);
}

/// Sends attempts until one is refused. Returns the number of accepted attempts, and the refusal.
async fn until_refused(mut attempt: impl AsyncFnMut() -> Response) -> (usize, Response) {
    for count in 0..100 {
        let response = attempt().await;
        if response.status == 429 {
            return (count, response);
        }
    }
    panic!("never refused");
}

/// Starts a server with windows that no test outlasts, so that counts are exact on a machine of any speed.
async fn start_with_long_windows() -> Server {
    let setup = Setup::new(program()).environment("BOXOFFICE_BOOK_LIMIT", "5/24h");
    setup.environment("BOXOFFICE_CANCEL_LIMIT", "3/24h").start().await
}

#[tokio::test]
async fn the_default_limits_are_as_documented() {
    let setup = Setup::new(program()).environment("BOXOFFICE_BOOK_LIMIT", "5/10s");
    let server = setup.environment("BOXOFFICE_CANCEL_LIMIT", "3/30s").start().await;
    let finished = program().run(["config", "--json"]).await;
    let settings: serde_json::Value = serde_json::from_str(&finished.stdout).expect("settings");
    assert_eq!(settings["book-limit"], json!({"value": "5/10s", "from": "default"}));
    assert_eq!(settings["cancel-limit"], json!({"value": "3/30s", "from": "default"}));
    let (order, mut ada) = (order(&server).await, server.user("ada"));
    let booked = ada.post_text("/v1/bookings", order).await;
    assert_eq!(booked.header("ratelimit-policy"), "\"book\";q=5;w=10");
    assert_eq!(booked.header("ratelimit"), "\"book\";r=4;t=10");
    let cancelled = ada.cancel(&id_of(&booked.expect(201))).await;
    cancelled.expect(200);
    assert_eq!(cancelled.header("ratelimit-policy"), "\"cancel\";q=3;w=30");
    assert_eq!(cancelled.header("ratelimit"), "\"cancel\";r=2;t=30");
}

#[tokio::test]
async fn the_booking_limit_counts_per_booked_user() {
    let server = start_with_long_windows().await;
    let event = server.admin().create_event(&event_body(3)).await;
    let (mut ada, mut service) = (server.user("ada"), server.service());
    ada.book(&event, 1).await.expect(201);
    service.book_for("ada", &event, 1).await.expect(201);
    server.admin().book_for("ada", &event, 1).await.expect(201);
    // Refused by the rules, and not found: both count as attempts.
    ada.book(&event, 1).await.expect_problem(409, "sold_out");
    let missing = ada.book("evt_01h455vb4pex5vsknk084sn02q", 1).await;
    missing.expect_problem(404, "not_found");
    assert_eq!(missing.header("ratelimit").split(";t=").next(), Some("\"book\";r=0"));
    for mut refused in [server.user("ada"), service] {
        let order = json!({"eventId": event, "ticketQuantity": 1, "userId": "ada"});
        refused.post("/v1/bookings", &order).await.expect_problem(429, "rate_limited");
    }
    server.user("bob").book(&event, 1).await.expect_problem(409, "sold_out");
    server.service().book_for("eve", &event, 1).await.expect_problem(409, "sold_out");
}

#[tokio::test]
async fn invalid_requests_do_not_count_against_the_limit() {
    let server = start_with_long_windows().await;
    let event = server.admin().create_event(&event_body(100)).await;
    let mut ada = server.user("ada");
    let order = json!({"eventId": event, "ticketQuantity": 1}).to_string();
    let json_type = ("content-type", "application/json");
    for _ in 0..2 {
        server
            .anonymous()
            .post_text("/v1/bookings", order.clone())
            .await
            .expect_problem(401, "unauthenticated");
        ada.post_text("/v1/bookings", "{").await.expect_problem(400, "malformed_request");
        ada.post_text("/v1/bookings", "{}").await.expect_problem(422, "validation_failed");
        ada.post_text("/v1/bookings", " ".repeat(65_537)).await.expect_problem(413, "payload_too_large");
        let for_eve = json!({"eventId": event, "ticketQuantity": 1, "userId": "eve"});
        ada.post("/v1/bookings", &for_eve).await.expect_problem(403, "forbidden");
        let plain =
            ada.request_with(Method::POST, "/v1/bookings", &[("content-type", "text/plain")], order.clone());
        plain.await.expect_problem(415, "unsupported_media_type");
        let keyed = [json_type, ("idempotency-key", "")];
        let wrong_key = ada.request_with(Method::POST, "/v1/bookings", &keyed, order.clone()).await;
        wrong_key.expect_problem(400, "malformed_request");
    }
    let (accepted, _) = until_refused(async || ada.book(&event, 1).await).await;
    assert_eq!(accepted, 5);
    // An invalid request is refused before the limit is checked; everything else is checked after it.
    ada.post_text("/v1/bookings", "{").await.expect_problem(400, "malformed_request");
    ada.book("evt_01h455vb4pex5vsknk084sn02q", 1).await.expect_problem(429, "rate_limited");
}

#[tokio::test]
async fn every_well_formed_cancellation_of_a_user_counts() {
    let server = start_with_long_windows().await;
    let event = server.admin().create_event(&event_body(100)).await;
    let mut bookings = Vec::new();
    for _ in 0..2 {
        bookings.push(id_of(&server.service().book_for("ada", &event, 1).await.expect(201)));
    }
    let mut ada = server.user("ada");
    ada.post_text(&format!("/v1/bookings/{}/cancel", bookings[0]), "{")
        .await
        .expect_problem(400, "malformed_request");
    ada.cancel(&bookings[0]).await.expect(200);
    ada.cancel(&bookings[0]).await.expect_problem(409, "invalid_state");
    ada.cancel("nonsense").await.expect_problem(404, "not_found");
    for refused in [&bookings[1], "bkg_01h455vb4pex5vsknk084sn02q", "nonsense", "%ff"] {
        let response = ada.cancel(refused).await;
        response.expect_problem(429, "rate_limited");
        assert!(!response.header("ratelimit").is_empty(), "{response:?}");
    }
    assert_eq!(ada.booking(&bookings[1]).await["status"], "pending");
    // Services and admins are not limited, and their cancellations do not count for the owner.
    let mut service = server.service();
    for _ in 0..5 {
        let response = service.cancel("bkg_01h455vb4pex5vsknk084sn02q").await;
        response.expect_problem(404, "not_found");
        assert_eq!(response.header("ratelimit"), "", "no header without a limit");
    }
    service.cancel(&bookings[1]).await.expect(200);
    // Bookings and cancellations are counted separately.
    ada.book(&event, 1).await.expect(201);
}

#[tokio::test]
async fn concurrent_requests_are_allowed_exactly_up_to_the_limit() {
    let server = start_with_long_windows().await;
    let event = server.admin().create_event(&event_body(1_000)).await;
    let mut attempts = JoinSet::new();
    for _ in 0..40 {
        let (mut client, event) = (server.user("ada"), event.clone());
        attempts.spawn(async move { client.book(&event, 1).await.status.as_u16() });
    }
    let statuses = attempts.join_all().await;
    let count = |code: u16| statuses.iter().filter(|status| **status == code).count();
    assert_eq!((count(201), count(429)), (5, 35));
    assert_eq!(server.admin().counts(&event).await.0, 5);
}

#[tokio::test]
async fn invalid_limits_are_refused_at_startup() {
    for wrong in ["0/10s", "5", "5/0s", "513/1s", "5/25h", "5/10", "-1/10s", "5/10s ", "five/10s", ""] {
        let words = ["serve", "--jwt-secret", testkit::SECRET, "--book-limit", wrong];
        let finished = program().run(words).await;
        assert_eq!(finished.exit, testkit::Exit::Code(2), "{wrong:?}: {finished:?}");
    }
}
