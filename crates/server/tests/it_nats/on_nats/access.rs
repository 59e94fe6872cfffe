//! Who is let in, by whom, and to what: certificates, credentials and rights on a real NATS.

use std::fmt::Write as _;
use std::path::Path;
use std::time::Duration;

use async_nats::{Client, ConnectOptions};
use futures_util::StreamExt as _;
use nkeys::KeyPair;
use serde_json::{Value, json};
use testkit::{Certificates, Exit, NatsServer, Server, Setup, event_body, eventually, within_deadline};

use crate::program;

/// Marks every secret.
const MARK: &str = "canary5ecret";

/// A program that is told of a NATS by these words.
fn told(words: &[String]) -> Setup {
    let debug = ["--log".to_owned(), "debug".to_owned()];
    debug.iter().chain(words).fold(Setup::new(program()), Setup::argument)
}

fn words(url: String, more: &[(&str, &Path)]) -> Vec<String> {
    let more = more.iter().flat_map(|(flag, file)| [(*flag).to_owned(), file.display().to_string()]);
    ["--nats".to_owned(), url].into_iter().chain(more).collect()
}

/// What readiness says of NATS.
async fn status(server: &Server) -> String {
    let ready = server.anonymous().get("/readyz?verbose").await.expect(200);
    no_secret(&ready.to_string());
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

fn no_secret(said: &str) {
    assert!(!said.contains(MARK), "a secret is told: {said}");
}

/// With these words it is let in, and nothing it says tells a secret.
async fn gets_in(words: &[String]) {
    let server = told(words).start().await;
    eventually("NATS lets it in", async || {
        let status = status(&server).await;
        (!status.starts_with("no connection") && !status.starts_with("NATS refuses")).then_some(())
    })
    .await;
    let (ending, said) = doctor(words).await;
    assert_eq!(ending, Exit::Code(0), "{said}");
    no_secret(&said);
    no_secret(&server.log().all().join("\n"));
}

/// With these words it does not, says so wherever an operator looks, sells all the same, and tells no secret.
async fn stays_out(words: &[String], why: &str) {
    let server = told(words).start().await;
    let event = server.admin().create_event(&event_body(1)).await;
    server.user("user-1").book(&event, 1).await.expect(201);
    eventually("readiness says why", async || {
        let status = status(&server).await;
        (status == format!("no connection to NATS: {why}")).then_some(())
    })
    .await;
    for words in ["no connection to NATS", why] {
        server.log().expect(words).await;
    }
    no_secret(&server.log().all().join("\n"));
    let (ending, said) = doctor(words).await;
    assert_ne!(ending, Exit::Code(0), "{said}");
    assert!(said.contains(why), "{said}");
    no_secret(&said);
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
    gets_in(&words(url("tls"), &[("--nats-ca", &root)])).await;
    // A server that insists on TLS is given it.
    gets_in(&words(url("nats"), &[("--nats-ca", &root)])).await;
    let by_number = url("tls").replace("localhost", "127.0.0.1");
    let unknown = "invalid peer certificate: UnknownIssuer";
    stays_out(&words(url("tls"), &[("--nats-ca", &other)]), unknown).await;
    stays_out(&words(url("tls"), &[]), unknown).await;
    let server = told(&words(by_number, &[("--nats-ca", &root)])).start().await;
    eventually("the name is checked", async || {
        status(&server).await.contains("not valid for name").then_some(())
    })
    .await;
    // Where TLS is asked for, nothing is said without it.
    let plain = NatsServer::start().await;
    let server = told(&words(plain.url_with_login("tls", &login), &[("--nats-ca", &root)])).start().await;
    eventually("it insists on TLS", async || {
        status(&server).await.starts_with("no connection to NATS: received corrupt").then_some(())
    })
    .await;

    let (empty, missing) = (folder.path().join("names"), folder.path().join("missing"));
    for (file, why) in [(&empty, "there is no certificate"), (&missing, "No such file")] {
        let setup = told(&words(url("tls"), &[("--nats-ca", file)]));
        let mut process = setup.spawn();
        assert_eq!(process.wait_for_exit().await, Exit::Code(1));
        let said = process.stderr.all().join("\n");
        assert!(said.contains("--nats-ca") && said.contains(why), "{said}");
        no_secret(&said);
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
    gets_in(&words(nats.url_with_login("nats", &format!("ada%20lovelace:{written}")), &[])).await;
    let why = "it refuses the credentials";
    stays_out(&words(nats.url_with_login("nats", &format!("ada%20lovelace:{MARK}")), &[]), why).await;
    stays_out(&words(nats.url_with_login("nats", &format!("bob:{written}")), &[]), why).await;
    stays_out(&words(nats.url(), &[]), why).await;

    let token = format!("{MARK}-token");
    let nats = NatsServer::start_with_config(&format!(r#"authorization: {{ token: "{token}" }}"#)).await;
    gets_in(&words(nats.url_with_login("nats", &token), &[])).await;
    stays_out(&words(nats.url_with_login("nats", &format!("{token}x")), &[]), why).await;
}

/// What is wrong with an address is said without repeating it.
#[tokio::test]
async fn errors_do_not_quote_the_address() {
    for url in ["http://ada:{}@nats", "nats://ada:{}@nats:port", "nats://ada:{}@a,nats://bob:{}@b"] {
        let url = url.replace("{}", MARK);
        let setup = told(&words(url.clone(), &[]));
        let mut process = setup.spawn();
        assert_eq!(process.wait_for_exit().await, Exit::Code(2), "{url}");
        let said = process.stderr.all().join("\n");
        assert!(said.contains("--nats "), "{said}");
        no_secret(&said);
    }
}

/// A token of NATS's own kind (JWT, v2), signed by one key about another.
fn signed(by: &KeyPair, about: &KeyPair, name: &str, nats: &Value) -> String {
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
    let (system, user, stranger) = (KeyPair::new_account(), KeyPair::new_user(), KeyPair::new_user());
    let unlimited = json!({"subs": -1, "data": -1, "payload": -1, "imports": -1, "exports": -1, "wildcards": true,
        "conn": -1, "leaf": -1});
    let streams = testkit::with_fields(
        unlimited.clone(),
        &json!({"mem_storage": -1, "disk_storage": -1, "streams": -1, "consumer": -1}),
    );
    let account_of = |key: &KeyPair, name: &str, limits: &Value| {
        signed(&operator, key, name, &json!({"type": "account", "version": 2, "limits": limits}))
    };
    let by = signed(
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
    let token = signed(&account, &user, "boxoffice", &member);
    let folder = tempfile::tempdir().expect("a folder");
    let file = |name: &str, text: String| {
        let path = folder.path().join(name);
        std::fs::write(&path, text).expect("a file");
        path
    };
    let good = file("good.creds", credentials(&token, &user));
    gets_in(&words(nats.url(), &[("--nats-creds", &good)])).await;
    let why = "it refuses the credentials";
    stays_out(&words(nats.url(), &[]), why).await;
    // Somebody else's token, and a token that no account has signed.
    let stolen = file("stolen.creds", credentials(&token, &stranger));
    stays_out(&words(nats.url(), &[("--nats-creds", &stolen)]), why).await;
    let forged = signed(&KeyPair::new_account(), &user, "boxoffice", &member);
    let forged = file("forged.creds", credentials(&forged, &user));
    stays_out(&words(nats.url(), &[("--nats-creds", &forged)]), why).await;

    // Neither the token nor the seed is told by whom it serves, nor by what it cannot read.
    let broken = file("broken.creds", format!("{token}\n{}\n", user.seed().expect("a seed")));
    for (creds, code) in [(&good, None), (&broken, Some(1))] {
        let setup = told(&words(nats.url(), &[("--nats-creds", creds)]));
        let mut process = setup.spawn();
        match code {
            Some(code) => assert_eq!(process.wait_for_exit().await, Exit::Code(code)),
            None => drop(process.stderr.find(|line| line.contains("NATS is connected").then_some(())).await),
        }
        let said = process.stderr.all().join("\n");
        for secret in [&token, &user.seed().expect("a seed")] {
            assert!(!said.contains(secret.as_str()), "{said}");
        }
        assert!(code.is_none() || said.contains("--nats-creds"), "{said}");
    }
}

/// The example of the documents, as it stands there.
fn documented() -> String {
    let page = include_str!("../../../../../docs/operations.md");
    let (_, section) = page.split_once("### Rights on NATS").expect("the section is there");
    let (_, rest) = section.split_once("```conf\n").expect("the example is there");
    rest.split_once("```").expect("it ends").0.to_owned()
}

async fn connect(nats: &NatsServer, name: &str, password: &str) -> Client {
    let options = ConnectOptions::with_user_and_password(name.to_owned(), password.to_owned());
    within_deadline("a connection", options.connect(nats.url())).await.expect("it is let in")
}

/// Whether NATS takes a message from a client: what it forbids, it says before it answers the next question.
async fn may_publish(name: &str, password: &str, nats: &NatsServer, subject: &str) -> bool {
    let (sender, mut heard) = tokio::sync::mpsc::unbounded_channel();
    let options = ConnectOptions::with_user_and_password(name.to_owned(), password.to_owned());
    let options = options.event_callback(move |event| {
        let _ = sender.send(event.to_string());
        std::future::ready(())
    });
    let client = within_deadline("a connection", options.connect(nats.url())).await.expect("it is let in");
    client.publish(subject.to_owned(), "{}".into()).await.expect("sent");
    client.flush().await.expect("taken");
    client.subscribe("forbidden.as.a.mark").await.expect("asked");
    client.flush().await.expect("taken");
    loop {
        let event = within_deadline("NATS says what is forbidden", heard.recv()).await.expect("an event");
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
    let nats = NatsServer::start_with_config(&documented()).await;
    let server = told(&words(nats.url_with_login("nats", "boxoffice:change-this"), &[])).start().await;
    let event = server.admin().create_event(&event_body(10)).await;
    let gateway = connect(&nats, "gateway", "change-this-too").await;
    let subscriber = connect(&nats, "subscriber", "and-this").await;
    let mut announced = subscriber.subscribe("event.booking.created").await.expect("a subscription");
    subscriber.flush().await.expect("subscribed");
    let order = json!({"eventId": event, "userId": "user-1", "ticketQuantity": 2}).to_string();
    let reply = eventually("the service answers", async || {
        gateway.request("booking.create", order.clone().into()).await.ok()
    })
    .await;
    let reply: Value = serde_json::from_slice(&reply.payload).expect("JSON");
    assert_eq!(reply["success"], true, "{reply:#}");
    for question in ["$SRV.PING", "$SRV.INFO.boxoffice", "$SRV.STATS.boxoffice"] {
        gateway.request(question, "".into()).await.expect("an answer");
    }
    let news = within_deadline("an announcement", announced.next()).await.expect("a message");
    let news: Value = serde_json::from_slice(&news.payload).expect("JSON");
    assert_eq!(news["bookingId"], reply["data"]["id"]);
    // The stream is read by those who may.
    let streams = async_nats::jetstream::new(subscriber.clone());
    eventually("both entries are on the stream", async || {
        (crate::listener::length(&streams).await == 2).then_some(())
    })
    .await;
    let told = crate::listener::read(&streams).await;
    assert_eq!(told[1].event["type"], "booking.created");

    // Nobody else says what the ledger says, or what only boxoffice says.
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

    // Nor by having boxoffice reply there.
    let purge = "$JS.API.STREAM.PURGE.BOXOFFICE";
    for place in [purge, ledger.as_str(), "event.booking.created", "booking.cancel"] {
        gateway.publish_with_reply("booking.stats", place.to_owned(), "{}".into()).await.expect("sent");
    }
    gateway.request("booking.stats", "{}".into()).await.expect("an answer, after those before");
    assert_eq!(crate::listener::length(&streams).await, 2);
    let nothing = tokio::time::timeout(Duration::from_millis(100), announced.next()).await;
    assert!(nothing.is_err(), "{nothing:?}");
    assert_eq!(status(&server).await, "ok");
    let log = server.log().all().join("\n");
    assert!(!log.contains("Permissions Violation"), "{log}");
}

/// Each right that is taken away is missed, and an operator hears of it.
#[tokio::test(flavor = "multi_thread")]
async fn missing_permissions_are_named() {
    for (right, missed) in [
        (r#""booking.* boxoffice", "#, r#"Permissions Violation for Subscription to "booking.create""#),
        (r#""$JS.API.INFO", "$JS.API.STREAM.INFO.BOXOFFICE","#, "$JS.API.STREAM.INFO.BOXOFFICE"),
    ] {
        let with = documented();
        let without = with.replacen(right, "", 1);
        assert_ne!(with, without);
        let nats = NatsServer::start_with_config(&without).await;
        let words = words(nats.url_with_login("nats", "boxoffice:change-this"), &[]);
        let server = told(&words).start().await;
        eventually("readiness names it", async || {
            let status = status(&server).await;
            (status.starts_with("NATS refuses") && status.contains(missed)).then_some(())
        })
        .await;
        for words in ["NATS refuses", "Permissions Violation"] {
            server.log().expect(words).await;
        }
    }
}
