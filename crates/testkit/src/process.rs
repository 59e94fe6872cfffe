//! A child process: started, with its output collected, and always killed and reaped.

use std::io::{BufRead as _, BufReader, Read};
use std::os::unix::process::CommandExt as _;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process, kill_process_group};
use tokio::sync::Notify;

use crate::wait::{DEADLINE, eventually, within};

/// A running process. Dropping it kills and reaps it, by its own id.
#[derive(Debug)]
pub struct Process {
    child: Child,
    /// True if it leads a process group, to which its signals are sent.
    group: bool,
    /// Standard output.
    pub stdout: Lines,
    /// Standard error.
    pub stderr: Lines,
}

/// The end of a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// It exited with this code.
    Code(i32),
    /// A signal killed it.
    Signal,
}

/// The lines that a process has written so far.
#[derive(Clone, Debug, Default)]
pub struct Lines(Arc<SharedLines>);

#[derive(Debug, Default)]
struct SharedLines {
    output: Mutex<Output>,
    changed: Notify,
}

#[derive(Debug, Default)]
struct Output {
    lines: Vec<String>,
    ended: bool,
}

impl Process {
    /// Starts a command.
    pub fn start(command: Command) -> Self {
        Self::spawn(command, false)
    }

    /// Starts a command with another standard error, which is not collected.
    pub(crate) fn start_with_stderr(mut command: Command, stderr: Stdio) -> Self {
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(stderr);
        let mut child = command.spawn().unwrap_or_else(|error| panic!("{command:?}: {error}"));
        let stdout = Lines::read(child.stdout.take().expect("piped above"));
        Self { child, group: false, stdout, stderr: Lines::read(std::io::empty()) }
    }

    /// Starts a command in its own process group, such as a shell with its children.
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

    /// The process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Sends SIGTERM.
    pub fn terminate(&self) {
        self.signal(Signal::TERM);
    }

    /// Sends a signal.
    pub(crate) fn signal(&self, signal: Signal) {
        // Not yet reaped, so the id is still its own.
        let id = Pid::from_child(&self.child);
        let sent = if self.group { kill_process_group(id, signal) } else { kill_process(id, signal) };
        sent.expect("a child can be signalled");
    }

    /// Kills it (SIGKILL) and reaps it.
    pub fn kill9(&mut self) {
        self.child.kill().expect("a child can be killed");
        self.child.wait().expect("a child can be reaped");
    }

    /// Waits until it ends.
    pub async fn wait_for_exit(&mut self) -> Exit {
        let status = eventually("a process ends", async || {
            self.child.try_wait().unwrap_or_else(|error| panic!("cannot wait for a child: {error}"))
        });
        let status = status.await;
        // Its output must be complete before a test reads it.
        let (_, _) = tokio::join!(self.stdout.find(|_| None::<()>), self.stderr.find(|_| None::<()>));
        exit_of(status)
    }

    /// True if it is still running.
    pub fn is_running(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }
}

/// Converts the exit status of the standard library.
pub(crate) fn exit_of(status: ExitStatus) -> Exit {
    status.code().map_or(Exit::Signal, Exit::Code)
}

impl Drop for Process {
    #[expect(clippy::print_stderr, reason = "the output of the program explains the failure of a test")]
    fn drop(&mut self) {
        // Errors mean that it has already ended.
        if self.group {
            let _ = kill_process_group(Pid::from_child(&self.child), Signal::KILL);
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            eprintln!("standard error of process {}:\n{}", self.child.id(), self.stderr.tail());
        }
    }
}

impl Lines {
    fn read(from: impl Read + Send + 'static) -> Self {
        let lines = Self::default();
        let shared = lines.0.clone();
        std::thread::spawn(move || {
            for line in BufReader::new(from).lines().map_while(Result::ok) {
                shared.update(|output| output.lines.push(line));
            }
            shared.update(|output| output.ended = true);
        });
        lines
    }

    /// All lines so far.
    pub fn all(&self) -> Vec<String> {
        self.0.read(|output| output.lines.clone())
    }

    /// The last 40 lines, for failure messages.
    pub fn tail(&self) -> String {
        self.0.read(|output| {
            let from = output.lines.len().saturating_sub(40);
            output.lines[from..].join("\n")
        })
    }

    /// Waits until a line contains this text; panics if the process ends without it.
    pub async fn expect(&self, text: &str) {
        let found = self.find(|line| line.contains(text).then_some(())).await;
        assert!(found.is_some(), "no line contains {text:?}: {}", self.tail());
    }

    /// The first value that `find` returns for a line, also for a future one; `None` once the output has
    /// ended.
    pub async fn find<T>(&self, find: impl Fn(&str) -> Option<T>) -> Option<T> {
        self.find_within(DEADLINE, find).await
    }

    /// [`Lines::find`] with another deadline, for slower processes.
    pub async fn find_within<T>(&self, deadline: Duration, find: impl Fn(&str) -> Option<T>) -> Option<T> {
        let found = async {
            loop {
                let mut changed = std::pin::pin!(self.0.changed.notified());
                changed.as_mut().enable();
                let (found, ended) =
                    self.0.read(|output| (output.lines.iter().find_map(|line| find(line)), output.ended));
                if found.is_some() || ended {
                    return found;
                }
                changed.await;
            }
        };
        within(deadline, "a line of a process", found).await
    }
}

impl SharedLines {
    fn read<T>(&self, read: impl FnOnce(&Output) -> T) -> T {
        read(&self.output.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn update(&self, update: impl FnOnce(&mut Output)) {
        update(&mut self.output.lock().unwrap_or_else(PoisonError::into_inner));
        self.changed.notify_waiters();
    }
}
