//! A disk that is soon full: a small file system in memory, in a mount namespace of its own, so that it is
//! gone with the process that holds it, whatever happens to the test.

use std::ffi::OsString;
use std::fs::File;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use tempfile::TempDir;

/// A mounted small disk. Dropped, it is gone with all that is on it.
#[derive(Debug)]
pub struct SmallDisk {
    folder: TempDir,
    /// Keeps the namespace open until its input ends.
    holder: Child,
    by_root: bool,
}

impl SmallDisk {
    /// A disk of so many megabytes; an error that says why where the machine does not allow it.
    pub fn mount(megabytes: u32) -> Result<Self, String> {
        let folder = tempfile::tempdir().map_err(|error| error.to_string())?;
        // As root where we are, otherwise as the root of a user namespace.
        let by_root = rustix::process::geteuid().is_root();
        let namespaces: &[&str] =
            if by_root { &["--mount"] } else { &["--user", "--map-root-user", "--mount"] };
        let script = r#"mount -t tmpfs -o "size=$1m" tmpfs "$2" && echo mounted && exec cat"#;
        let mut command = Command::new("unshare");
        command.args(namespaces).args(["sh", "-c", script, "sh", &megabytes.to_string()]);
        command.arg(folder.path()).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut holder = command.spawn().map_err(|error| format!("cannot run unshare: {error}"))?;
        let mut said = [0; 8];
        let stdout = holder.stdout.as_mut().expect("piped above");
        let mounted = std::io::Read::read_exact(stdout, &mut said).is_ok() && said == *b"mounted\n";
        if mounted {
            return Ok(Self { folder, holder, by_root });
        }
        let output = holder.wait_with_output().map_err(|error| error.to_string())?;
        Err(String::from_utf8_lossy(&output.stderr).trim().to_owned())
    }

    /// What a program must be started by to see the disk.
    pub fn launcher(&self) -> Vec<OsString> {
        let pid = self.holder.id().to_string();
        let user: &[&str] = if self.by_root { &[] } else { &["--user", "--preserve-credentials"] };
        let words = ["nsenter", "--target", &pid, "--mount"].into_iter().chain(user.iter().copied());
        words.chain(["--"]).map(OsString::from).collect()
    }

    /// The disk's folder, as programs that see the disk know it.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Writes a file of up to so many bytes, as many as there is room for.
    pub fn write_ballast(&self, bytes: usize) {
        let mut file = File::create(self.ballast()).expect("a file on the small disk");
        let block = [0x5a; 4_096];
        for _ in 0..bytes / block.len() {
            if file.write_all(&block).is_err() {
                return;
            }
        }
    }

    /// Gives the room of the ballast back.
    pub fn remove_ballast(&self) {
        std::fs::remove_file(self.ballast()).expect("the ballast lies on the disk");
    }

    fn ballast(&self) -> PathBuf {
        self.outside_path("ballast")
    }

    /// A file on the disk as it is seen from outside the namespace: through its holder.
    pub fn outside_path(&self, name: &str) -> PathBuf {
        let root = PathBuf::from(format!("/proc/{}/root", self.holder.id()));
        let inside = self.folder.path().strip_prefix("/").unwrap_or(self.folder.path());
        root.join(inside).join(name)
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // Neither fails but where it has ended and was reaped before.
        let _ = self.holder.kill();
        let _ = self.holder.wait();
    }
}
