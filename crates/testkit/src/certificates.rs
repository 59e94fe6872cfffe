//! Certificates for test servers that use TLS.

use std::path::{Path, PathBuf};
use std::process::Command;

/// A certificate authority (CA), a certificate for `localhost` that it signed, and a CA that signed nothing.
#[derive(Debug)]
pub struct Certificates {
    /// The certificate of the CA.
    pub root: PathBuf,
    /// The certificate of the CA that signed nothing.
    pub other: PathBuf,
    /// The certificate for `localhost`.
    pub server: PathBuf,
    /// The private key of `server`.
    pub key: PathBuf,
}

impl Certificates {
    /// Generates them in a folder with the `openssl` command.
    pub fn make(folder: &Path) -> Self {
        let new = "-newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes";
        for name in ["root", "other"] {
            let files = format!("-keyout {name}.key -out {name}.pem -subj /CN={name}");
            openssl(folder, &format!("req -x509 {new} -days 2 {files}"));
        }
        openssl(folder, &format!("req {new} -keyout server.key -out server.csr -subj /CN=localhost"));
        std::fs::write(folder.join("names"), "subjectAltName=DNS:localhost\nbasicConstraints=CA:FALSE\n")
            .expect("a file");
        let signed_by = "-CA root.pem -CAkey root.key -CAcreateserial -days 2 -extfile names";
        openssl(folder, &format!("x509 -req -in server.csr {signed_by} -out server.pem"));
        let [root, other, server, key] =
            ["root.pem", "other.pem", "server.pem", "server.key"].map(|name| folder.join(name));
        Self { root, other, server, key }
    }
}

fn openssl(folder: &Path, arguments: &str) {
    let command = Command::new("openssl").args(arguments.split(' ')).current_dir(folder).output();
    let output = command.expect("openssl is installed");
    assert!(output.status.success(), "{arguments}: {}", String::from_utf8_lossy(&output.stderr));
}
