//! Secrets do not leak: marked secrets go into every input, and must appear in no output.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt as _;

use hyper::Method;
use serde_json::json;
use testkit::{Exit, Program, ProgramOutput, RawConnection, Response, Setup, Tokens, event_body, id_of};

use crate::program;

/// Prefix of every marked secret.
const MARK: &str = "canary5ecret";

/// A marked secret, long enough to sign tokens.
fn marked_secret(what: &str) -> String {
    format!("{MARK}-{what}-0123456789abcdef0123456789abcdef")
}

/// Expects no marked secret, and no part of a token, which is equivalent to a secret.
#[track_caller]
fn expect_no_secret(tokens: &[String], place: &str, output: &str) {
    assert!(!output.contains(MARK), "{place} has a secret: {output}");
    for part in tokens.iter().flat_map(|token| token.split('.')).filter(|part| part.len() > 8) {
        // The header is the same in every token, and not secret.
        let is_header = part.starts_with("eyJ0eXAi") || part.starts_with("eyJhbGci");
        assert!(is_header || !output.contains(part), "{place} has a part of a token: {output}");
    }
}

#[tokio::test]
async fn servers_leak_no_secrets() {
    for format in ["text", "json"] {
        let secret = marked_secret("jwt");
        let setup = Setup::new(program()).environment("BOXOFFICE_JWT_SECRET", &secret);
        let setup = setup.argument("--log").argument("trace").argument("--log-format").argument(format);
        let process = setup.spawn();
        let address = process.stderr.find(|line| {
            let at = line.find("127.0.0.1:")?;
            let address = line.get(at..)?;
            address.split(|c: char| !(c.is_ascii_digit() || ".:".contains(c))).next()?.parse().ok()
        });
        let address = address.await.expect("an address");
        let tokens = Tokens::new(&secret);
        let (admin_token, forged) = (tokens.admin(), format!("{}x", tokens.service()));
        let secrets = vec![admin_token.clone(), forged.clone()];
        let mut admin = testkit::Client::new(address, Some(admin_token.clone()));
        let event = admin.create_event(&event_body(10)).await;

        let mut responses: Vec<Response> = Vec::new();
        let bearers =
            [format!("Bearer {forged}"), format!("Basic {}", marked_secret("basic")), marked_secret("bare")];
        for authorization in &bearers {
            let headers = [("authorization", authorization.as_str())];
            responses.push(admin.request_with(Method::GET, "/v1/stats", &headers, "").await);
        }
        let (key, note) = (marked_secret("key"), marked_secret("note"));
        let order = json!({"eventId": event, "ticketQuantity": 1, "userId": "ada"});
        let headers = [
            ("content-type", "application/json"),
            ("idempotency-key", key.as_str()),
            ("cookie", note.as_str()),
        ];
        for body in [
            order.to_string(),
            order.to_string(),
            json!({"eventId": note}).to_string(),
            format!("{{\"{note}"),
        ] {
            let response = admin.request_with(Method::POST, "/v1/bookings", &headers, body).await;
            assert!(response.status.as_u16() < 500, "{response:?}");
            responses.push(response);
        }
        let wrong_type = json!({"eventId": event, "ticketQuantity": note});
        let booking = id_of(&responses[3].json());
        responses.push(admin.post("/v1/bookings", &wrong_type).await);
        responses.push(admin.get(&format!("/v1/bookings?status={note}&after={note}")).await);
        responses.push(admin.get(&format!("/v1/events/{note}")).await);
        responses.push(admin.get("/metrics").await);
        responses.push(admin.get("/readyz?verbose").await);
        responses.push(admin.get("/openapi.json").await);
        responses.push(admin.get("/docs").await);
        // Stored texts are returned to callers with permission, and are not logged.
        let cancelled = admin.post(&format!("/v1/bookings/{booking}/cancel"), &json!({"reason": note})).await;
        assert_eq!(cancelled.expect(200)["cancellationReason"], note);
        let mut raw = RawConnection::open(address).await;
        let head = "GET /v1/events HTTP/1.1\r\nhost: x\r\n";
        raw.write(format!("{head}authorization: Bearer {admin_token}\r\nbroken {note}\r\n\r\n")).await;
        responses.extend(raw.read_response().await);

        for response in &responses {
            expect_no_secret(&secrets, "a response", &String::from_utf8_lossy(&response.body));
            expect_no_secret(&secrets, "a header", &format!("{:?}", response.headers));
        }
        process.terminate();
        let mut process = process;
        assert_eq!(process.wait_for_exit().await, Exit::Code(0));
        // Paths of requests must not have secrets, and are logged at `debug`.
        let log = process.stderr.all().join("\n").replace(&format!("/v1/events/{note}"), "");
        assert!(log.contains("request completed"), "{log}");
        expect_no_secret(&secrets, "the log", &log);
        expect_no_secret(&secrets, "standard output", &process.stdout.all().join("\n"));
    }
}

async fn run_with(secret: impl Into<OsString>, words: &[&str]) -> ProgramOutput {
    let mut command = program().command(words);
    command.env("BOXOFFICE_JWT_SECRET", secret.into());
    Program::finish(command).await
}

#[track_caller]
fn expect_no_leak(finished: &ProgramOutput, code: i32) {
    assert_eq!(finished.exit, Exit::Code(code), "{finished:?}");
    expect_no_secret(&[], "standard output", &finished.stdout);
    expect_no_secret(&[], "standard error", &finished.stderr);
}

#[tokio::test]
async fn commands_leak_no_secrets() {
    let folder = tempfile::tempdir().unwrap();
    let url = format!("sqlite://{}", folder.path().join("boxoffice.db").display());
    let secret = marked_secret("jwt");
    let database = ["--database", &url];
    for words in
        [&["migrate"][..], &["audit"], &["doctor"], &["sweep"], &["doctor", "--json"], &["audit", "--json"]]
    {
        expect_no_leak(&run_with(&secret, &[words, &database].concat()).await, 0);
    }
    for words in
        [&["config"][..], &["config", "--json"], &["--help"], &["serve", "--help"], &["token", "--help"]]
    {
        expect_no_leak(&run_with(&secret, words).await, 0);
    }
    expect_no_leak(&run_with("x", &["config", "--jwt-secret", &secret]).await, 0);
    let printed = run_with(&secret, &["config", "--json"]).await;
    let printed: serde_json::Value = serde_json::from_str(&printed.stdout).unwrap();
    assert_eq!(printed["jwt-secret"], json!({"value": "********", "from": "environment"}));

    // Usage errors name the error, not the value of a secret.
    let short = format!("{MARK}-short");
    expect_no_leak(&run_with(&short, &["serve"]).await, 2);
    expect_no_leak(&run_with(&short, &["token", "--sub", "ada"]).await, 2);
    expect_no_leak(&run_with(&secret, &["serve", "--frobnicate"]).await, 2);
    expect_no_leak(&run_with(&secret, &["serve", "--hold", "soon"]).await, 2);
    expect_no_leak(&run_with(&secret, &["token"]).await, 2);
    expect_no_leak(&run_with(&secret, &["serve", "--database", "sqlite:///no/such/folder/x.db"]).await, 3);
    let mut bytes = secret.into_bytes();
    bytes.push(0xff);
    expect_no_leak(&run_with(OsString::from_vec(bytes), &["serve"]).await, 2);
}

#[tokio::test]
async fn errors_do_not_quote_the_configuration_file() {
    let folder = tempfile::tempdir().unwrap();
    let (file, secret) = (folder.path().join("boxoffice.toml"), marked_secret("file"));
    for (wrong, line) in [
        (format!("jwt-secret = \"{secret}\nhold = \"1h\"\n"), "line 1"),
        (format!("hold = \"1h\"\njwt-secret = {secret}\n"), "line 2"),
        (format!("jwt-secret = [\"{secret}\"\nlisten = 1"), "line "),
        (format!("jwt-secret = \"{secret}\"\njwt-secret = \"{secret}\"\n"), "line 2"),
        (format!("jwt-secret = \"\\q{secret}\"\n"), "line 1"),
        (format!("jwt-secret = {{ value = \"{secret}\" }}\n"), "jwt-secret"),
        (format!("jwt-secret = [[\"{secret}\"]]\n"), "jwt-secret"),
        (format!("jwt_secret = \"{secret}\"\n"), "jwt_secret"),
        (format!("[jwt]\nsecret = \"{secret}\"\n"), "jwt"),
        (format!("jwt-secret = \"{MARK}-short\"\n"), "at least 32 bytes"),
        (format!("jwt-secret = \"{secret}\"\nhold = \"soon\"\n"), "--hold"),
    ] {
        std::fs::write(&file, &wrong).unwrap();
        // If the file is accepted after all, there is no database to serve.
        let database = "sqlite:///no/such/folder/boxoffice.db";
        let words = ["serve", "--database", database, "--config", file.to_str().unwrap()];
        let finished = program().run(words).await;
        expect_no_leak(&finished, 2);
        assert!(finished.stderr.contains(line), "{wrong}: {finished:?}");
    }
    std::fs::write(&file, format!("jwt-secret = \"{secret}\"\n")).unwrap();
    expect_no_leak(&program().run(["config", "--config", file.to_str().unwrap()]).await, 0);
}
