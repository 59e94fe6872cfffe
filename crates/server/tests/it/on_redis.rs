//! Limits and locks on a Redis that servers share, and what users and operators see while it is away.

use std::time::Duration;

use serde_json::{Value, json};
use testkit::{
    Certificates, Client, Exit, RedisServer, Response, Server, Setup, event_body, eventually, id_of,
};
use tokio::time::Instant;

use crate::program;

/// A server on a database of its own that shares this Redis, with a limit no test outlasts.
async fn sharing(redis: &RedisServer, on_down: &str) -> Server {
    let setup = Setup::new(program()).argument("--redis").argument(redis.url(0));
    let setup = setup.argument("--on-redis-down").argument(on_down);
    setup.environment("BOXOFFICE_BOOK_LIMIT", "5/1h").start().await
}

/// How the server says it is, once it says this.
async fn says(client: &mut Client, status: &str) -> Value {
    eventually("the server notices", async || {
        let shown = client.get("/readyz?verbose").await.expect(200);
        (shown["status"] == status).then_some(shown)
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn rate_limits_hold_across_servers_that_share_redis() {
    let redis = RedisServer::start().await;
    let mut servers = Vec::new();
    for _ in 0..3 {
        let server = sharing(&redis, "database").await;
        let event = server.admin().create_event(&event_body(100)).await;
        servers.push((event, server));
    }
    let (user, answers) = by_redis(&servers, async |user| {
        let mut answers = Vec::new();
        for attempt in 0..12 {
            let (event, server) = &servers[attempt % 3];
            answers.push(server.user(user).book(event, 1).await);
        }
        answers
    })
    .await;
    for (attempt, answer) in answers.iter().enumerate() {
        if attempt < 5 {
            answer.expect(201);
            let left = format!(";r={};", 4 - attempt);
            assert!(answer.header("ratelimit").contains(&left), "{answer:?}");
        } else {
            answer.expect_problem(429, "rate_limited");
        }
    }
    let (_, server) = servers.pop().expect("three");
    eventually("Redis is up", async || (server.metric("boxoffice_redis_up").await == 1).then_some(())).await;
    // What a server forgets, Redis does not.
    let server = server.restart().await;
    let event = server.admin().create_event(&event_body(100)).await;
    let again = [(event, server)];
    eventually("Redis decides", async || {
        let (event, server) = &again[0];
        let before = decisions(&again).await;
        let answer = server.user(&user).book(event, 1).await;
        (decisions(&again).await > before).then(|| answer.expect_problem(429, "rate_limited"))
    })
    .await;
}

/// How many attempts Redis has decided for these servers.
async fn decisions(servers: &[(String, Server)]) -> u64 {
    let mut decisions = 0;
    for (_, server) in servers {
        for kind in ["attempts_allowed", "attempts_denied", "attempts_denied_locally"] {
            decisions += server.metric(&format!("boxoffice_redis_{kind}_total")).await;
        }
    }
    decisions
}

/// What a user was answered, all by Redis, and the user. On a busy machine Redis may answer too late, and the
/// server then decides alone: another user tries again.
async fn by_redis(
    servers: &[(String, Server)],
    attempts: impl AsyncFn(&str) -> Vec<Response>,
) -> (String, Vec<Response>) {
    let mut number = 0;
    eventually("Redis decides", async || {
        number += 1;
        let (user, before) = (format!("ada-{number}"), decisions(servers).await);
        let answers = attempts(&user).await;
        let decided = decisions(servers).await - before;
        (decided == answers.len() as u64).then_some((user, answers))
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn sales_continue_without_redis_and_readiness_reports_degraded() {
    let mut redis = RedisServer::start().await;
    let server = sharing(&redis, "database").await;
    let (mut admin, mut ada) = (server.admin(), server.user("ada"));
    let event = admin.create_event(&event_body(100)).await;
    assert_eq!(says(&mut admin, "ready").await["redis"], "ok");
    redis.kill9();
    says(&mut admin, "degraded").await;
    let mut bookings = Vec::new();
    for _ in 0..5 {
        bookings.push(id_of(&ada.book(&event, 1).await.expect(201)));
    }
    ada.book(&event, 1).await.expect_problem(429, "rate_limited");
    admin.confirm(&bookings[0], "pay-1").await.expect(200);
    redis.restart().await;
    assert_eq!(says(&mut admin, "ready").await["redis"], "ok");
    admin.confirm(&bookings[1], "pay-2").await.expect(200);
    server.expect_clean().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn limited_requests_can_be_refused_while_redis_is_down() {
    let mut redis = RedisServer::start().await;
    let server = sharing(&redis, "refuse").await;
    let (mut admin, mut ada) = (server.admin(), server.user("ada"));
    let event = admin.create_event(&event_body(100)).await;
    let booking = eventually("Redis answers in time", async || {
        let answer = ada.book(&event, 1).await;
        (answer.status != 503).then(|| id_of(&answer.expect(201)))
    })
    .await;
    redis.kill9();
    says(&mut admin, "degraded").await;
    ada.book(&event, 1).await.expect_problem(503, "unavailable");
    // Money is never turned away for the sake of a limit.
    admin.confirm(&booking, "pay-1").await.expect(200);
    assert_eq!(admin.counts(&event).await, (0, 1, 99));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_starts_without_redis_and_connects_later() {
    let mut redis = RedisServer::start().await;
    redis.kill9();
    let mut server = sharing(&redis, "database").await;
    assert!(server.log().tail().contains("Redis cannot be reached"), "{}", server.log().tail());
    redis.restart().await;
    says(&mut server.admin(), "ready").await;
    server.terminate();
    assert_eq!(server.wait_for_exit().await, Exit::Code(0));
}

/// How the doctor ends that is told of a Redis with these words, and what it says of it.
async fn doctor(words: &[&str]) -> (Exit, Value) {
    let folder = tempfile::tempdir().expect("a folder");
    let database = format!("sqlite://{}", folder.path().join("boxoffice.db").display());
    program().run(["migrate", "--database", &database]).await;
    let found = program().run(["doctor", "--json", "--database", &database].iter().chain(words)).await;
    let shown: Value =
        serde_json::from_str(&found.stdout).unwrap_or_else(|error| panic!("{error}: {found:?}"));
    (found.exit, shown["dependencies"][1].clone())
}

#[tokio::test]
async fn doctor_checks_redis() {
    let evicting = RedisServer::start_with(&["--maxmemory-policy", "allkeys-lru"]).await;
    let look = async |url: &str| doctor(&["--redis", url]).await;
    let (ending, found) = look(&evicting.url(0)).await;
    assert_eq!((ending, &found["name"], &found["reachable"]), (Exit::Code(1), &json!("redis"), &json!(true)));
    assert!(
        found["problems"][0]["problem"].as_str().is_some_and(|text| text.contains("allkeys-lru")),
        "{found:#}"
    );
    evicting.command(&["CONFIG", "SET", "maxmemory-policy", "noeviction"]).await;
    let (ending, found) = look(&evicting.url(0)).await;
    assert_eq!((ending, &found["problems"]), (Exit::Code(0), &json!([])), "{found:#}");
    let mut gone = evicting;
    gone.kill9();
    let secret = format!("redis://:a-secret@127.0.0.1:{}", gone.port());
    let (ending, found) = look(&secret).await;
    assert_eq!((ending, &found["reachable"]), (Exit::Code(3), &json!(false)));
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

    let elsewhere = url(&format!(":{PASSWORD}"), "127.0.0.1");
    let stranger = url(":something-else", "localhost");
    let told = [
        (&good, Some(&root), 0, "\"reachable\":true"),
        (&good, Some(&other), 3, "invalid peer certificate: UnknownIssuer"),
        (&good, None, 3, "invalid peer certificate: UnknownIssuer"),
        (&elsewhere, Some(&root), 3, "only valid for DnsName"),
        (&stranger, Some(&root), 3, "Password authentication failed"),
    ];
    let looks = told.map(|(url, authorities, code, why)| async move {
        let mut words = vec!["--redis", url];
        words.extend(authorities.iter().flat_map(|file| ["--redis-ca", file]));
        // On a busy machine a connection may not be made in time, which is another reason.
        eventually(why, async || {
            let (ending, found) = doctor(&words).await;
            let said = found.to_string();
            assert!(!said.contains(PASSWORD), "{said}");
            (ending == Exit::Code(code) && said.contains(why)).then_some(())
        })
        .await;
    });
    futures_util::future::join_all(looks).await;

    let setup = Setup::new(program()).argument("--redis").argument(&good).argument("--redis-ca");
    let server = setup.argument(&root).start().await;
    assert_eq!(says(&mut server.admin(), "ready").await["redis"], "ok");
    let event = server.admin().create_event(&event_body(100)).await;
    let servers = [(event, server)];
    by_redis(&servers, async |user| vec![servers[0].1.user(user).book(&servers[0].0, 1).await]).await;

    let server = Setup::new(program()).argument("--redis").argument(&stranger).argument("--redis-ca");
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
        (
            "redis://:canary5ecret@localhost:1",
            "empty.pem",
            2,
            "--redis-ca is for an address that begins with rediss://",
        ),
        ("rediss://:canary5ecret@localhost:1", "empty.pem", 1, "no certificates of authorities"),
        ("rediss://:canary5ecret@localhost:1", "none.pem", 1, "No such file"),
        ("http://:canary5ecret@localhost:1", "empty.pem", 2, "a Redis address reads redis://"),
    ];
    for (url, name, code, why) in wrong {
        let words =
            ["doctor", "--database", "sqlite:///tmp/none.db", "--redis", url, "--redis-ca", &file(name)];
        let found = program().run(words).await;
        assert_eq!(found.exit, Exit::Code(code), "{url}: {found:?}");
        assert!(found.stderr.contains(why) && !found.stderr.contains("canary"), "{why}: {found:?}");
    }
}

/// How far clocks may run apart within a window.
const SLACK: Duration = Duration::from_millis(50);

/// Has one user knock at three servers in turn; the time from the sending of an accepted attempt to the answer of the
/// one `limit` later, the shortest there was, with how many were accepted and refused.
async fn knock(
    mut doors: Vec<(Client, String, &'static str)>,
    limit: usize,
    lasts: Duration,
) -> (Duration, usize, usize) {
    let (mut accepted, mut refused) = (Vec::new(), 0);
    let end = Instant::now() + lasts;
    for turn in 0.. {
        let (sent, door) = (Instant::now(), turn % doors.len());
        if sent > end {
            break;
        }
        let (client, path, body) = &mut doors[door];
        match client.post_text(path, *body).await.status.as_u16() {
            429 => refused += 1,
            // Redis was late: refused, whether it counted or not.
            503 => {}
            _ => accepted.push((sent, Instant::now())),
        }
        tokio::time::sleep_until(sent + Duration::from_millis(7)).await;
    }
    let spans = accepted.windows(limit + 1).map(|group| group[limit].1 - group[0].0);
    (spans.min().unwrap_or(Duration::MAX), accepted.len(), refused)
}

/// Both limits slide, with windows that can be waited for; the ones that are the default have the same code.
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
    let doors = |path: &str, body: &'static str| {
        servers.iter().map(|server| (server.user("ada"), path.to_owned(), body)).collect::<Vec<_>>()
    };
    // What is asked for need not be there: every well-formed attempt counts.
    let order = r#"{"eventId":"evt_01h455vb4pex5vsknk084sn02q","ticketQuantity":1}"#;
    let give_up = "/v1/bookings/bkg_01h455vb4pex5vsknk084sn02q/cancel";
    let lasts = Duration::from_secs(5);
    let (books, cancels) =
        tokio::join!(knock(doors("/v1/bookings", order), 5, lasts), knock(doors(give_up, "{}"), 3, lasts));
    for ((shortest, accepted, refused), limit, window) in [(books, 5, 1), (cancels, 3, 2)] {
        assert!(shortest + SLACK >= Duration::from_secs(window), "{} within {shortest:?}", limit + 1);
        assert!(accepted > limit && refused > 0, "{accepted} accepted, {refused} refused");
    }
}
