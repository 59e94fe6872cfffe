//! The Lua scripts that run on the server.

use redis::{Cmd, Pipeline};

const LOCK: &str = include_str!("lua/lock.lua");

/// A script and the SHA-1 digest under which the server caches it.
#[derive(Clone)]
pub(super) struct Script {
    text: String,
    digest: String,
}

impl Script {
    fn new(text: String) -> Self {
        let digest = redis::Script::new(&text).get_hash().to_owned();
        Self { text, digest }
    }

    /// The start of a call, to be followed by the number of keys, the keys and the arguments. With
    /// `send_text` the call contains the whole script, which the server then caches.
    pub(super) fn command(&self, send_text: bool) -> Cmd {
        let mut command = redis::cmd(if send_text { "EVAL" } else { "EVALSHA" });
        command.arg(if send_text { &self.text } else { &self.digest });
        command
    }
}

/// All scripts. They run on Redis 6.2 or later and on Valkey.
#[derive(Clone)]
pub struct Scripts {
    pub(super) rate_limit: Script,
    pub(super) acquire: Script,
    pub(super) renew: Script,
    pub(super) release: Script,
}

impl Default for Scripts {
    fn default() -> Self {
        Self::rewrite(|_, text| text.to_owned())
    }
}

impl Scripts {
    /// The scripts, each transformed by `rewrite(name, text)`; the names are `rate_limit`, `acquire`, `renew`
    /// and `release`. For tests, which replace the clock of a script or break its behaviour.
    pub fn rewrite(rewrite: impl Fn(&str, &str) -> String) -> Self {
        let of_lock = |name: &str, text: &str| Script::new(rewrite(name, &format!("{LOCK}\n{text}")));
        Self {
            rate_limit: Script::new(rewrite("rate_limit", include_str!("lua/rate_limit.lua"))),
            acquire: of_lock("acquire", include_str!("lua/acquire.lua")),
            renew: of_lock("renew", include_str!("lua/renew.lua")),
            release: of_lock("release", include_str!("lua/release.lua")),
        }
    }

    /// Commands that load all scripts into the server.
    pub(super) fn load_commands(&self) -> Pipeline {
        let mut load = redis::pipe();
        for script in [&self.rate_limit, &self.acquire, &self.renew, &self.release] {
            load.cmd("SCRIPT").arg("LOAD").arg(&script.text).ignore();
        }
        load
    }
}
