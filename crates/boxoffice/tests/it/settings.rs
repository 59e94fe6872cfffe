//! Sources of settings: a flag, else the environment, else a file, else the default.

use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use testkit::{Exit, Program, ProgramOutput, SECRET, Setup, Tokens, event_body};

use crate::program;

/// The documented settings: flag, environment variable and default.
const SETTINGS: [(&str, &str, &str); 15] = [
    ("listen", "BOXOFFICE_LISTEN", "127.0.0.1:8080"),
    ("database", "BOXOFFICE_DATABASE", "sqlite://boxoffice.db"),
    ("jwt-secret", "BOXOFFICE_JWT_SECRET", ""),
    ("jwt-public-key-file", "BOXOFFICE_JWT_PUBLIC_KEY_FILE", ""),
    ("jwt-issuer", "BOXOFFICE_JWT_ISSUER", ""),
    ("jwt-audience", "BOXOFFICE_JWT_AUDIENCE", ""),
    ("hold", "BOXOFFICE_HOLD", "1h"),
    ("sweep-every", "BOXOFFICE_SWEEP_EVERY", "30s"),
    ("book-limit", "BOXOFFICE_BOOK_LIMIT", "5/10s"),
    ("cancel-limit", "BOXOFFICE_CANCEL_LIMIT", "3/30s"),
    ("cancel-cutoff", "BOXOFFICE_CANCEL_CUTOFF", "24h"),
    ("shutdown-timeout", "BOXOFFICE_SHUTDOWN_TIMEOUT", "20s"),
    ("log", "BOXOFFICE_LOG", "info"),
    ("metrics-listen", "BOXOFFICE_METRICS_LISTEN", ""),
    ("trusted-proxies", "BOXOFFICE_TRUSTED_PROXIES", ""),
];

/// A configuration file in its own folder.
struct ConfigFile {
    _folder: tempfile::TempDir,
    path: PathBuf,
}

impl ConfigFile {
    fn new(text: &str) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("boxoffice.toml");
        std::fs::write(&path, text).expect("a file");
        Self { _folder: folder, path }
    }

    fn path(&self) -> &str {
        self.path.to_str().expect("text")
    }
}

async fn config(environment: &[(&str, &str)], words: &[&str]) -> ProgramOutput {
    let mut command = program().command(["config", "--json"].iter().chain(words));
    command.envs(environment.iter().copied());
    Program::finish(command).await
}

/// Output of `config --json`: value and origin of each setting.
async fn printed_settings(environment: &[(&str, &str)], words: &[&str]) -> Value {
    let finished = config(environment, words).await;
    assert_eq!(finished.exit, Exit::Code(0), "{finished:?}");
    serde_json::from_str(&finished.stdout).unwrap_or_else(|error| panic!("{error}: {finished:?}"))
}

#[tokio::test]
async fn every_documented_setting_has_its_flag_variable_and_default() {
    let defaults = printed_settings(&[], &[]).await;
    let help = program().run(["serve", "--help"]).await.stdout;
    for (flag, variable, default) in SETTINGS {
        let origin = if default.is_empty() { "unset" } else { "default" };
        assert_eq!(defaults[flag], json!({"value": default, "from": origin}), "{flag}");
        assert!(
            help.contains(&format!("--{flag} ")) && help.contains(&format!("[env: {variable}")),
            "{flag}: {help}"
        );
    }
    // The file form of secrets, and flags that are not in the table.
    for more in ["--jwt-secret-file", "--log-format", "--no-migrate", "--config"] {
        assert!(help.contains(more), "{more}");
    }
}

#[tokio::test]
async fn flags_override_the_environment_which_overrides_the_file() {
    let file = ConfigFile::new("hold = \"11m\"\nsweep-every = \"12s\"\ncancel-cutoff = \"13h\"\n");
    let environment = [("BOXOFFICE_HOLD", "21m"), ("BOXOFFICE_SWEEP_EVERY", "22s")];
    let words = ["--config", file.path(), "--hold", "31m"];
    let all = printed_settings(&environment, &words).await;
    for (flag, value, from) in [
        ("hold", "31m", "flag"),
        ("sweep-every", "22s", "environment"),
        ("cancel-cutoff", "13h", "file"),
        ("log", "info", "default"),
        ("jwt-issuer", "", "unset"),
    ] {
        assert_eq!(all[flag], json!({"value": value, "from": from}), "{flag}");
    }
    // The environment can name the file itself; and the text output has the same values.
    let mut command = program().command(["config"]);
    command.env("BOXOFFICE_CONFIG", file.path());
    let text = Program::finish(command).await.stdout;
    let line = text.lines().find(|line| line.starts_with("hold ")).expect("a line");
    assert_eq!(line.split_whitespace().collect::<Vec<_>>(), ["hold", "11m", "(file)"]);
}

#[tokio::test]
async fn a_server_can_be_configured_by_a_file_alone() {
    let folder = tempfile::tempdir().unwrap();
    let secret_file = folder.path().join("secret");
    let (first, second) =
        ("the first secret of two, 32 bytes and more", "the second secret of two, 32 bytes and so");
    std::fs::write(&secret_file, format!("{second}\r\n")).unwrap();
    let file = ConfigFile::new(&format!(
        "listen = \"127.0.0.1:0\"\ndatabase = \"sqlite://{}\"\n\
         jwt-secret = [\"{first}\"]\njwt-secret-file = \"{}\"\n\
         hold = \"15m\"\nbook-limit = \"1/24h\"\n\
         trusted-proxies = \"10.0.0.0/8,192.0.2.7\"\nlog-format = \"text\"\n",
        folder.path().join("boxoffice.db").display(),
        secret_file.display(),
    ));
    let process = testkit::Process::start(program().command(["serve", "--config", file.path()]));
    let address =
        process.stderr.find(|line| line.split_once("ready address=")?.1.split(' ').next()?.parse().ok());
    let address = address.await.expect("it serves");
    for secret in [first, second] {
        let mut admin = testkit::Client::new(address, Some(Tokens::new(secret).admin()));
        let event = admin.post("/v1/events", &event_body(10)).await.expect(201);
        assert_eq!(event["holdSeconds"], 900);
    }
    // `token` signs with the first secret of the same file, and other commands find the database in it.
    let token = program().run(["token", "--sub", "ada", "--config", file.path()]).await;
    assert_eq!(token.exit, Exit::Code(0), "{token:?}");
    let mut ada = testkit::Client::new(address, Some(token.stdout.trim().to_owned()));
    ada.get("/v1/bookings").await.expect(200);
    for command in ["audit", "doctor"] {
        let finished = program().run([command, "--config", file.path()]).await;
        assert_eq!(finished.exit, Exit::Code(0), "{finished:?}");
    }
}

#[tokio::test]
async fn errors_in_the_configuration_file_are_usage_errors() {
    for (text, message) in [
        ("holds = \"1h\"\n", "unknown setting \"holds\""),
        ("HOLD = \"1h\"\n", "unknown setting \"HOLD\""),
        ("BOXOFFICE_HOLD = \"1h\"\n", "unknown setting \"BOXOFFICE_HOLD\""),
        ("[serve]\nhold = \"1h\"\n", "unknown setting \"serve\""),
        ("data = \"x\"\n", "unknown setting \"data\""),
        ("json = true\n", "unknown setting \"json\""),
        ("config = \"x\"\n", "unknown setting \"config\""),
        ("hold = 1.5\n", "\"hold\" must be a string, number or boolean"),
        ("hold = 1979-05-27\n", "\"hold\" must be a string, number or boolean"),
        ("hold = 3600\n", "--hold"),
        ("hold = \"\"\n", "--hold"),
        ("log = [\"info\", \"warn\"]\n", ""),
        ("listen = \"nowhere\"\n", "--listen"),
        ("trusted-proxies = \"10.0.0.0/99\"\n", "--trusted-proxies"),
        ("hold = \"1h\"\nhold = \"2h\"\n", "line 2"),
        ("hold\n", "line 1"),
        ("\u{0}", "line 1"),
    ] {
        let file = ConfigFile::new(text);
        let finished = config(&[], &["--config", file.path()]).await;
        let is_refused = finished.exit == Exit::Code(2) && finished.stderr.contains(message);
        // Where one value is expected, the last one of a list counts, as it does for flags.
        assert!(is_refused || message.is_empty(), "{text:?}: {finished:?}");
    }
    for path in ["/nowhere/boxoffice.toml", "/"] {
        let finished = config(&[], &["--config", path]).await;
        assert_eq!(finished.exit, Exit::Code(2), "{finished:?}");
    }
    // Every command refuses an invalid file.
    let file = ConfigFile::new("colour = \"red\"\n");
    for command in ["audit", "migrate", "doctor", "sweep", "dev", "openapi", "demo"] {
        let finished = program().run([command, "--config", file.path()]).await;
        assert_eq!(finished.exit, Exit::Code(2), "{command}: {finished:?}");
    }
}

#[tokio::test]
async fn secret_files_can_be_named_by_flag_or_environment() {
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str, text: &str| {
        let path = folder.path().join(name);
        std::fs::write(&path, text).unwrap();
        path
    };
    let good = file("good", &format!("{SECRET}\n"));
    let signed = async |setup: &dyn Fn(&mut std::process::Command, &Path)| {
        let mut command = program().command(["token", "--sub", "ada"]);
        setup(&mut command, &good);
        let finished = Program::finish(command).await;
        assert_eq!(finished.exit, Exit::Code(0), "{finished:?}");
        finished.stdout.trim().to_owned()
    };
    let by_flag = signed(&|command, path| {
        command.arg("--jwt-secret-file").arg(path);
    })
    .await;
    let by_variable = signed(&|command, path| {
        command.env("BOXOFFICE_JWT_SECRET_FILE", path);
    })
    .await;
    let server = Setup::new(program()).start().await;
    for token in [by_flag, by_variable] {
        testkit::Client::new(server.address(), Some(token)).get("/v1/bookings").await.expect(200);
    }
    for (wrong, message) in
        [(file("empty", "\n\n"), "at least 32 bytes"), (folder.path().to_owned(), "directory")]
    {
        let finished = program().run(["serve", "--jwt-secret-file", wrong.to_str().unwrap()]).await;
        assert_eq!(finished.exit, Exit::Code(2), "{finished:?}");
        assert!(finished.stderr.contains(message), "{finished:?}");
    }
}
