//! A process of our own: started, listened to, and never left behind.

use std::io::{BufRead as _, BufReader, Read};
use std::os::unix::process::CommandExt as _;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process, kill_process_group};
use tokio::sync::Notify;

use crate::wait::{DEADLINE, eventually, within};

/// A running process. Dropped, it is killed and reaped, by its own id.
#[derive(Debug)]
pub struct Process {
    child: Child,
    /// Whether it leads a process group, which gets its signals.
    group: bool,
    /// What it wrote on standard output.
    pub stdout: Lines,
    /// What it wrote on standard error.
    pub stderr: Lines,
}

/// How a process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// By itself, with this exit code.
    Code(i32),
    /// By a signal.
    Signal,
}

/// What a process has written so far, line by line.
#[derive(Clone, Debug, Default)]
pub struct Lines(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    written: Mutex<Written>,
    grown: Notify,
}

#[derive(Debug, Default)]
struct Written {
    lines: Vec<String>,
    ended: bool,
}

impl Process {
    /// Starts a command.
    pub fn start(command: Command) -> Self {
        Self::spawn(command, false)
    }

    /// Starts a command whose standard error goes elsewhere.
    pub(crate) fn start_with_stderr(mut command: Command, stderr: Stdio) -> Self {
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(stderr);
        let mut child = command.spawn().unwrap_or_else(|error| panic!("{command:?}: {error}"));
        let stdout = Lines::read(child.stdout.take().expect("piped above"));
        Self { child, group: false, stdout, stderr: Lines::read(std::io::empty()) }
    }

    /// Starts a command in a process group of its own: a shell, with everything that it starts.
    pub fn start_group(mut command: Command) -> Self {
        command.process_group(0);
        Self::spawn(command, true)
    }

    fn spawn(mut command: Command, group: bool) -> Self {
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap_or_else(|error| panic!("{command:?}: {error}"));
        let stdout = Lines::read(child.stdout.take().expect("piped above"));
        let stderr = Lines::read(child.stderr.take().expect("piped above"));
        Self { child, group, stdout, stderr }
    }

    /// The process's own id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Asks it to end (SIGTERM).
    pub fn terminate(&self) {
        self.signal(Signal::TERM);
    }

    /// Sends it a signal.
    pub(crate) fn signal(&self, signal: Signal) {
        // Not yet reaped, so the id is still its own.
        let id = Pid::from_child(&self.child);
        let sent = if self.group { kill_process_group(id, signal) } else { kill_process(id, signal) };
        sent.expect("our own child takes our signal");
    }

    /// Kills it (SIGKILL) and reaps it.
    pub fn kill9(&mut self) {
        self.child.kill().expect("our own child can be killed");
        self.child.wait().expect("our own child can be reaped");
    }

    /// How it ended; waits until it has.
    pub async fn wait_for_exit(&mut self) -> Exit {
        let status = eventually("a process ends", async || {
            self.child.try_wait().unwrap_or_else(|error| panic!("cannot ask after a child: {error}"))
        });
        let status = status.await;
        // All it said has arrived before anybody asks what it said.
        let (_, _) = tokio::join!(self.stdout.find(|_| None::<()>), self.stderr.find(|_| None::<()>));
        ending(status)
    }

    /// Whether it is still running.
    pub fn is_running(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }
}

/// What an exit status says.
pub(crate) fn ending(status: ExitStatus) -> Exit {
    status.code().map_or(Exit::Signal, Exit::Code)
}

impl Drop for Process {
    #[expect(clippy::print_stderr, reason = "what the program said explains why a test failed")]
    fn drop(&mut self) {
        // None fails but where it has ended and was reaped before.
        if self.group {
            let _ = kill_process_group(Pid::from_child(&self.child), Signal::KILL);
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            eprintln!("process {} said on standard error:\n{}", self.child.id(), self.stderr.tail());
        }
    }
}

impl Lines {
    fn read(from: impl Read + Send + 'static) -> Self {
        let lines = Self::default();
        let shared = lines.0.clone();
        std::thread::spawn(move || {
            for line in BufReader::new(from).lines().map_while(Result::ok) {
                shared.change(|written| written.lines.push(line));
            }
            shared.change(|written| written.ended = true);
        });
        lines
    }

    /// All lines so far.
    pub fn all(&self) -> Vec<String> {
        self.0.look(|written| written.lines.clone())
    }

    /// The last lines, for a message.
    pub fn tail(&self) -> String {
        self.0.look(|written| {
            let from = written.lines.len().saturating_sub(40);
            written.lines[from..].join("\n")
        })
    }

    /// Waits until a line holds these words: lines are written after what they report.
    pub async fn expect(&self, words: &str) {
        let found = self.find(|line| line.contains(words).then_some(())).await;
        assert!(found.is_some(), "no line holds {words:?}: {}", self.tail());
    }

    /// What `find` finds in a line, as soon as there is one; `None` once the process will write no more.
    pub async fn find<T>(&self, find: impl Fn(&str) -> Option<T>) -> Option<T> {
        self.find_within(DEADLINE, find).await
    }

    /// As [`Lines::find`], for a process that takes longer.
    pub async fn find_within<T>(&self, deadline: Duration, find: impl Fn(&str) -> Option<T>) -> Option<T> {
        let found = async {
            loop {
                let mut grown = std::pin::pin!(self.0.grown.notified());
                grown.as_mut().enable();
                let (found, ended) =
                    self.0.look(|written| (written.lines.iter().find_map(|line| find(line)), written.ended));
                if found.is_some() || ended {
                    return found;
                }
                grown.await;
            }
        };
        within(deadline, "a line of a process", found).await
    }
}

impl Shared {
    fn look<T>(&self, look: impl FnOnce(&Written) -> T) -> T {
        look(&self.written.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn change(&self, change: impl FnOnce(&mut Written)) {
        change(&mut self.written.lock().unwrap_or_else(PoisonError::into_inner));
        self.grown.notify_waiters();
    }
}
