//! Who may import whom: the crates of the workspace, and the modules of each.
//!
//! A crate exists so that something cannot depend on something else. The manifests say what it depends on,
//! and these tests say why it may not be more. Within a crate the compiler allows modules to import one
//! another in a cycle; then none of them can be read, tested or moved without the others.

mod graph;
mod source;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use graph::Graph;
use source::Source;

/// The crates, each with those that it may depend on.
const CRATES: [(&str, &[&str]); 12] = [
    ("domain", &[]),
    ("supervisor", &[]),
    ("coordination", &["supervisor"]),
    ("store", &["domain"]),
    ("engine", &["coordination", "domain", "store", "supervisor"]),
    // Below the transports: a refusal or a view cannot depend on how it is sent.
    ("api", &["domain", "engine", "store", "supervisor"]),
    // The transports do not know each other: each works without the other.
    ("http_api", &["api", "coordination", "domain", "engine", "store", "supervisor"]),
    ("nats", &["api", "domain", "engine", "store", "supervisor"]),
    // Knows servers only over HTTP.
    ("loadgen", &[]),
    (
        "boxoffice",
        &["api", "coordination", "domain", "engine", "http_api", "loadgen", "nats", "store", "supervisor"],
    ),
    // Knows the program only from outside.
    ("testkit", &[]),
    ("sim", &["coordination", "domain", "engine", "store", "testkit"]),
];

/// Libraries that only these crates may use.
const LIBRARIES: [(&str, &[&str]); 7] = [
    ("async-nats", &["nats"]),
    ("axum", &["http_api"]),
    ("clap", &["boxoffice"]),
    ("jsonwebtoken", &["http_api", "testkit"]),
    ("redis", &["coordination"]),
    ("rusqlite", &["store"]),
    ("tokio-postgres", &["store", "testkit"]),
];

fn crates_folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// The names in the section `[dependencies]` of the manifest of a crate.
fn dependencies(name: &str) -> BTreeSet<String> {
    let manifest = fs::read_to_string(crates_folder().join(name).join("Cargo.toml"));
    let manifest = manifest.expect("a manifest");
    let section = manifest.split("\n[dependencies]\n").nth(1).unwrap_or_default();
    let lines = section.lines().take_while(|line| !line.starts_with('['));
    let names = lines.filter_map(|line| line.split(['.', '=', ' ']).next().map(str::to_owned));
    names.filter(|name| !name.is_empty() && !name.starts_with('#')).collect()
}

#[test]
fn crates_depend_only_on_those_that_they_may_know() {
    let folders = fs::read_dir(crates_folder()).unwrap();
    let found: BTreeSet<String> =
        folders.map(|folder| folder.unwrap().file_name().into_string().unwrap()).collect();
    let listed: BTreeSet<String> = CRATES.iter().map(|(name, _)| (*name).to_owned()).collect();
    assert_eq!(found, listed, "a new crate needs a line in CRATES, and a reason");
    for (name, allowed) in CRATES {
        let known: BTreeSet<String> = dependencies(name).intersection(&listed).cloned().collect();
        let allowed: BTreeSet<String> = allowed.iter().map(|name| (*name).to_owned()).collect();
        assert_eq!(known, allowed, "the dependencies of {name}");
    }
}

#[test]
fn libraries_are_used_only_where_they_belong() {
    for (library, allowed) in LIBRARIES {
        let users = CRATES.iter().map(|(name, _)| *name).filter(|name| dependencies(name).contains(library));
        assert_eq!(users.collect::<BTreeSet<_>>(), allowed.iter().copied().collect(), "{library}");
    }
}

#[test]
fn modules_do_not_import_one_another_in_a_cycle() {
    let mut found: BTreeMap<BTreeSet<String>, String> = BTreeMap::new();
    for (name, _) in CRATES {
        for (folder, graph) in Source::read(&crates_folder().join(name).join("src")).imports() {
            let folder = [vec![name.to_owned()], folder].concat().join("/");
            found.extend(graph.cycles().into_iter().map(|cycle| (cycle, folder.clone())));
        }
    }
    assert_eq!(found, BTreeMap::new(), "modules that import one another, each cycle with its folder");
}

#[test]
fn cycles_of_a_graph_are_found() {
    let mut graph = Graph::default();
    for (from, to) in [("a", "b"), ("b", "c"), ("c", "b"), ("c", "d"), ("e", "f"), ("f", "g"), ("g", "e")] {
        graph.add(from, to);
    }
    let cycles: Vec<Vec<String>> =
        graph.cycles().into_iter().map(|cycle| cycle.into_iter().collect()).collect();
    assert_eq!(cycles, [vec!["b", "c"], vec!["e", "f", "g"]]);
}

#[test]
fn cycles_of_modules_are_found_through_groups_folders_and_re_exports() {
    let cycles = |files: &[(&str, &str)]| {
        let mut source = Source::default();
        for (module, text) in files {
            let module = module.split('/').filter(|name| !name.is_empty()).map(str::to_owned);
            source.add(module.collect(), text);
        }
        let graphs = source.imports().into_iter();
        let cycles = graphs.flat_map(|(folder, graph)| {
            graph.cycles().into_iter().map(move |cycle| (folder.join("/"), cycle.into_iter().collect()))
        });
        cycles.collect::<Vec<(String, Vec<String>)>>()
    };
    let pair = |folder: &str| vec![(folder.to_owned(), vec!["a".to_owned(), "b".to_owned()])];
    assert_eq!(
        cycles(&[("", ""), ("a", "use crate::{b::{X, Y}, c};"), ("b", "use super::a;"), ("c", "")]),
        pair("")
    );
    // Between the contents of a folder and a file beside it, and by a path without `use`.
    assert_eq!(
        cycles(&[("", ""), ("a", ""), ("a/x", "fn f() { crate::b::f() }"), ("b", "use crate::a::x::X;")]),
        pair("")
    );
    // Within a folder, through the re-export of its parent.
    let parent = "mod a;\nmod b;\npub(crate) use self::a::X;";
    assert_eq!(
        cycles(&[("", ""), ("d", parent), ("d/a", "use super::b::Y;"), ("d/b", "use super::X;")]),
        pair("d")
    );
    // A parent and its child are no cycle; neither are comments and unit tests.
    let text = "// use crate::a::X;\n#[cfg(test)]\nmod tests {\nuse crate::a::X;\n}";
    assert_eq!(
        cycles(&[
            ("", ""),
            ("a", "use crate::b::Y;\nuse crate::a::x::Z;"),
            ("a/x", "use super::X;"),
            ("b", text)
        ]),
        []
    );
}
