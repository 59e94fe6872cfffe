//! A disk that fills up quickly: a small in-memory file system in its own mount namespace, so that it
//! disappears with the process that holds it, also if the test crashes.

use std::ffi::OsString;
use std::fs::File;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use tempfile::TempDir;

/// A mounted small disk. Dropping it unmounts it, with all its files.
#[derive(Debug)]
pub struct SmallDisk {
    folder: TempDir,
    /// Keeps the namespace open until its standard input is closed.
    holder: Child,
    is_root: bool,
}

impl SmallDisk {
    /// Mounts a disk of so many megabytes. The error is the reason why the machine does not allow it.
    pub fn mount(megabytes: u32) -> Result<Self, String> {
        let folder = tempfile::tempdir().map_err(|error| error.to_string())?;
        // As root if this process is root, otherwise as the root of a user namespace.
        let is_root = rustix::process::geteuid().is_root();
        let namespaces: &[&str] =
            if is_root { &["--mount"] } else { &["--user", "--map-root-user", "--mount"] };
        let script = r#"mount -t tmpfs -o "size=$1m" tmpfs "$2" && echo mounted && exec cat"#;
        let mut command = Command::new("unshare");
        command.args(namespaces).args(["sh", "-c", script, "sh", &megabytes.to_string()]);
        command.arg(folder.path()).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut holder = command.spawn().map_err(|error| format!("cannot run unshare: {error}"))?;
        let mut output_start = [0; 8];
        let stdout = holder.stdout.as_mut().expect("piped above");
        let mounted =
            std::io::Read::read_exact(stdout, &mut output_start).is_ok() && output_start == *b"mounted\n";
        if mounted {
            return Ok(Self { folder, holder, is_root });
        }
        let output = holder.wait_with_output().map_err(|error| error.to_string())?;
        Err(String::from_utf8_lossy(&output.stderr).trim().to_owned())
    }

    /// The command line prefix with which a program must be started to see the disk.
    pub fn launcher(&self) -> Vec<OsString> {
        let pid = self.holder.id().to_string();
        let user: &[&str] = if self.is_root { &[] } else { &["--user", "--preserve-credentials"] };
        let words = ["nsenter", "--target", &pid, "--mount"].into_iter().chain(user.iter().copied());
        words.chain(["--"]).map(OsString::from).collect()
    }

    /// The path of the disk for programs started by [`SmallDisk::launcher`].
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Writes a file of up to so many bytes, or until the disk is full.
    pub fn write_ballast(&self, bytes: usize) {
        let mut file = File::create(self.ballast()).expect("a file on the small disk");
        let block = [0x5a; 4_096];
        for _ in 0..bytes / block.len() {
            if file.write_all(&block).is_err() {
                return;
            }
        }
    }

    /// Deletes the file of [`SmallDisk::write_ballast`].
    pub fn remove_ballast(&self) {
        std::fs::remove_file(self.ballast()).expect("the ballast is on the disk");
    }

    fn ballast(&self) -> PathBuf {
        self.outside_path("ballast")
    }

    /// The path of a file on the disk from outside the namespace, through its holder's `/proc` entry.
    pub fn outside_path(&self, name: &str) -> PathBuf {
        let root = PathBuf::from(format!("/proc/{}/root", self.holder.id()));
        let inside = self.folder.path().strip_prefix("/").unwrap_or(self.folder.path());
        root.join(inside).join(name)
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // Errors mean that it has already ended.
        let _ = self.holder.kill();
        let _ = self.holder.wait();
    }
}
