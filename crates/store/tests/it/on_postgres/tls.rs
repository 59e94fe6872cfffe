//! TLS to the database: the verification of each `sslmode`.

use store::{Postgres, PostgresUrl};
use testkit::{Certificates, PostgresServer};

#[tokio::test(flavor = "multi_thread")]
async fn each_sslmode_verifies_the_documented_parts() {
    let folder = tempfile::tempdir().expect("a folder");
    let Certificates { root, other, server, key } = Certificates::make(folder.path());
    PostgresServer::give_to_server_user(&key);
    PostgresServer::give_to_server_user(&server);
    let (root, other) = (root.display(), other.display());
    let settings = [
        "ssl=on".to_owned(),
        format!("ssl_key_file={}", key.display()),
        format!("ssl_cert_file={}", server.display()),
        "fsync=off".to_owned(),
    ];
    PostgresServer::give_to_server_user(folder.path());
    let cluster = PostgresServer::with(&settings.each_ref().map(String::as_str)).await;
    let database = cluster.create_database().await;
    let open = async |host: &str, query: String| {
        let url = database.url().replace("127.0.0.1", host);
        let url: PostgresUrl = format!("{url}?{query}").parse().expect("a URL");
        Postgres::open(&url, true).await.map(drop).map_err(|error| error.to_string())
    };
    for (host, query, is_accepted) in [
        ("127.0.0.1", "sslmode=disable".to_owned(), true),
        ("127.0.0.1", "sslmode=prefer".to_owned(), true),
        ("127.0.0.1", "sslmode=require".to_owned(), true),
        ("127.0.0.1", format!("sslmode=verify-ca&sslrootcert={root}"), true),
        ("127.0.0.1", format!("sslmode=verify-ca&sslrootcert={other}"), false),
        ("127.0.0.1", format!("sslmode=require&sslrootcert={other}"), false),
        ("localhost", format!("sslmode=verify-full&sslrootcert={root}"), true),
        ("127.0.0.1", format!("sslmode=verify-full&sslrootcert={root}"), false),
        ("localhost", format!("sslmode=verify-full&sslrootcert={other}"), false),
    ] {
        let opened = open(host, query.clone()).await;
        assert_eq!(opened.is_ok(), is_accepted, "{host} {query}: {opened:?}");
    }
    // The connection is really encrypted.
    let url: PostgresUrl = format!("{}?sslmode=require", database.url()).parse().expect("a URL");
    let store = Postgres::open(&url, false).await.expect("a store");
    let encrypted = "SELECT count(*) FROM pg_stat_ssl s JOIN pg_stat_activity a USING (pid)
                     WHERE s.ssl AND a.application_name = 'boxoffice-writer'";
    assert_eq!(database.query_number(encrypted).await, 1);
    drop(store);
    // A server without TLS is rejected if TLS is required.
    let plain = PostgresServer::shared().await.create_database().await;
    let url: PostgresUrl = format!("{}?sslmode=require", plain.url()).parse().expect("a URL");
    assert!(Postgres::open(&url, true).await.is_err());
}
