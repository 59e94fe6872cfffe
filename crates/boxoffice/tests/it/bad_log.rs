//! A log that cannot be written has no effect but lost lines, which are counted: the server sells, sweeps,
//! recovers and stops as with a working log.

use testkit::{BadLog, Exit, Program, Setup, SmallDisk, event_body, eventually, expect_service_and_stop};

use crate::program;

/// Settings of a server that logs every request and sweeps overdue holds every 200 ms.
fn setup() -> Setup {
    Setup::new(program()).argument("--log").argument("debug").environment("BOXOFFICE_SWEEP_EVERY", "200ms")
}

/// Number of requests that fill a pipe at debug level.
const ROUNDS: u32 = 1_500;

async fn expect_service_with(log: BadLog) {
    let server = setup().start_with_log(&log).await;
    let mut client = server.anonymous();
    for _ in 0..ROUNDS {
        client.get("/livez").await.expect(200);
    }
    // A closed standard error is the null device by the time the program starts, so no line is lost.
    if !matches!(&log, BadLog::Redirected(how) if how == "2>&-") && !matches!(log, BadLog::Blocked) {
        // A thread of its own writes the lines, later than the responses.
        eventually("all lines are counted", async || {
            (server.metric("boxoffice_log_lines_lost_total").await >= u64::from(ROUNDS)).then_some(())
        })
        .await;
    }
    assert_eq!(server.metric("boxoffice_panics_total").await, 0);
    expect_service_and_stop(server).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn d1_a_closed_log_does_not_affect_service() {
    expect_service_with(BadLog::Redirected("2>&-".to_owned())).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn d1_a_full_log_does_not_affect_service() {
    expect_service_with(BadLog::Redirected("2>/dev/full".to_owned())).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn d1_a_broken_log_does_not_affect_service() {
    expect_service_with(BadLog::Broken).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn d1_an_unread_log_does_not_affect_service() {
    expect_service_with(BadLog::Blocked).await;
}

#[expect(clippy::print_stdout, reason = "a skipped test is reported")]
fn small_disk(megabytes: u32) -> Option<SmallDisk> {
    let disk = SmallDisk::mount(megabytes);
    disk.inspect_err(|why| {
        println!(
            "SKIPPED, NOT TESTED: no small disk can be mounted here (needs root, or user namespaces): {why}"
        );
    })
    .ok()
}

fn setup_on(disk: &SmallDisk) -> Setup {
    Setup::new(program().with_launcher(disk.launcher()))
        .argument("--log")
        .argument("debug")
        .environment("BOXOFFICE_SWEEP_EVERY", "200ms")
}

fn log_on(disk: &SmallDisk) -> BadLog {
    BadLog::Redirected(format!("2>>{}", disk.folder().join("log").display()))
}

#[tokio::test(flavor = "multi_thread")]
async fn d1_a_log_on_a_full_disk_resumes_when_there_is_room() {
    let Some(disk) = small_disk(1) else { return };
    disk.write_ballast(2 * 1024 * 1024);
    let server = setup_on(&disk).start_with_log(&log_on(&disk)).await;
    let mut client = server.anonymous();
    eventually("lines are lost", async || {
        client.get("/livez").await.expect(200);
        (server.metric("boxoffice_log_lines_lost_total").await > 100).then_some(())
    })
    .await;
    disk.remove_ballast();
    let log = || disk.outside_path("log");
    eventually("lines arrive again", async || {
        client.get("/livez?again").await;
        std::fs::read_to_string(log()).ok().filter(|text| text.contains("request completed")).map(drop)
    })
    .await;
    expect_service_and_stop(server).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn d1_a_log_on_the_full_disk_of_the_database_causes_no_other_failure() {
    let Some(disk) = small_disk(8) else { return };
    let setup = setup_on(&disk).on_file(disk.folder().join("boxoffice.db"));
    let mut server = setup.start_with_log(&log_on(&disk)).await;
    let mut admin = server.admin();
    let event = admin.create_event(&event_body(1_000_000)).await;
    disk.write_ballast(8 * 1024 * 1024);
    let refused = eventually("the disk is full", async || {
        let response = admin.book_for("ada", &event, 1).await;
        (response.status != 201).then_some(response)
    })
    .await;
    refused.expect_problem(503, "unavailable");
    for _ in 0..ROUNDS {
        admin.get("/livez").await.expect(200);
    }
    admin.get(&format!("/v1/events/{event}")).await.expect(200);
    eventually("lines are lost", async || {
        (server.metric("boxoffice_log_lines_lost_total").await > 0).then_some(())
    })
    .await;
    disk.remove_ballast();
    admin.book_for("ada", &event, 1).await.expect(201);
    assert_eq!(server.metric("boxoffice_panics_total").await, 0);
    server.terminate();
    assert_eq!(server.wait_for_exit().await, Exit::Code(0));
    server.expect_clean().await;
}

/// Standard output may be unwritable, too.
#[tokio::test]
async fn d11_output_to_a_full_disk_is_reported_as_an_error() {
    let commands: [&[&str]; 4] = [
        &["openapi"],
        &["asyncapi"],
        &["completions", "bash"],
        &["token", "--sub", "ada", "--jwt-secret", testkit::SECRET],
    ];
    for words in commands {
        let full = std::fs::File::options().write(true).open("/dev/full").expect("a full device");
        let mut command = program().command(words);
        command.stdout(full).stderr(std::process::Stdio::piped());
        let running = tokio::process::Command::from(command).spawn().expect("it starts");
        let output = running.wait_with_output().await.expect("it runs");
        let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(1), "{words:?}: {stderr}");
        assert!(
            stderr.starts_with("boxoffice: cannot write the output: No space left"),
            "{words:?}: {stderr}"
        );
        assert_eq!(stderr.lines().count(), 1, "{stderr}");
    }
    let finished = Program::finish(program().command(["openapi"])).await;
    assert_eq!((finished.exit, finished.stderr.as_str()), (Exit::Code(0), ""));
}

/// The last message of a command does not wait for a reader, and does not change the exit code.
#[tokio::test]
async fn d1_a_failing_command_keeps_its_exit_code_with_any_log() {
    let (unread, writer) = std::io::pipe().expect("a pipe");
    let full = std::fs::File::options().write(true).open("/dev/full").expect("a full device");
    for stderr in [std::process::Stdio::from(full), writer.into()] {
        let mut command = program().command(["serve", "--database", "sqlite:///nowhere/at/all.db"]);
        command.env("BOXOFFICE_JWT_SECRET", testkit::SECRET).stderr(stderr);
        let status = tokio::process::Command::from(command).status();
        let status = testkit::within_deadline("it ends", status).await.expect("it runs");
        assert_eq!(status.code(), Some(3));
    }
    drop(unread);
}

mod on_redis {
    use testkit::{BadLog, Load, RedisServer, event_body, eventually, expect_service_and_stop};

    #[tokio::test(flavor = "multi_thread")]
    async fn d1_redis_outages_are_survived_with_a_broken_log() {
        for log in [BadLog::Broken, BadLog::Blocked] {
            let mut redis = RedisServer::start().await;
            let setup = super::setup().argument("--redis").argument(redis.url(0));
            let mut server = setup.start_with_log(&log).await;
            let is_up = async |server: &testkit::Server, up| {
                eventually("the state of Redis is noticed", async || {
                    (server.metric("boxoffice_redis_up").await == up).then_some(())
                })
                .await;
            };
            is_up(&server, 1).await;
            let event = server.admin().create_event(&event_body(1_000_000)).await;
            let mut load = Load::start(&server, std::slice::from_ref(&event), 4);
            for _ in 0..2 {
                redis.kill9();
                is_up(&server, 0).await;
                let so_far = load.acknowledged_count();
                load.wait_for_acknowledged(so_far + 20).await;
                redis.restart().await;
                is_up(&server, 1).await;
            }
            assert!(server.is_running());
            let journal = load.stop().await;
            assert!(journal.codes().is_empty(), "{:?}", journal.codes());
            expect_service_and_stop(server).await;
        }
    }
}
