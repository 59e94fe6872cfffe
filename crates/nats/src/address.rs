//! Parsing of `--nats`: the addresses of the servers and the credentials.
//!
//! The client library does not send credentials that are part of a URL, and would write them to its log. So
//! they are removed from the URLs here.

use std::fmt;
use std::str::FromStr;

use async_nats::{ConnectOptions, ServerAddr};
use percent_encoding::percent_decode_str;

/// The servers of one cluster, and the credentials for all of them. `Display` omits the credentials.
#[derive(Clone)]
pub struct Address {
    /// Without credentials, in the order in which they are tried.
    servers: Vec<ServerAddr>,
    login: Option<Login>,
}

/// The credentials: the part of a URL before the `@`.
#[derive(Clone, PartialEq, Eq)]
enum Login {
    User { name: String, password: String },
    Token(String),
}

impl FromStr for Address {
    type Err = String;

    /// Parses a comma-separated list of URLs. Errors do not contain the input, which may hold a password.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (mut servers, mut logins) = (Vec::new(), Vec::new());
        for url in text.split(',') {
            let server = ServerAddr::from_str(url.trim()).map_err(|error| error.to_string())?;
            match server.scheme() {
                "nats" | "tls" if !server.host().is_empty() => {}
                _ => return Err("must be nats://… or tls://…".to_owned()),
            }
            logins.extend(Login::of(&server)?);
            servers.push(
                ServerAddr::from_str(&without_credentials(&server)).map_err(|error| error.to_string())?,
            );
        }
        let login = logins.pop();
        if logins.iter().any(|other| Some(other) != login.as_ref()) {
            return Err("must have the same credentials for all servers of a cluster".to_owned());
        }
        Ok(Self { servers, login })
    }
}

impl Login {
    fn of(server: &ServerAddr) -> Result<Option<Self>, String> {
        let decode = |text: &str| match percent_decode_str(text).decode_utf8() {
            Ok(text) => Ok(text.into_owned()),
            Err(_) => Err("has credentials that are not UTF-8".to_owned()),
        };
        Ok(match (server.username(), server.password()) {
            (Some(name), Some(password)) => {
                Some(Self::User { name: decode(name)?, password: decode(password)? })
            }
            (Some(token), None) => Some(Self::Token(decode(token)?)),
            (None, Some(_)) => return Err("has a password without a name".to_owned()),
            (None, None) => None,
        })
    }
}

/// Returns the URL of a server without credentials.
fn without_credentials(server: &ServerAddr) -> String {
    let host = server.host();
    let host = if host.contains(':') { format!("[{host}]") } else { host.to_owned() };
    format!("{}://{host}:{}", server.scheme(), server.port())
}

impl Address {
    /// Returns the servers to connect to.
    pub(crate) fn servers(&self) -> Vec<ServerAddr> {
        self.servers.clone()
    }

    /// Adds the credentials to connection options.
    pub(crate) fn log_in(&self, options: ConnectOptions) -> ConnectOptions {
        match self.login.clone() {
            Some(Login::User { name, password }) => options.user_and_password(name, password),
            Some(Login::Token(token)) => options.token(token),
            None => options,
        }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.servers.iter().map(without_credentials).collect::<Vec<_>>().join(","))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credentials_are_taken_out_of_the_urls() {
        let user = |name: &str, password: &str| {
            Some(Login::User { name: name.to_owned(), password: password.to_owned() })
        };
        for (text, shown, login) in [
            ("nats://10.0.0.1", "nats://10.0.0.1:4222", None),
            ("tls://nats.example:4443", "tls://nats.example:4443", None),
            ("nats://[::1]:4333", "nats://[::1]:4333", None),
            ("nats://ada:pa%40ss@a:1, nats://b:2", "nats://a:1,nats://b:2", user("ada", "pa@ss")),
            ("nats://ada:x@a:1,nats://ada:x@b:2", "nats://a:1,nats://b:2", user("ada", "x")),
            ("nats://t0ken@a:1", "nats://a:1", Some(Login::Token("t0ken".to_owned()))),
        ] {
            let address: Address = text.parse().expect(text);
            assert!(address.to_string() == shown && address.login == login, "{text}: {address}");
        }
    }

    #[test]
    fn error_messages_do_not_contain_credentials() {
        for text in [
            "",
            "http://ada:secret@a",
            "nats://ada:secret@",
            "nats://ada:secret@a,nats://bob:secret@b",
            "nats://ada:secret@a:port",
            "nats://:secret@a",
            "nats://ada:secret%ff@a",
        ] {
            let wrong = Address::from_str(text).err().unwrap_or_else(|| panic!("{text} is fine"));
            assert!(!wrong.contains("secret"), "{wrong}");
        }
    }
}
