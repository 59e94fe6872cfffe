//! Rate limits and locks on a Redis that servers share, and the effects of its outages.

use std::time::Duration;

use serde_json::{Value, json};
use testkit::{
    Certificates, Client, Exit, RedisServer, Response, Server, Setup, event_body, eventually, id_of,
};
use tokio::time::Instant;

use crate::program;

/// Starts a server with its own database and this Redis, and with a rate limit whose window is longer than
/// any test.
async fn start_with(redis: &RedisServer, on_down: &str) -> Server {
    let setup = Setup::new(program()).argument("--redis").argument(redis.url(0));
    let setup = setup.argument("--on-redis-down").argument(on_down);
    setup.environment("BOXOFFICE_BOOK_LIMIT", "5/1h").start().await
}

/// Waits until readiness reports this status, and returns the response.
async fn wait_for_status(client: &mut Client, status: &str) -> Value {
    eventually("readiness reports the status", async || {
        let body = client.get("/readyz?verbose").await.expect(200);
        (body["status"] == status).then_some(body)
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn rate_limits_hold_across_servers_that_share_redis() {
    let redis = RedisServer::start().await;
    let mut servers = Vec::new();
    for _ in 0..3 {
        let server = start_with(&redis, "database").await;
        let event = server.admin().create_event(&event_body(100)).await;
        servers.push((event, server));
    }
    let (user, responses) = retry_until_redis_decides(&servers, async |user| {
        let mut responses = Vec::new();
        for attempt in 0..12 {
            let (event, server) = &servers[attempt % 3];
            responses.push(server.user(user).book(event, 1).await);
        }
        responses
    })
    .await;
    for (attempt, response) in responses.iter().enumerate() {
        if attempt < 5 {
            response.expect(201);
            let left = format!(";r={};", 4 - attempt);
            assert!(response.header("ratelimit").contains(&left), "{response:?}");
        } else {
            response.expect_problem(429, "rate_limited");
        }
    }
    let (_, server) = servers.pop().expect("three servers");
    eventually("Redis is up", async || (server.metric("boxoffice_redis_up").await == 1).then_some(())).await;
    // A restarted server has lost its own counts, but Redis has not.
    let server = server.restart().await;
    let event = server.admin().create_event(&event_body(100)).await;
    let again = [(event, server)];
    eventually("Redis decides", async || {
        let (event, server) = &again[0];
        let before = decisions(&again).await;
        let response = server.user(&user).book(event, 1).await;
        (decisions(&again).await > before).then(|| response.expect_problem(429, "rate_limited"))
    })
    .await;
}

/// Number of attempts that Redis has decided for these servers.
async fn decisions(servers: &[(String, Server)]) -> u64 {
    let mut decisions = 0;
    for (_, server) in servers {
        for kind in ["attempts_allowed", "attempts_denied", "attempts_denied_locally"] {
            decisions += server.metric(&format!("boxoffice_redis_{kind}_total")).await;
        }
    }
    decisions
}

/// Responses to one user, all of them decided by Redis, and that user. On a busy machine Redis may reply too
/// late, and the server then decides alone: in that case the attempts are repeated as another user.
async fn retry_until_redis_decides(
    servers: &[(String, Server)],
    attempts: impl AsyncFn(&str) -> Vec<Response>,
) -> (String, Vec<Response>) {
    let mut number = 0;
    eventually("Redis decides", async || {
        number += 1;
        let (user, before) = (format!("ada-{number}"), decisions(servers).await);
        let responses = attempts(&user).await;
        let decided = decisions(servers).await - before;
        (decided == responses.len() as u64).then_some((user, responses))
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn sales_continue_without_redis_and_readiness_reports_degraded() {
    let mut redis = RedisServer::start().await;
    let server = start_with(&redis, "database").await;
    let (mut admin, mut ada) = (server.admin(), server.user("ada"));
    let event = admin.create_event(&event_body(100)).await;
    assert_eq!(wait_for_status(&mut admin, "ready").await["redis"], "ok");
    redis.kill9();
    wait_for_status(&mut admin, "degraded").await;
    let mut bookings = Vec::new();
    for _ in 0..5 {
        bookings.push(id_of(&ada.book(&event, 1).await.expect(201)));
    }
    ada.book(&event, 1).await.expect_problem(429, "rate_limited");
    admin.confirm(&bookings[0], "pay-1").await.expect(200);
    redis.restart().await;
    assert_eq!(wait_for_status(&mut admin, "ready").await["redis"], "ok");
    admin.confirm(&bookings[1], "pay-2").await.expect(200);
    server.expect_clean().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn limited_requests_can_be_refused_while_redis_is_down() {
    let mut redis = RedisServer::start().await;
    let server = start_with(&redis, "refuse").await;
    let (mut admin, mut ada) = (server.admin(), server.user("ada"));
    let event = admin.create_event(&event_body(100)).await;
    let booking = eventually("Redis replies in time", async || {
        let response = ada.book(&event, 1).await;
        (response.status != 503).then(|| id_of(&response.expect(201)))
    })
    .await;
    redis.kill9();
    wait_for_status(&mut admin, "degraded").await;
    ada.book(&event, 1).await.expect_problem(503, "unavailable");
    // Payments are never refused because of a limit.
    admin.confirm(&booking, "pay-1").await.expect(200);
    assert_eq!(admin.counts(&event).await, (0, 1, 99));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_starts_without_redis_and_connects_later() {
    let mut redis = RedisServer::start().await;
    redis.kill9();
    let mut server = start_with(&redis, "database").await;
    assert!(server.log().tail().contains("Redis cannot be reached"), "{}", server.log().tail());
    redis.restart().await;
    wait_for_status(&mut server.admin(), "ready").await;
    server.terminate();
    assert_eq!(server.wait_for_exit().await, Exit::Code(0));
}

/// Runs `doctor` with these arguments. Returns its exit, and its report on Redis.
async fn doctor(words: &[&str]) -> (Exit, Value) {
    let folder = tempfile::tempdir().expect("a folder");
    let database = format!("sqlite://{}", folder.path().join("boxoffice.db").display());
    program().run(["migrate", "--database", &database]).await;
    let found = program().run(["doctor", "--json", "--database", &database].iter().chain(words)).await;
    let body: Value =
        serde_json::from_str(&found.stdout).unwrap_or_else(|error| panic!("{error}: {found:?}"));
    (found.exit, body["dependencies"][1].clone())
}

#[tokio::test]
async fn doctor_checks_redis() {
    let evicting = RedisServer::start_with(&["--maxmemory-policy", "allkeys-lru"]).await;
    let check = async |url: &str| doctor(&["--redis", url]).await;
    let (exit, found) = check(&evicting.url(0)).await;
    assert_eq!((exit, &found["name"], &found["reachable"]), (Exit::Code(1), &json!("redis"), &json!(true)));
    assert!(
        found["problems"][0]["problem"].as_str().is_some_and(|text| text.contains("allkeys-lru")),
        "{found:#}"
    );
    evicting.command(&["CONFIG", "SET", "maxmemory-policy", "noeviction"]).await;
    let (exit, found) = check(&evicting.url(0)).await;
    assert_eq!((exit, &found["problems"]), (Exit::Code(0), &json!([])), "{found:#}");
    let mut stopped = evicting;
    stopped.kill9();
    let secret = format!("redis://:a-secret@127.0.0.1:{}", stopped.port());
    let (exit, found) = check(&secret).await;
    assert_eq!((exit, &found["reachable"]), (Exit::Code(3), &json!(false)));
    assert!(!found.to_string().contains("a-secret"), "{found:#}");
}

const PASSWORD: &str = "canary5ecret";

#[tokio::test(flavor = "multi_thread")]
async fn redis_certificates_are_verified() {
    let folder = tempfile::tempdir().expect("a folder");
    let certificates = Certificates::make(folder.path());
    let redis = RedisServer::start_with_tls(&certificates, PASSWORD).await;
    let url = |user: &str, host: &str| format!("rediss://{user}@{host}:{}", redis.port());
    let good = url(&format!(":{PASSWORD}"), "localhost");
    let [root, other] = [&certificates.root, &certificates.other].map(|file| file.display().to_string());

    let by_address = url(&format!(":{PASSWORD}"), "127.0.0.1");
    let wrong_password = url(":something-else", "localhost");
    let cases = [
        (&good, Some(&root), 0, "\"reachable\":true"),
        (&good, Some(&other), 3, "invalid peer certificate: UnknownIssuer"),
        (&good, None, 3, "invalid peer certificate: UnknownIssuer"),
        (&by_address, Some(&root), 3, "only valid for DnsName"),
        (&wrong_password, Some(&root), 3, "Password authentication failed"),
    ];
    let checks = cases.map(|(url, authorities, code, why)| async move {
        let mut words = vec!["--redis", url];
        words.extend(authorities.iter().flat_map(|file| ["--redis-ca", file]));
        // On a busy machine connecting may time out, which is another reason.
        eventually(why, async || {
            let (exit, found) = doctor(&words).await;
            let report = found.to_string();
            assert!(!report.contains(PASSWORD), "{report}");
            (exit == Exit::Code(code) && report.contains(why)).then_some(())
        })
        .await;
    });
    futures_util::future::join_all(checks).await;

    let setup = Setup::new(program()).argument("--redis").argument(&good).argument("--redis-ca");
    let server = setup.argument(&root).start().await;
    assert_eq!(wait_for_status(&mut server.admin(), "ready").await["redis"], "ok");
    let event = server.admin().create_event(&event_body(100)).await;
    let servers = [(event, server)];
    retry_until_redis_decides(&servers, async |user| {
        vec![servers[0].1.user(user).book(&servers[0].0, 1).await]
    })
    .await;

    let server = Setup::new(program()).argument("--redis").argument(&wrong_password).argument("--redis-ca");
    let server = server.argument(&root).start().await;
    let log = server.log().all().join("\n");
    assert!(log.contains("Redis cannot be reached") && !log.contains("something-else"), "{log}");
}

#[tokio::test]
async fn invalid_redis_ca_files_are_reported_at_startup() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = |name: &str| folder.path().join(name).display().to_string();
    std::fs::write(file("empty.pem"), "no certificate").expect("a file");
    let wrong = [
        ("redis://:canary5ecret@localhost:1", "empty.pem", 2, "--redis-ca requires a rediss:// address"),
        ("rediss://:canary5ecret@localhost:1", "empty.pem", 1, "no CA certificates in PEM"),
        ("rediss://:canary5ecret@localhost:1", "none.pem", 1, "No such file"),
        ("http://:canary5ecret@localhost:1", "empty.pem", 2, "a Redis address must be redis://"),
    ];
    for (url, name, code, why) in wrong {
        let words =
            ["doctor", "--database", "sqlite:///tmp/none.db", "--redis", url, "--redis-ca", &file(name)];
        let found = program().run(words).await;
        assert_eq!(found.exit, Exit::Code(code), "{url}: {found:?}");
        assert!(found.stderr.contains(why) && !found.stderr.contains("canary"), "{why}: {found:?}");
    }
}

/// Maximum difference between clocks within a window.
const SLACK: Duration = Duration::from_millis(50);

/// Sends attempts of one user to the servers in turn. Returns the shortest time from sending an accepted
/// attempt to the response of the one `limit` later, and the numbers of accepted and refused attempts.
async fn send_attempts(
    mut targets: Vec<(Client, String, &'static str)>,
    limit: usize,
    duration: Duration,
) -> (Duration, usize, usize) {
    let (mut accepted, mut refused) = (Vec::new(), 0);
    let end = Instant::now() + duration;
    for turn in 0.. {
        let (sent, target) = (Instant::now(), turn % targets.len());
        if sent > end {
            break;
        }
        let (client, path, body) = &mut targets[target];
        match client.post_text(path, *body).await.status.as_u16() {
            429 => refused += 1,
            // Redis timed out: refused, whether Redis has counted the attempt or not.
            503 => {}
            _ => accepted.push((sent, Instant::now())),
        }
        tokio::time::sleep_until(sent + Duration::from_millis(7)).await;
    }
    let spans = accepted.windows(limit + 1).map(|group| group[limit].1 - group[0].0);
    (spans.min().unwrap_or(Duration::MAX), accepted.len(), refused)
}

/// Both limits are sliding windows, here short ones; the default ones use the same code.
#[tokio::test(flavor = "multi_thread")]
async fn rate_limits_hold_in_every_window_across_three_servers() {
    let redis = RedisServer::start().await;
    let mut servers = Vec::new();
    for _ in 0..3 {
        let setup = Setup::new(program()).argument("--redis").argument(redis.url(0));
        let setup = setup.argument("--on-redis-down").argument("refuse");
        let setup = setup.environment("BOXOFFICE_BOOK_LIMIT", "5/1s");
        servers.push(setup.environment("BOXOFFICE_CANCEL_LIMIT", "3/2s").start().await);
    }
    let targets = |path: &str, body: &'static str| {
        servers.iter().map(|server| (server.user("ada"), path.to_owned(), body)).collect::<Vec<_>>()
    };
    // Event and booking need not exist: every well-formed attempt counts.
    let order = r#"{"eventId":"evt_01h455vb4pex5vsknk084sn02q","ticketQuantity":1}"#;
    let cancel = "/v1/bookings/bkg_01h455vb4pex5vsknk084sn02q/cancel";
    let duration = Duration::from_secs(5);
    let (books, cancels) = tokio::join!(
        send_attempts(targets("/v1/bookings", order), 5, duration),
        send_attempts(targets(cancel, "{}"), 3, duration)
    );
    for ((shortest, accepted, refused), limit, window) in [(books, 5, 1), (cancels, 3, 2)] {
        assert!(shortest + SLACK >= Duration::from_secs(window), "{} within {shortest:?}", limit + 1);
        assert!(accepted > limit && refused > 0, "{accepted} accepted, {refused} refused");
    }
}
