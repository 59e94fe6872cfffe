//! Authentication: valid, expired and forged tokens.

use hyper::Method;
use jsonwebtoken::{Algorithm, Header};
use serde_json::{Value, json};
use testkit::{Client, Response, Server, Tokens};

use crate::{server, server_time};

/// 2100-01-01T00:00:00Z, in seconds since the Unix epoch.
const LATER: u64 = 4_102_444_800;
/// The base64url of `{"alg":"none","typ":"JWT"}`; below, of the same header with other algorithms.
const HEADER_NONE: &str = "eyJhbGciOiJub25lIiwidHlwIjoiSldUIn0";
const HEADER_NONE_MIXED_CASE: &str = "eyJhbGciOiJOb25FIiwidHlwIjoiSldUIn0";
const HEADER_RS256: &str = "eyJhbGciOiJSUzI1NiIsInR5cCI6IkpXVCJ9";

async fn get_with(server: &Server, path: &str, authorization: &str) -> Response {
    server.anonymous().request_with(Method::GET, path, &[("authorization", authorization)], "").await
}

/// Expects 401 on a route that needs a token, on one that needs none, and on an unknown one.
async fn expect_refused(server: &Server, case: &str, authorization: &str) {
    for path in ["/v1/bookings", "/v1/events", "/v1/nowhere"] {
        let response = get_with(server, path, authorization).await;
        assert_eq!(response.status, 401, "{case} at {path}: {response:?}");
        response.expect_problem(401, "unauthenticated");
        assert_eq!(response.header("www-authenticate"), "Bearer", "{case}");
    }
}

#[tokio::test]
async fn tokens_with_wrong_claims_are_refused() {
    let server = server().await;
    let good = json!({"sub": "ada", "role": "admin", "exp": LATER});
    let wrong = [
        json!({"exp": "4102444800"}),
        json!({"exp": 1_000_000_000}),
        json!({"exp": 0}),
        json!({"exp": -1}),
        json!({"exp": -1.5}),
        json!({"exp": true}),
        json!({"exp": [LATER]}),
        json!({"exp": {}}),
        json!({"nbf": LATER}),
        json!({"nbf": "1"}),
        json!({"nbf": -1}),
        json!({"role": "root"}),
        json!({"role": "Admin"}),
        json!({"role": ""}),
        json!({"role": 1}),
        json!({"role": ["admin"]}),
        json!({"role": {"admin": null}}),
        json!({"sub": ""}),
        json!({"sub": "x".repeat(129)}),
        json!({"sub": "a b"}),
        json!({"sub": "a/b"}),
        json!({"sub": "*"}),
        json!({"sub": "ada\u{0}"}),
        json!({"sub": "ada\n"}),
        json!({"sub": "ädä"}),
        json!({"sub": 7}),
        json!({"sub": ["ada"]}),
    ];
    for change in wrong {
        let claims = testkit::with_fields(good.clone(), &change);
        expect_refused(&server, &claims.to_string(), &bearer(&server.tokens().sign(&claims))).await;
    }
    for absent in ["exp", "sub"] {
        let claims = testkit::with_fields(good.clone(), &json!({absent: null}));
        expect_refused(&server, &claims.to_string(), &bearer(&server.tokens().sign(&claims))).await;
    }
    for name in ["exp", "sub", "role"] {
        let mut claims = good.clone();
        claims[name] = Value::Null;
        expect_refused(&server, &claims.to_string(), &bearer(&server.tokens().sign(&claims))).await;
    }
    for claims in [json!(["ada", LATER, null, "admin"]), json!("ada"), json!(null), json!({})] {
        expect_refused(&server, &claims.to_string(), &bearer(&server.tokens().sign(&claims))).await;
    }
}

#[tokio::test]
async fn forged_tokens_are_refused() {
    let server = server().await;
    let claims = json!({"sub": "ada", "role": "admin", "exp": LATER});
    let (admin, user) = (server.tokens().sign(&claims), server.tokens().user("ada"));
    let [head, payload, signature] = parts(&admin);
    let [_, _, signature_of_user] = parts(&user);
    let signed = |secret: &str, header: &Header| Tokens::new(secret).sign_as(header, &claims);
    let path_key_id = Header { kid: Some("../../../dev/null".to_owned()), ..Header::default() };
    let remote_key_set = Header { jku: Some("http://127.0.0.1:1/keys".to_owned()), ..Header::default() };
    let forged = [
        ("no token", String::new()),
        ("a word", "ada".to_owned()),
        ("two parts", format!("{head}.{payload}")),
        ("three empty parts", "..".to_owned()),
        ("four parts", format!("{admin}.{signature}")),
        ("not base64", "%.%.%".to_owned()),
        ("algorithm none", format!("{HEADER_NONE}.{payload}.")),
        ("algorithm none with a signature", format!("{HEADER_NONE}.{payload}.{signature}")),
        ("algorithm NonE", format!("{HEADER_NONE_MIXED_CASE}.{payload}.")),
        ("algorithm RS256", format!("{HEADER_RS256}.{payload}.{signature}")),
        ("no signature", format!("{head}.{payload}.")),
        ("half a signature", format!("{head}.{payload}.{}", &signature[..20])),
        ("the signature of another token", format!("{head}.{payload}.{signature_of_user}")),
        ("another secret", signed("another secret, of 32 bytes and more", &Header::default())),
        ("an empty secret", signed("", &Header::default())),
        ("an empty secret and the path of an empty file", signed("", &path_key_id)),
        (
            "another secret and the address of its key",
            signed("another secret, somewhere else", &remote_key_set),
        ),
        ("HS384", signed(testkit::SECRET, &Header::new(Algorithm::HS384))),
        ("HS512", signed(testkit::SECRET, &Header::new(Algorithm::HS512))),
        (
            "too long",
            server.tokens().sign(&testkit::with_fields(claims.clone(), &json!({"pad": "x".repeat(5_000)}))),
        ),
    ];
    for (case, token) in forged {
        expect_refused(&server, case, &bearer(&token)).await;
    }
}

#[tokio::test]
async fn other_authorization_schemes_are_refused() {
    let server = server().await;
    let token = server.tokens().admin();
    for authorization in ["Bearer", "Basic YWRhOmFkYQ==", "bearer:x", &token, &format!("Token {token}")] {
        expect_refused(&server, authorization, authorization).await;
    }
}

#[tokio::test]
async fn valid_tokens_are_accepted_and_the_scheme_is_case_insensitive() {
    let server = server().await;
    let accepted = [
        json!({"sub": "ada", "exp": LATER}),
        json!({"sub": "ada", "exp": 4_102_444_800.5, "role": "user"}),
        json!({"sub": "A.b_c:d@e-9", "exp": LATER, "role": "service", "nbf": 1}),
        json!({"sub": "x".repeat(128), "exp": 1e18, "role": "admin", "iss": "someone", "aud": ["anyone"]}),
    ];
    for claims in accepted {
        let token = server.tokens().sign(&claims);
        for authorization in
            [format!("Bearer {token}"), format!("bearer {token}"), format!("BEARER  {token}")]
        {
            get_with(&server, "/v1/bookings", &authorization).await.expect(200);
        }
    }
}

#[tokio::test]
async fn tokens_expire_at_their_exp_claim() {
    let server = server().await;
    let event = server.admin().create_event(&testkit::event_body(1)).await;
    let now = server_time(&mut server.anonymous(), &event).await;
    let claims = json!({"sub": "ada", "exp": now.as_second() + 2});
    let mut client = Client::new(server.address(), Some(server.tokens().sign(&claims)));
    client.get("/v1/bookings").await.expect(200);
    testkit::eventually("the token expires", async || {
        let response = client.get("/v1/bookings").await;
        (response.status == 401).then(|| response.expect_problem(401, "unauthenticated"))
    })
    .await;
}

fn bearer(token: &str) -> String {
    format!("Bearer {token}")
}

fn parts(token: &str) -> [&str; 3] {
    token.split('.').collect::<Vec<_>>().try_into().expect("a token has three parts")
}
