//! The scripts that run on the server, and how they are called.

use redis::{Cmd, Pipeline};

const LOCK: &str = include_str!("lua/lock.lua");

/// A script with the digest by which a server knows it.
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

    /// The start of a call, to be followed by the number of keys, the keys and the arguments. By its text
    /// where the server may not have it; that is more to send, and the server then keeps it.
    pub(super) fn call(&self, by_text: bool) -> Cmd {
        let mut call = redis::cmd(if by_text { "EVAL" } else { "EVALSHA" });
        call.arg(if by_text { &self.text } else { &self.digest });
        call
    }
}

/// All scripts. They need nothing newer than Redis 6.2 and run on Valkey as well.
#[derive(Clone)]
pub struct Scripts {
    pub(super) rate_limit: Script,
    pub(super) acquire: Script,
    pub(super) renew: Script,
    pub(super) release: Script,
}

impl Default for Scripts {
    fn default() -> Self {
        Self::rewritten(|_, text| text.to_owned())
    }
}

impl Scripts {
    /// The scripts with each text, by its name (`rate_limit`, `acquire`, `renew`, `release`), made into another:
    /// for tests, which set the clock the scripts read or break what they do.
    pub fn rewritten(rewrite: impl Fn(&str, &str) -> String) -> Self {
        let of_lock = |name: &str, text: &str| Script::new(rewrite(name, &format!("{LOCK}\n{text}")));
        Self {
            rate_limit: Script::new(rewrite("rate_limit", include_str!("lua/rate_limit.lua"))),
            acquire: of_lock("acquire", include_str!("lua/acquire.lua")),
            renew: of_lock("renew", include_str!("lua/renew.lua")),
            release: of_lock("release", include_str!("lua/release.lua")),
        }
    }

    /// Makes a server know all of them.
    pub(super) fn load(&self) -> Pipeline {
        let mut load = redis::pipe();
        for script in [&self.rate_limit, &self.acquire, &self.renew, &self.release] {
            load.cmd("SCRIPT").arg("LOAD").arg(&script.text).ignore();
        }
        load
    }
}
