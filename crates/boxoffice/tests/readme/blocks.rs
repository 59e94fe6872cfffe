//! The fenced blocks of shell commands in the documents.

use std::path::Path;

use crate::shell::git;

/// The checkout.
pub(crate) const ROOT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../..");

/// The languages that fences of shell commands name.
const SHELL: [&str; 5] = ["sh", "bash", "shell", "console", "zsh"];

/// Blocks that have not been taken yet.
#[derive(Debug)]
pub(crate) struct Blocks(Vec<(String, String)>);

impl Blocks {
    /// Reads every Markdown file of the repository.
    pub(crate) fn read() -> Self {
        let mut blocks = Vec::new();
        for file in git(&["ls-files", "*.md"]).lines() {
            blocks.extend(shell_blocks(file).into_iter().map(|block| (file.to_owned(), block)));
        }
        Self(blocks)
    }

    /// Removes and returns the block of a file that begins with this text.
    pub(crate) fn take(&mut self, file: &str, beginning: &str) -> String {
        let position = self.0.iter().position(|(of, block)| of == file && block.starts_with(beginning));
        let position = position.unwrap_or_else(|| panic!("no block of {file} begins with `{beginning}`"));
        self.0.remove(position).1
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

fn shell_blocks(file: &str) -> Vec<String> {
    let text = std::fs::read_to_string(Path::new(ROOT).join(file)).expect("a document");
    let (mut blocks, mut open) = (Vec::new(), None::<(String, String)>);
    for line in text.lines() {
        assert!(!line.trim_start().starts_with("~~~"), "{file}: a fence is written with backticks");
        match (line.trim_start().strip_prefix("```"), open.as_mut()) {
            (Some(language), None) => {
                let language = language.split_whitespace().next().unwrap_or_default().to_owned();
                assert!(!language.is_empty(), "{file}: a fence must name its language");
                open = Some((language, String::new()));
            }
            (Some(_), Some(_)) => blocks.extend(open.take()),
            (None, Some((_, block))) => {
                block.push_str(line);
                block.push('\n');
            }
            (None, None) => {}
        }
    }
    let shell = blocks.into_iter().filter(|(language, _)| SHELL.contains(&&**language));
    shell.map(|(_, block)| block).collect()
}
