//! Access to NATS: certificates, credentials and permissions, on a real NATS server.

use std::fmt::Write as _;
use std::path::Path;
use std::time::Duration;

use async_nats::{Client, ConnectOptions};
use futures_util::StreamExt as _;
use nkeys::KeyPair;
use serde_json::{Value, json};
use testkit::{Certificates, Exit, NatsServer, Server, Setup, event_body, eventually, within_deadline};

use crate::program;

/// Part of every secret.
const MARK: &str = "canary5ecret";

/// Settings of a server with these arguments, which logs at level debug.
fn setup_with(words: &[String]) -> Setup {
    let debug = ["--log".to_owned(), "debug".to_owned()];
    debug.iter().chain(words).fold(Setup::new(program()), Setup::argument)
}

fn words(url: String, more: &[(&str, &Path)]) -> Vec<String> {
    let more = more.iter().flat_map(|(flag, file)| [(*flag).to_owned(), file.display().to_string()]);
    ["--nats".to_owned(), url].into_iter().chain(more).collect()
}

/// The status of NATS in readiness.
async fn status(server: &Server) -> String {
    let ready = server.anonymous().get("/readyz?verbose").await.expect(200);
    expect_no_secret(&ready.to_string());
    ready["nats"]["status"].as_str().expect("a status").to_owned()
}

async fn doctor(words: &[String]) -> (Exit, String) {
    let folder = tempfile::tempdir().expect("a folder");
    let url = format!("sqlite://{}", folder.path().join("boxoffice.db").display());
    let database = ["--database".to_owned(), url];
    program().run(["migrate".to_owned()].iter().chain(&database)).await;
    let finished = program().run(["doctor".to_owned()].iter().chain(&database).chain(words)).await;
    (finished.exit, finished.stdout + &finished.stderr)
}

fn expect_no_secret(output: &str) {
    assert!(!output.contains(MARK), "a secret leaks: {output}");
}

/// Expects that a server with these arguments connects to NATS, and that no output has a secret.
async fn expect_connected(words: &[String]) {
    let server = setup_with(words).start().await;
    eventually("NATS accepts the connection", async || {
        let status = status(&server).await;
        (!status.starts_with("no connection") && !status.starts_with("NATS reports an error")).then_some(())
    })
    .await;
    let (ending, output) = doctor(words).await;
    assert_eq!(ending, Exit::Code(0), "{output}");
    expect_no_secret(&output);
    expect_no_secret(&server.log().all().join("\n"));
}

/// Expects that a server with these arguments cannot connect for this reason, that it reports this in
/// readiness, log and `doctor`, that it sells nevertheless, and that no output has a secret.
async fn expect_rejected(words: &[String], why: &str) {
    let server = setup_with(words).start().await;
    let event = server.admin().create_event(&event_body(1)).await;
    server.user("user-1").book(&event, 1).await.expect(201);
    eventually("readiness reports the reason", async || {
        let status = status(&server).await;
        (status == format!("no connection to NATS: {why}")).then_some(())
    })
    .await;
    for words in ["cannot connect to NATS", why] {
        server.log().expect(words).await;
    }
    expect_no_secret(&server.log().all().join("\n"));
    let (ending, output) = doctor(words).await;
    assert_ne!(ending, Exit::Code(0), "{output}");
    assert!(output.contains(why), "{output}");
    expect_no_secret(&output);
}

#[tokio::test(flavor = "multi_thread")]
async fn server_certificates_are_verified_with_the_configured_ca() {
    let folder = tempfile::tempdir().expect("a folder");
    let Certificates { root, other, server, key } = Certificates::make(folder.path());
    let (server, key) = (server.display(), key.display());
    let nats = NatsServer::start_with_config(&format!(
        r#"tls: {{ cert_file: "{server}", key_file: "{key}" }}
           authorization: {{ user: "ada", password: "{MARK}" }}"#
    ))
    .await;
    let login = format!("ada:{MARK}");
    let url = |scheme: &str| nats.url_with_login(scheme, &login);
    expect_connected(&words(url("tls"), &[("--nats-ca", &root)])).await;
    // TLS is used where the NATS server requires it.
    expect_connected(&words(url("nats"), &[("--nats-ca", &root)])).await;
    let by_number = url("tls").replace("localhost", "127.0.0.1");
    let unknown = "invalid peer certificate: UnknownIssuer";
    expect_rejected(&words(url("tls"), &[("--nats-ca", &other)]), unknown).await;
    expect_rejected(&words(url("tls"), &[]), unknown).await;
    let server = setup_with(&words(by_number, &[("--nats-ca", &root)])).start().await;
    eventually("the name is checked", async || {
        status(&server).await.contains("not valid for name").then_some(())
    })
    .await;
    // With the scheme `tls` nothing is sent without TLS.
    let plain = NatsServer::start().await;
    let server =
        setup_with(&words(plain.url_with_login("tls", &login), &[("--nats-ca", &root)])).start().await;
    eventually("it insists on TLS", async || {
        status(&server).await.starts_with("no connection to NATS: received corrupt").then_some(())
    })
    .await;

    let (empty, missing) = (folder.path().join("names"), folder.path().join("missing"));
    for (file, why) in [(&empty, "contains no certificate"), (&missing, "No such file")] {
        let setup = setup_with(&words(url("tls"), &[("--nats-ca", file)]));
        let mut process = setup.spawn();
        assert_eq!(process.wait_for_exit().await, Exit::Code(1));
        let output = process.stderr.all().join("\n");
        assert!(output.contains("--nats-ca") && output.contains(why), "{output}");
        expect_no_secret(&output);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn credentials_in_the_url_are_used() {
    let password = format!("{MARK}/p@ss word");
    let nats = NatsServer::start_with_config(&format!(
        r#"authorization: {{ user: "ada lovelace", password: "{password}" }}"#
    ))
    .await;
    let written = format!("{MARK}%2Fp%40ss%20word");
    expect_connected(&words(nats.url_with_login("nats", &format!("ada%20lovelace:{written}")), &[])).await;
    let why = "authentication failed";
    expect_rejected(&words(nats.url_with_login("nats", &format!("ada%20lovelace:{MARK}")), &[]), why).await;
    expect_rejected(&words(nats.url_with_login("nats", &format!("bob:{written}")), &[]), why).await;
    expect_rejected(&words(nats.url(), &[]), why).await;

    let token = format!("{MARK}-token");
    let nats = NatsServer::start_with_config(&format!(r#"authorization: {{ token: "{token}" }}"#)).await;
    expect_connected(&words(nats.url_with_login("nats", &token), &[])).await;
    expect_rejected(&words(nats.url_with_login("nats", &format!("{token}x")), &[]), why).await;
}

/// Errors in an address are reported without quoting it.
#[tokio::test]
async fn errors_do_not_quote_the_address() {
    for url in ["http://ada:{}@nats", "nats://ada:{}@nats:port", "nats://ada:{}@a,nats://bob:{}@b"] {
        let url = url.replace("{}", MARK);
        let setup = setup_with(&words(url.clone(), &[]));
        let mut process = setup.spawn();
        assert_eq!(process.wait_for_exit().await, Exit::Code(2), "{url}");
        let output = process.stderr.all().join("\n");
        assert!(output.contains("--nats "), "{output}");
        expect_no_secret(&output);
    }
}

/// A NATS JWT (version 2) about a key, signed by another key.
fn signed_jwt(by: &KeyPair, about: &KeyPair, name: &str, nats: &Value) -> String {
    let encode = |bytes: &[u8]| data_encoding::BASE64URL_NOPAD.encode(bytes);
    let header = json!({"typ": "JWT", "alg": "ed25519-nkey"});
    let claims = json!({"jti": name, "iat": 1_700_000_000, "iss": by.public_key(), "sub": about.public_key(),
        "name": name, "nats": nats});
    let mut token = [header, claims].map(|part| encode(part.to_string().as_bytes())).join(".");
    let signature = by.sign(token.as_bytes()).expect("a signature");
    write!(token, ".{}", encode(&signature)).expect("text");
    token
}

/// A credentials file, as `nsc` writes it.
fn credentials(token: &str, key: &KeyPair) -> String {
    let seed = key.seed().expect("a seed");
    format!(
        "-----BEGIN NATS USER JWT-----\n{token}\n------END NATS USER JWT------\n\n\
         -----BEGIN USER NKEY SEED-----\n{seed}\n------END USER NKEY SEED------\n"
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn a_credentials_file_authenticates_the_client() {
    let (operator, account) = (KeyPair::new_operator(), KeyPair::new_account());
    let (system, user, other_user) = (KeyPair::new_account(), KeyPair::new_user(), KeyPair::new_user());
    let unlimited = json!({
        "subs": -1, "data": -1, "payload": -1, "imports": -1, "exports": -1, "wildcards": true, "conn": -1,
        "leaf": -1,
    });
    let streams = testkit::with_fields(
        unlimited.clone(),
        &json!({"mem_storage": -1, "disk_storage": -1, "streams": -1, "consumer": -1}),
    );
    let account_of = |key: &KeyPair, name: &str, limits: &Value| {
        signed_jwt(&operator, key, name, &json!({"type": "account", "version": 2, "limits": limits}))
    };
    let by = signed_jwt(
        &operator,
        &operator,
        "operator",
        &json!({"type": "operator", "version": 2, "system_account": system.public_key()}),
    );
    let nats = NatsServer::start_with_config(&format!(
        "operator: {by}\nsystem_account: {}\nresolver: MEMORY\nresolver_preload: {{ {}: {}, {}: {} }}\n",
        system.public_key(),
        account.public_key(),
        account_of(&account, "sales", &streams),
        system.public_key(),
        account_of(&system, "system", &unlimited),
    ))
    .await;
    let member = json!({"type": "user", "version": 2, "subs": -1, "data": -1, "payload": -1});
    let token = signed_jwt(&account, &user, "boxoffice", &member);
    let folder = tempfile::tempdir().expect("a folder");
    let file = |name: &str, text: String| {
        let path = folder.path().join(name);
        std::fs::write(&path, text).expect("a file");
        path
    };
    let good = file("good.creds", credentials(&token, &user));
    expect_connected(&words(nats.url(), &[("--nats-creds", &good)])).await;
    let why = "authentication failed";
    expect_rejected(&words(nats.url(), &[]), why).await;
    // The token of another user, and a token that the account has not signed.
    let stolen = file("stolen.creds", credentials(&token, &other_user));
    expect_rejected(&words(nats.url(), &[("--nats-creds", &stolen)]), why).await;
    let forged = signed_jwt(&KeyPair::new_account(), &user, "boxoffice", &member);
    let forged = file("forged.creds", credentials(&forged, &user));
    expect_rejected(&words(nats.url(), &[("--nats-creds", &forged)]), why).await;

    // Neither the token nor the seed is logged, whether the file can be used or not.
    let broken = file("broken.creds", format!("{token}\n{}\n", user.seed().expect("a seed")));
    for (creds, code) in [(&good, None), (&broken, Some(1))] {
        let setup = setup_with(&words(nats.url(), &[("--nats-creds", creds)]));
        let mut process = setup.spawn();
        match code {
            Some(code) => assert_eq!(process.wait_for_exit().await, Exit::Code(code)),
            None => drop(process.stderr.find(|line| line.contains("NATS is connected").then_some(())).await),
        }
        let output = process.stderr.all().join("\n");
        for secret in [&token, &user.seed().expect("a seed")] {
            assert!(!output.contains(secret.as_str()), "{output}");
        }
        assert!(code.is_none() || output.contains("--nats-creds"), "{output}");
    }
}

/// The example configuration in `docs/operations.md`.
fn documented_config() -> String {
    let page = include_str!("../../../../../docs/operations.md");
    let (_, section) = page.split_once("### Rights on NATS").expect("the section is there");
    let (_, rest) = section.split_once("```conf\n").expect("the example is there");
    rest.split_once("```").expect("it ends").0.to_owned()
}

async fn connect(nats: &NatsServer, name: &str, password: &str) -> Client {
    let options = ConnectOptions::with_user_and_password(name.to_owned(), password.to_owned());
    within_deadline("a connection", options.connect(nats.url())).await.expect("the login is accepted")
}

/// True if NATS accepts a message. It reports a forbidden one before it replies to the next command.
async fn may_publish(name: &str, password: &str, nats: &NatsServer, subject: &str) -> bool {
    let (sender, mut events) = tokio::sync::mpsc::unbounded_channel();
    let options = ConnectOptions::with_user_and_password(name.to_owned(), password.to_owned());
    let options = options.event_callback(move |event| {
        let _ = sender.send(event.to_string());
        std::future::ready(())
    });
    let client =
        within_deadline("a connection", options.connect(nats.url())).await.expect("the login is accepted");
    client.publish(subject.to_owned(), "{}".into()).await.expect("sent");
    client.flush().await.expect("taken");
    client.subscribe("forbidden.as.a.mark").await.expect("sent");
    client.flush().await.expect("taken");
    loop {
        let event = within_deadline("NATS reports what is forbidden", events.recv()).await.expect("an event");
        if event.contains(&format!(r#"Publish to "{subject}""#)) {
            return false;
        }
        if event.contains("forbidden.as.a.mark") {
            return true;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_documented_permissions_are_enough_and_no_more_than_needed() {
    let nats = NatsServer::start_with_config(&documented_config()).await;
    let server = setup_with(&words(nats.url_with_login("nats", "boxoffice:change-this"), &[])).start().await;
    let event = server.admin().create_event(&event_body(10)).await;
    let gateway = connect(&nats, "gateway", "change-this-too").await;
    let subscriber = connect(&nats, "subscriber", "and-this").await;
    let mut notifications = subscriber.subscribe("event.booking.created").await.expect("a subscription");
    subscriber.flush().await.expect("subscribed");
    let order = json!({"eventId": event, "userId": "user-1", "ticketQuantity": 2}).to_string();
    let reply = eventually("the service replies", async || {
        gateway.request("booking.create", order.clone().into()).await.ok()
    })
    .await;
    let reply: Value = serde_json::from_slice(&reply.payload).expect("JSON");
    assert_eq!(reply["success"], true, "{reply:#}");
    for subject in ["$SRV.PING", "$SRV.INFO.boxoffice", "$SRV.STATS.boxoffice"] {
        gateway.request(subject, "".into()).await.expect("a reply");
    }
    let notification = within_deadline("a notification", notifications.next()).await.expect("a message");
    let notification: Value = serde_json::from_slice(&notification.payload).expect("JSON");
    assert_eq!(notification["bookingId"], reply["data"]["id"]);
    // A client with the permission can read the stream.
    let streams = async_nats::jetstream::new(subscriber.clone());
    eventually("both entries are on the stream", async || {
        (crate::ledger_stream::length(&streams).await == 2).then_some(())
    })
    .await;
    let entries = crate::ledger_stream::read(&streams).await;
    assert_eq!(entries[1].event["type"], "booking.created");

    // No other client can publish ledger entries, or on subjects that only boxoffice uses.
    let ledger = format!("boxoffice.ledger.{event}");
    for (name, password) in [("gateway", "change-this-too"), ("subscriber", "and-this")] {
        for subject in
            [ledger.as_str(), "boxoffice.wakeup", "event.booking.created", "$JS.API.STREAM.PURGE.BOXOFFICE"]
        {
            assert!(!may_publish(name, password, &nats, subject).await, "{name} may publish on {subject}");
        }
    }
    assert!(!may_publish("subscriber", "and-this", &nats, "booking.create").await);
    assert!(may_publish("gateway", "change-this-too", &nats, "booking.stats").await);

    // Nor can it have boxoffice reply to such a subject.
    let purge = "$JS.API.STREAM.PURGE.BOXOFFICE";
    for reply_subject in [purge, ledger.as_str(), "event.booking.created", "booking.cancel"] {
        gateway
            .publish_with_reply("booking.stats", reply_subject.to_owned(), "{}".into())
            .await
            .expect("sent");
    }
    gateway.request("booking.stats", "{}".into()).await.expect("a reply, after those before");
    assert_eq!(crate::ledger_stream::length(&streams).await, 2);
    let nothing = tokio::time::timeout(Duration::from_millis(100), notifications.next()).await;
    assert!(nothing.is_err(), "{nothing:?}");
    assert_eq!(status(&server).await, "ok");
    let log = server.log().all().join("\n");
    assert!(!log.contains("Permissions Violation"), "{log}");
}

/// Each permission that is removed is reported as missing.
#[tokio::test(flavor = "multi_thread")]
async fn missing_permissions_are_named() {
    for (permission, error) in [
        (r#""booking.* boxoffice", "#, r#"Permissions Violation for Subscription to "booking.create""#),
        (r#""$JS.API.INFO", "$JS.API.STREAM.INFO.BOXOFFICE","#, "$JS.API.STREAM.INFO.BOXOFFICE"),
    ] {
        let with = documented_config();
        let without = with.replacen(permission, "", 1);
        assert_ne!(with, without);
        let nats = NatsServer::start_with_config(&without).await;
        let words = words(nats.url_with_login("nats", "boxoffice:change-this"), &[]);
        let server = setup_with(&words).start().await;
        eventually("readiness names it", async || {
            let status = status(&server).await;
            (status.starts_with("NATS reports an error") && status.contains(error)).then_some(())
        })
        .await;
        for words in ["NATS reports an error", "Permissions Violation"] {
            server.log().expect(words).await;
        }
    }
}
