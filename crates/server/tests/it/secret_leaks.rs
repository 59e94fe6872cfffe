//! Secrets stay where they were put: marked ones go into every input, and must come out of no output.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt as _;

use hyper::Method;
use serde_json::json;
use testkit::{Exit, Program, ProgramOutput, RawConnection, Response, Setup, Tokens, event_body, id_of};

use crate::program;

/// Begins every marked secret.
const MARK: &str = "canary5ecret";

/// A marked secret, long enough to sign tokens.
fn marked(what: &str) -> String {
    format!("{MARK}-{what}-0123456789abcdef0123456789abcdef")
}

/// Nothing of what was marked, and no token, whose parts are as good as a secret.
#[track_caller]
fn silent(tokens: &[String], place: &str, said: &str) {
    assert!(!said.contains(MARK), "{place} tells a secret: {said}");
    for part in tokens.iter().flat_map(|token| token.split('.')).filter(|part| part.len() > 8) {
        // The header of every token is the same and no secret.
        let is_header = part.starts_with("eyJ0eXAi") || part.starts_with("eyJhbGci");
        assert!(is_header || !said.contains(part), "{place} tells a part of a token: {said}");
    }
}

#[tokio::test]
async fn servers_leak_no_secrets() {
    for format in ["text", "json"] {
        let secret = marked("jwt");
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
        let shown = vec![admin_token.clone(), forged.clone()];
        let mut admin = testkit::Client::new(address, Some(admin_token.clone()));
        let event = admin.create_event(&event_body(10)).await;

        let mut answers: Vec<Response> = Vec::new();
        let bearers = [format!("Bearer {forged}"), format!("Basic {}", marked("basic")), marked("bare")];
        for authorization in &bearers {
            let headers = [("authorization", authorization.as_str())];
            answers.push(admin.request_with(Method::GET, "/v1/stats", &headers, "").await);
        }
        let (key, note) = (marked("key"), marked("note"));
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
            let answer = admin.request_with(Method::POST, "/v1/bookings", &headers, body).await;
            assert!(answer.status.as_u16() < 500, "{answer:?}");
            answers.push(answer);
        }
        let wrong_type = json!({"eventId": event, "ticketQuantity": note});
        let booking = id_of(&answers[3].json());
        answers.push(admin.post("/v1/bookings", &wrong_type).await);
        answers.push(admin.get(&format!("/v1/bookings?status={note}&after={note}")).await);
        answers.push(admin.get(&format!("/v1/events/{note}")).await);
        answers.push(admin.get("/metrics").await);
        answers.push(admin.get("/readyz?verbose").await);
        answers.push(admin.get("/openapi.json").await);
        answers.push(admin.get("/docs").await);
        // What is stored is shown to those who may see it, and logged nowhere.
        let cancelled = admin.post(&format!("/v1/bookings/{booking}/cancel"), &json!({"reason": note})).await;
        assert_eq!(cancelled.expect(200)["cancellationReason"], note);
        let mut raw = RawConnection::open(address).await;
        raw.write(format!("GET /v1/events HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {admin_token}\r\nbroken {note}\r\n\r\n")).await;
        answers.extend(raw.read_response().await);

        for answer in &answers {
            silent(&shown, "an answer", &String::from_utf8_lossy(&answer.body));
            silent(&shown, "a header", &format!("{:?}", answer.headers));
        }
        process.terminate();
        let mut process = process;
        assert_eq!(process.wait_for_exit().await, Exit::Code(0));
        // The path of a request is no place for secrets, and is logged at `debug`.
        let log = process.stderr.all().join("\n").replace(&format!("/v1/events/{note}"), "");
        assert!(log.contains("answered"), "{log}");
        silent(&shown, "the log", &log);
        silent(&shown, "standard output", &process.stdout.all().join("\n"));
    }
}

async fn run_with(secret: impl Into<OsString>, words: &[&str]) -> ProgramOutput {
    let mut command = program().command(words);
    command.env("BOXOFFICE_JWT_SECRET", secret.into());
    Program::finish(command).await
}

#[track_caller]
fn says_nothing(finished: &ProgramOutput, code: i32) {
    assert_eq!(finished.exit, Exit::Code(code), "{finished:?}");
    silent(&[], "standard output", &finished.stdout);
    silent(&[], "standard error", &finished.stderr);
}

#[tokio::test]
async fn commands_leak_no_secrets() {
    let folder = tempfile::tempdir().unwrap();
    let url = format!("sqlite://{}", folder.path().join("boxoffice.db").display());
    let secret = marked("jwt");
    let database = ["--database", &url];
    for words in
        [&["migrate"][..], &["audit"], &["doctor"], &["sweep"], &["doctor", "--json"], &["audit", "--json"]]
    {
        says_nothing(&run_with(&secret, &[words, &database].concat()).await, 0);
    }
    for words in
        [&["config"][..], &["config", "--json"], &["--help"], &["serve", "--help"], &["token", "--help"]]
    {
        says_nothing(&run_with(&secret, words).await, 0);
    }
    says_nothing(&run_with("x", &["config", "--jwt-secret", &secret]).await, 0);
    let given = run_with(&secret, &["config", "--json"]).await;
    let given: serde_json::Value = serde_json::from_str(&given.stdout).unwrap();
    assert_eq!(given["jwt-secret"], json!({"value": "********", "from": "environment"}));

    // Wrong usage names what is wrong, not what was given for a secret.
    let short = format!("{MARK}-short");
    says_nothing(&run_with(&short, &["serve"]).await, 2);
    says_nothing(&run_with(&short, &["token", "--sub", "ada"]).await, 2);
    says_nothing(&run_with(&secret, &["serve", "--frobnicate"]).await, 2);
    says_nothing(&run_with(&secret, &["serve", "--hold", "soon"]).await, 2);
    says_nothing(&run_with(&secret, &["token"]).await, 2);
    says_nothing(&run_with(&secret, &["serve", "--database", "sqlite:///no/such/folder/x.db"]).await, 3);
    let mut bytes = secret.into_bytes();
    bytes.push(0xff);
    says_nothing(&run_with(OsString::from_vec(bytes), &["serve"]).await, 2);
}

#[tokio::test]
async fn errors_do_not_quote_the_configuration_file() {
    let folder = tempfile::tempdir().unwrap();
    let (file, secret) = (folder.path().join("boxoffice.toml"), marked("file"));
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
        // Where the file is good after all, there is no database to serve.
        let database = "sqlite:///no/such/folder/boxoffice.db";
        let words = ["serve", "--database", database, "--config", file.to_str().unwrap()];
        let finished = program().run(words).await;
        says_nothing(&finished, 2);
        assert!(finished.stderr.contains(line), "{wrong}: {finished:?}");
    }
    std::fs::write(&file, format!("jwt-secret = \"{secret}\"\n")).unwrap();
    says_nothing(&program().run(["config", "--config", file.to_str().unwrap()]).await, 0);
}
