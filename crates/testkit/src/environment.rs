//! Environment variables that set the length of a test campaign.

/// A whole number from an environment variable; `None` if it is not set.
pub fn number_from_environment(name: &str) -> Option<u32> {
    let text = text_from_environment(name)?;
    Some(text.parse().unwrap_or_else(|_| panic!("{name} must be a whole number, not {text:?}")))
}

/// A text from an environment variable; `None` if it is not set.
#[expect(clippy::disallowed_methods, reason = "the length of a campaign is not configuration of the program")]
pub fn text_from_environment(name: &str) -> Option<String> {
    std::env::var(name).ok()
}
