//! The modules of a crate and the paths in its source text. It is read line by line, not parsed: it finds the
//! paths that start with `crate::`, `super::` or `self::`, and the names that a `use` brings into a module.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs;
use std::path::Path;

use crate::graph::Graph;

/// A module, by its names from the root of the crate.
pub(crate) type Module = Vec<String>;

/// The modules of a crate, each with its text without comments and unit tests.
#[derive(Default)]
pub(crate) struct Source(BTreeMap<Module, String>);

impl Source {
    /// Reads the folder `src` of a crate.
    pub(crate) fn read(folder: &Path) -> Self {
        let mut source = Self::default();
        source.read_folder(folder, &Module::new());
        source
    }

    fn read_folder(&mut self, folder: &Path, module: &Module) {
        for entry in fs::read_dir(folder).expect("a folder of sources") {
            let path = entry.expect("an entry of the folder").path();
            let name = path.file_stem().and_then(OsStr::to_str).expect("a name in UTF-8").to_owned();
            let child = || module.iter().cloned().chain([name.clone()]).collect::<Module>();
            if path.is_dir() {
                self.read_folder(&path, &child());
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let is_folder = ["lib", "main", "mod"].contains(&name.as_str());
                let module = if is_folder { module.clone() } else { child() };
                self.add(module, &fs::read_to_string(&path).expect("a source file"));
            }
        }
    }

    /// Adds the text of a module. The root of a crate may have two files.
    pub(crate) fn add(&mut self, module: Module, text: &str) {
        let code = text.split("#[cfg(test)]\nmod ").next().unwrap_or_default();
        let lines = code.lines().filter(|line| !line.trim_start().starts_with("//"));
        let text = self.0.entry(module).or_default();
        lines.for_each(|line| text.extend([line, "\n"]));
    }

    /// The imports between the modules of each folder: of files and folders, the latter with all they
    /// contain.
    pub(crate) fn imports(&self) -> BTreeMap<Module, Graph> {
        let mut graphs: BTreeMap<Module, Graph> = BTreeMap::new();
        for (from, text) in &self.0 {
            for path in paths(text) {
                let Some(to) = self.resolve(from, &path, 0) else { continue };
                let common = from.iter().zip(&to).take_while(|(one, other)| one == other).count();
                if let (Some(one), Some(other)) = (from.get(common), to.get(common)) {
                    graphs.entry(from[..common].to_vec()).or_default().add(one, other);
                }
            }
        }
        graphs
    }

    /// The module in which the last name of a path is defined. A name that a module re-exports is looked up
    /// in the module that it comes from.
    fn resolve(&self, from: &Module, path: &[String], depth: usize) -> Option<Module> {
        let mut names = path.iter().peekable();
        let mut module = match names.peek()?.as_str() {
            "crate" => Module::new(),
            "self" | "super" => from.clone(),
            first => Some(from.clone()).filter(|_| self.0.contains_key(&child(from, first)))?,
        };
        while let Some(name) = names.next_if(|name| ["crate", "self", "super"].contains(&name.as_str())) {
            if name == "super" {
                module.pop()?;
            }
        }
        for name in names {
            if self.0.contains_key(&child(&module, name)) {
                module.push(name.clone());
                continue;
            }
            let uses = uses(self.0.get(&module)?);
            let use_of =
                uses.iter().find(|path| path.last() == Some(name) && path.as_slice() != [name.clone()]);
            return match use_of {
                Some(path) if depth < 4 => self.resolve(&module, path, depth + 1).or(Some(module)),
                _ => Some(module),
            };
        }
        Some(module)
    }
}

fn child(module: &Module, name: &str) -> Module {
    module.iter().cloned().chain([name.to_owned()]).collect()
}

/// All paths of a text that start in this crate.
fn paths(text: &str) -> Vec<Vec<String>> {
    let mut all = uses(text);
    for root in ["crate::", "super::", "self::"] {
        for (at, _) in text.match_indices(root) {
            let before = text[..at].chars().next_back();
            if !before.is_some_and(|c| c.is_alphanumeric() || c == '_' || c == ':' || c == '$') {
                expand(&mut Vec::new(), &text[at..], &mut all);
            }
        }
    }
    all
}

/// The paths of all `use` declarations of a text.
fn uses(text: &str) -> Vec<Vec<String>> {
    let mut all = Vec::new();
    for (at, word) in text.match_indices("use ") {
        let line = text[..at].rsplit('\n').next().unwrap_or_default().trim();
        if line.is_empty() || line.starts_with("pub") {
            expand(&mut Vec::new(), &text[at + word.len()..], &mut all);
        }
    }
    all
}

/// Adds the paths of a tree such as `a::{b, c::d}`, and returns the text after it.
fn expand<'t>(prefix: &mut Vec<String>, text: &'t str, all: &mut Vec<Vec<String>>) -> &'t str {
    let depth = prefix.len();
    let mut rest = text.trim_start();
    loop {
        if let Some(mut group) = rest.strip_prefix('{') {
            while !group.trim_start().starts_with('}') {
                let next = expand(prefix, group, all);
                group = next.trim_start().trim_start_matches(',');
                if next.is_empty() {
                    break;
                }
            }
            rest = group.trim_start().trim_start_matches('}');
            break;
        }
        let end = rest.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(rest.len());
        if end > 0 {
            prefix.push(rest[..end].to_owned());
        }
        rest = if end > 0 { &rest[end..] } else { rest.trim_start_matches('*') };
        match rest.strip_prefix("::") {
            Some(next) if end > 0 => rest = next,
            _ => {
                all.push(prefix.clone());
                let alias = rest.find([',', '}', ';']).unwrap_or(rest.len());
                rest = if rest.starts_with(" as ") { &rest[alias..] } else { rest };
                break;
            }
        }
    }
    prefix.truncate(depth);
    rest
}
