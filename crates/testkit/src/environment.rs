//! What a test run is told from outside: how long a campaign should be.

/// A whole number from an environment variable; `None` where it is not set.
pub fn number_from_environment(name: &str) -> Option<u32> {
    let text = text_from_environment(name)?;
    Some(text.parse().unwrap_or_else(|_| panic!("{name} must be a whole number, not {text:?}")))
}

/// A text from an environment variable; `None` where it is not set.
#[expect(clippy::disallowed_methods, reason = "a campaign's length is no configuration of the program")]
pub fn text_from_environment(name: &str) -> Option<String> {
    std::env::var(name).ok()
}
