//! The load generator: it counts responses, and detects counters of the server that disagree with them.

use serde_json::{Value, json};
use testkit::{Exit, ProgramOutput, SECRET, Server, Setup};

use crate::{program, server};

/// Runs the load generator against a server, for 300 ms unless `words` name a duration.
async fn bench(server: &Server, words: &[&str]) -> ProgramOutput {
    let (target, database) =
        (format!("http://{}", server.address()), format!("sqlite://{}", server.database().display()));
    let fixed = ["bench", "--target", &target, "--jwt-secret", SECRET, "--database", &database, "--json"];
    let short = ["--connections", "8", "--warm-up", "0s"];
    let duration: &[&str] = if words.contains(&"--duration") { &[] } else { &["--duration", "300ms"] };
    program().run(fixed.iter().chain(&short).chain(duration).chain(words)).await
}

fn report(finished: &ProgramOutput) -> Value {
    serde_json::from_str(&finished.stdout).unwrap_or_else(|error| panic!("{error}: {finished:?}"))
}

fn count(report: &Value, response: &str) -> u64 {
    report["responses"][response]["count"].as_u64().unwrap_or(0)
}

#[tokio::test]
async fn bench_counts_agree_with_the_server_and_the_audit() {
    let server = server().await;
    let pid = std::process::id().to_string();
    let mix = "book=5,confirm=2,cancel=2,leave=1,availability=1";
    let words = ["--duration", "2s", "--events", "3", "--zipf", "1", "--mix", mix, "--pid", &pid];
    let finished = bench(&server, &words).await;
    assert_eq!(finished.exit, Exit::Code(0), "{finished:?}");
    let report = report(&finished);
    for response in ["book", "confirm", "cancel", "availability"] {
        assert!(count(&report, response) > 0, "{response}: {report:#}");
        let times =
            ["p50", "p90", "p99", "p99.9", "max"].map(|name| report["responses"][response][name].as_f64());
        assert!(times.is_sorted() && times[0] > Some(0.0), "{response}: {report:#}");
    }
    assert_eq!(
        report["counters"],
        json!({"match": true, "oversold": 0, "difference": 0, "unknown": 0, "comparable": true})
    );
    assert_eq!(report["audit"]["clean"], true, "{report:#}");
    // Without a warm-up every booking counts.
    assert_eq!(report["audit"]["bookings"].as_u64(), Some(count(&report, "book")), "{report:#}");
    assert_eq!(report["cpuMicros"].as_array().map(Vec::len), Some(2), "{report:#}");
    assert!(report["batchSize"].as_f64() >= Some(1.0), "{report:#}");
}

#[tokio::test]
async fn bench_sends_exactly_the_scheduled_requests() {
    let server = server().await;
    let finished = bench(&server, &["--rate", "100", "--capacity", "10"]).await;
    let report = report(&finished);
    // 30 requests are due in 300 ms, whatever the results of the others are.
    assert_eq!((count(&report, "book"), count(&report, "sold_out")), (10, 20), "{report:#}");
    assert_eq!((&report["dropped"], &report["rate"]), (&json!(0), &json!(100)), "{report:#}");
}

#[tokio::test]
async fn bench_prints_a_text_report() {
    let server = server().await;
    let target = format!("http://{}", server.address());
    let words =
        ["bench", "--target", &target, "--jwt-secret", SECRET, "--warm-up", "0s", "--duration", "100ms"];
    let finished = program().run(words).await;
    assert_eq!(finished.exit, Exit::Code(0), "{finished:?}");
    for line in ["closed loop", "book  ", "p50, p90, p99", "counters match the responses"] {
        assert!(finished.stdout.contains(line), "{line:?} in {}", finished.stdout);
    }
}

/// Without the guards more tickets are sold than exist, and the report shows it.
#[cfg(feature = "sabotage")]
#[tokio::test]
async fn bench_detects_overselling() {
    let setup = Setup::new(program()).environment("BOXOFFICE_SABOTAGE", "capacity,capacity-check");
    let server = setup.start().await;
    let finished = bench(&server, &["--capacity", "5"]).await;
    assert_eq!(finished.exit, Exit::Code(1), "{finished:?}");
    let report = report(&finished);
    assert!(report["counters"]["oversold"].as_u64() > Some(0), "{report:#}");
    assert_eq!(
        (&report["counters"]["match"], &report["audit"]["clean"]),
        (&json!(false), &json!(false)),
        "{report:#}"
    );
}

#[tokio::test]
async fn bench_reports_missing_arguments() {
    let unreachable =
        program().run(["bench", "--target", "http://127.0.0.1:1", "--jwt-secret", SECRET]).await;
    assert_eq!(unreachable.exit, Exit::Code(3), "{unreachable:?}");
    for (words, message) in [
        (vec!["bench"], "no secret to sign with"),
        (vec!["bench", "--jwt-secret", "short"], "at least 32 bytes"),
        (vec!["bench", "--target", "http://example.org"], "must be an address"),
        (vec!["bench", "--mix", "sell=1"], "unknown operation"),
        (vec!["bench", "--zipf", "4"], "from 0 to 3"),
    ] {
        let finished = program().run(&words).await;
        assert_eq!(finished.exit, Exit::Code(2), "{words:?}: {finished:?}");
        assert!(finished.stderr.contains(message), "{message:?} in {finished:?}");
    }
}
