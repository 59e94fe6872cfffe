//! Tokens of external issuers: public keys, their rotation, issuers and audiences, and forgeries.
//!
//! The keys in `keys/` were made for these tests and are used nowhere else.

use hyper::Method;
use jsonwebtoken::crypto::sign;
use jsonwebtoken::{Algorithm, EncodingKey};
use serde_json::{Value, json};
use testkit::{Exit, Response, SECRET, Server, Setup, with_fields};

use crate::{program, server};

/// 2100-01-01T00:00:00Z, in seconds since the Unix epoch.
const LATER: u64 = 4_102_444_800;

const RSA: &[u8] = include_bytes!("keys/rsa.pem");
const RSA_PUBLIC: &[u8] = include_bytes!("keys/rsa.pub.pem");
const P256: &[u8] = include_bytes!("keys/p256.pem");
const ED25519: &[u8] = include_bytes!("keys/ed25519.pem");
const OTHER_ED25519: &[u8] = include_bytes!("keys/other.pem");

fn key_file(name: &str) -> String {
    format!("{}/tests/it/keys/{name}", env!("CARGO_MANIFEST_DIR"))
}

/// base64url without padding (RFC 4648, section 5).
fn base64url(bytes: &[u8]) -> String {
    const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let mut text = String::new();
    for group in bytes.chunks(3) {
        let bits =
            group.iter().fold(0_u32, |bits, byte| bits << 8 | u32::from(*byte)) << (8 * (3 - group.len()));
        for place in 0..=group.len() {
            text.push(char::from(LETTERS[(bits >> (18 - 6 * place) & 63) as usize]));
        }
    }
    text
}

/// Signs header and claims with this key, exactly as they are written, valid or not.
fn raw(header: &str, claims: &str, key: &EncodingKey, algorithm: Algorithm) -> String {
    let message = format!("{}.{}", base64url(header.as_bytes()), base64url(claims.as_bytes()));
    let signature = sign(message.as_bytes(), key, algorithm).expect("a signature");
    format!("{message}.{signature}")
}

fn secret(secret: impl AsRef<[u8]>) -> EncodingKey {
    EncodingKey::from_secret(secret.as_ref())
}

fn claims() -> Value {
    json!({"sub": "ada", "role": "admin", "exp": LATER})
}

/// A token of one of the key families, with these further claims.
fn signed_token(algorithm: Algorithm, more: &Value) -> String {
    let key = match algorithm {
        Algorithm::RS256 => EncodingKey::from_rsa_pem(RSA),
        Algorithm::ES256 => EncodingKey::from_ec_pem(P256),
        _ => EncodingKey::from_ed_pem(ED25519),
    };
    let header = format!("{{\"alg\":\"{algorithm:?}\",\"typ\":\"JWT\"}}");
    raw(&header, &with_fields(claims(), more).to_string(), &key.expect("a key"), algorithm)
}

async fn get_stats(server: &Server, token: &str) -> Response {
    let bearer = format!("Bearer {token}");
    server.anonymous().request_with(Method::GET, "/v1/stats", &[("authorization", &bearer)], "").await
}

async fn expect_accepted(server: &Server, case: &str, token: &str) {
    let response = get_stats(server, token).await;
    assert_eq!(response.status, 200, "{case}: {response:?}");
}

async fn expect_refused(server: &Server, case: &str, token: &str) {
    let response = get_stats(server, token).await;
    assert_eq!(response.status, 401, "{case}: {response:?}");
    response.expect_problem(401, "unauthenticated");
    assert_eq!(response.header("www-authenticate"), "Bearer", "{case}");
}

/// Settings of a server with these public keys and the secret of the tests.
fn with_keys(names: &[&str]) -> Setup {
    names.iter().fold(Setup::new(program()), |setup, name| {
        setup.argument("--jwt-public-key-file").argument(key_file(name))
    })
}

#[tokio::test]
async fn tokens_must_match_a_configured_key_family() {
    let families = [
        ("rsa.pub.pem", Algorithm::RS256),
        ("p256.pub.pem", Algorithm::ES256),
        ("ed25519.pub.pem", Algorithm::EdDSA),
    ];
    for (known, family) in families {
        let server = with_keys(&[known]).start().await;
        expect_accepted(&server, known, &signed_token(family, &json!({}))).await;
        expect_accepted(&server, "an HS256 token", &server.tokens().admin()).await;
        for (_, other) in families.iter().filter(|(_, other)| *other != family) {
            expect_refused(&server, &format!("{other:?} by {known}"), &signed_token(*other, &json!({})))
                .await;
        }
    }
}

#[tokio::test]
async fn all_configured_keys_are_accepted_during_rotation() {
    let server = with_keys(&["ed25519.pub.pem", "rsa.pub.pem", "p256.pub.pem"]).start().await;
    for family in [Algorithm::RS256, Algorithm::ES256, Algorithm::EdDSA] {
        expect_accepted(&server, &format!("{family:?}"), &signed_token(family, &json!({}))).await;
    }
    let new = "the new secret, 32 bytes and more";
    let setup = Setup::new(program())
        .argument("--jwt-secret")
        .argument(new)
        .argument("--jwt-secret")
        .argument(SECRET);
    let server = setup.start().await;
    for secret in [new, SECRET] {
        expect_accepted(&server, secret, &testkit::Tokens::new(secret).admin()).await;
    }
    expect_refused(
        &server,
        "a third",
        &testkit::Tokens::new("a third secret, which is not configured").admin(),
    )
    .await;
}

#[tokio::test]
async fn a_server_starts_with_only_a_public_key() {
    let folder = tempfile::tempdir().unwrap();
    let url = format!("sqlite://{}", folder.path().join("boxoffice.db").display());
    let file = key_file("ed25519.pub.pem");
    let words = ["serve", "--listen", "127.0.0.1:0", "--database", &url, "--jwt-public-key-file", &file];
    let process = testkit::Process::start(program().command(words));
    process.stderr.find(|line| line.contains("ready").then_some(())).await.expect("the server is ready");
    for (name, why) in [("p384.pub.pem", "P-256"), ("none.pem", "No such file"), ("../main.rs", "PEM")] {
        let finished = program().run(["serve", "--jwt-public-key-file", &key_file(name)]).await;
        assert_eq!(finished.exit, Exit::Code(2), "{finished:?}");
        assert!(finished.stderr.contains(why), "{finished:?}");
    }
}

#[tokio::test]
async fn configured_issuer_and_audience_are_required() {
    let setup = Setup::new(program()).argument("--jwt-issuer").argument("https://id.example");
    let server = setup.argument("--jwt-audience").argument("boxoffice").start().await;
    let token = |more: &Value| server.tokens().sign(&with_fields(claims(), more));
    for good in [
        json!({"iss": "https://id.example", "aud": "boxoffice"}),
        json!({"iss": "https://id.example", "aud": ["others", "boxoffice"]}),
    ] {
        expect_accepted(&server, &good.to_string(), &token(&good)).await;
    }
    for wrong in [
        json!({}),
        json!({"iss": "https://id.example"}),
        json!({"aud": "boxoffice"}),
        json!({"iss": "https://id.example/", "aud": "boxoffice"}),
        json!({"iss": "HTTPS://ID.EXAMPLE", "aud": "boxoffice"}),
        json!({"iss": "https://id.example", "aud": "boxoffice2"}),
        json!({"iss": "https://id.example", "aud": []}),
        json!({"iss": "https://id.example", "aud": ["box", "office"]}),
        json!({"iss": "https://id.example", "aud": {"boxoffice": true}}),
        json!({"iss": ["https://evil.example"], "aud": "boxoffice"}),
        json!({"iss": 7, "aud": "boxoffice"}),
        json!({"iss": "", "aud": ""}),
    ] {
        expect_refused(&server, &wrong.to_string(), &token(&wrong)).await;
    }
}

/// Headers that name another key or another algorithm, each with a signature that matches its header.
fn forged_headers() -> Vec<(&'static str, String)> {
    let good = claims().to_string();
    let hmac = |header: &str, key: &[u8]| raw(header, &good, &secret(key), Algorithm::HS256);
    let with_known_secret = |header: &str| hmac(header, SECRET.as_bytes());
    let with_other_secret = |header: &str| hmac(header, b"an unconfigured secret of 32 bytes and more");
    let ed = EncodingKey::from_ed_pem(OTHER_ED25519).expect("a key");
    vec![
        ("HS256 with the public key as its secret", hmac(r#"{"alg":"HS256"}"#, RSA_PUBLIC)),
        ("the same without the last line end", hmac(r#"{"alg":"HS256"}"#, RSA_PUBLIC.trim_ascii_end())),
        ("alg RS256 with an HMAC signature", hmac(r#"{"alg":"RS256"}"#, RSA_PUBLIC)),
        ("alg none with an HMAC signature", with_known_secret(r#"{"alg":"none"}"#)),
        ("no algorithm", with_known_secret("{}")),
        ("an unknown algorithm", with_known_secret(r#"{"alg":"HS1"}"#)),
        ("an algorithm in lower case", with_known_secret(r#"{"alg":"hs256"}"#)),
        ("several algorithms", with_known_secret(r#"{"alg":["HS256"]}"#)),
        ("two algorithms", with_known_secret(r#"{"alg":"none","alg":"HS256"}"#)),
        ("a header that is a list", with_known_secret("[]")),
        ("a header that is no JSON", with_known_secret("HS256")),
        (
            "an extension that must be understood",
            with_known_secret(r#"{"alg":"HS256","crit":["b64"],"b64":false}"#),
        ),
        ("a list of no extensions", with_known_secret(r#"{"alg":"HS256","crit":[]}"#)),
        ("a key id that is a path", hmac(r#"{"alg":"HS256","kid":"../../../../dev/null"}"#, b"")),
        ("a key id that is SQL", hmac(r#"{"alg":"HS256","kid":"x' UNION SELECT 'k"}"#, b"k")),
        ("a key id that is a command", with_other_secret(r#"{"alg":"HS256","kid":"|id"}"#)),
        (
            "the address of a set of keys",
            with_other_secret(r#"{"alg":"HS256","jku":"http://127.0.0.1:1/jwks"}"#),
        ),
        (
            "the address of a certificate",
            with_other_secret(r#"{"alg":"HS256","x5u":"http://127.0.0.1:1/x.pem"}"#),
        ),
        ("a certificate of its own", with_other_secret(r#"{"alg":"HS256","x5c":["MIIB"]}"#)),
        ("a key of its own", with_other_secret(r#"{"alg":"HS256","jwk":{"kty":"oct","k":"YSBzZWNyZXQ"}}"#)),
        (
            "a public key of its own",
            raw(
                concat!(
                    r#"{"alg":"EdDSA","jwk":{"kty":"OKP","crv":"Ed25519","#,
                    r#""x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}}"#
                ),
                &good,
                &ed,
                Algorithm::EdDSA,
            ),
        ),
        ("another Ed25519 key", raw(r#"{"alg":"EdDSA"}"#, &good, &ed, Algorithm::EdDSA)),
    ]
}

#[tokio::test]
async fn token_headers_cannot_choose_the_key_or_algorithm() {
    let server = with_keys(&["rsa.pub.pem", "ed25519.pub.pem"]).start().await;
    for (case, token) in forged_headers() {
        expect_refused(&server, case, &token).await;
    }
    let mut log = server.log().all();
    log.retain(|line| line.contains("panic") || line.contains("ERROR"));
    assert_eq!(log, [] as [String; 0]);
}

#[tokio::test]
async fn malformed_claims_are_rejected() {
    let server = server().await;
    let header = r#"{"alg":"HS256","typ":"JWT"}"#;
    let forged = |claims: &str| raw(header, claims, &secret(SECRET), Algorithm::HS256);
    for claims in [
        r#"{"sub":"ada","exp":4102444800,"role":"user","role":"admin"}"#,
        r#"{"sub":"eve","sub":"ada","exp":4102444800}"#,
        r#"{"sub":"ada","exp":4102444800,"exp":1}"#,
        r#"{"sub":"ada","exp":1e400}"#,
        r#"{"sub":"ada","exp":NaN}"#,
        r#"{"sub":"ada","exp":"never"}"#,
        r#"{"sub":"ada","exp":-4102444800}"#,
        r#"{"sub":"ada\u0000","exp":4102444800}"#,
        r#"{"sub":"ada\u202e","exp":4102444800}"#,
        r#"{"sub":"а","exp":4102444800}"#,
        r#"{"sub":"ada","exp":4102444800,"nbf":4102444700}"#,
        r#"{"sub":"ada","exp":4102444800,"nbf":[]}"#,
        r#"{"sub":"ada","exp":4102444800,"role":"superuser"}"#,
        r#"{"sub":"ada","exp":4102444800,"role":"ADMIN"}"#,
        r#"{"sub":"ada","exp":4102444800"#,
        "\u{feff}{}",
        "",
        "4102444800",
    ] {
        expect_refused(&server, claims, &forged(claims)).await;
    }
    expect_refused(&server, "deeply nested", &forged(&"[".repeat(2_500))).await;
    let padded = with_fields(claims(), &json!({"pad": "x".repeat(20_000)})).to_string();
    let bearer = format!("Bearer {}", forged(&padded));
    let huge =
        server.anonymous().request_with(Method::GET, "/v1/stats", &[("authorization", &bearer)], "").await;
    assert_eq!(huge.status, 431, "exceeds the head limit: {huge:?}");
}

/// A token is valid only as a whole: no bit of it may differ, and none may be missing.
#[tokio::test]
async fn modified_tokens_are_rejected() {
    let server = with_keys(&["ed25519.pub.pem"]).start().await;
    for token in [server.tokens().admin(), signed_token(Algorithm::EdDSA, &json!({}))] {
        expect_accepted(&server, "as it was signed", &token).await;
        for place in (0..token.len()).step_by(7) {
            expect_refused(&server, "cut off", &token[..place]).await;
            let mut modified = token.clone().into_bytes();
            // Only some bits of a part's last character count, so a neighbouring character might decode to
            // the same.
            modified[place] = if modified[place] == b'z' { b'-' } else { b'z' };
            let modified = String::from_utf8(modified).expect("ASCII");
            expect_refused(&server, "modified", &modified).await;
        }
        for more in ["=", ".", "A", " x", "%00"] {
            expect_refused(&server, more, &format!("{token}{more}")).await;
        }
        expect_refused(
            &server,
            "in standard base64",
            &token.replace('-', "+").replace('_', "/").replacen('.', "=.", 1),
        )
        .await;
    }
}

#[tokio::test]
async fn two_authorization_headers_are_rejected() {
    let server = server().await;
    let bearer = format!("Bearer {}", server.tokens().admin());
    let twice = [("authorization", bearer.as_str()), ("authorization", bearer.as_str())];
    let response = server.anonymous().request_with(Method::GET, "/v1/stats", &twice, "").await;
    response.expect_problem(401, "unauthenticated");
}
