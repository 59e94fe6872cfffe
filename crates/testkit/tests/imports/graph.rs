//! A graph of names, and its cycles.

use std::collections::{BTreeMap, BTreeSet};

/// The imports of each name.
#[derive(Default)]
pub(crate) struct Graph(BTreeMap<String, BTreeSet<String>>);

impl Graph {
    pub(crate) fn add(&mut self, from: &str, to: &str) {
        self.0.entry(from.to_owned()).or_default().insert(to.to_owned());
    }

    /// Groups of names that import one another, directly or through others.
    pub(crate) fn cycles(&self) -> BTreeSet<BTreeSet<String>> {
        let reachable: BTreeMap<&str, BTreeSet<&str>> =
            self.0.keys().map(|name| (name.as_str(), self.reachable_from(name))).collect();
        let mutual = |one: &str, other: &str| {
            reachable[one].contains(other) && reachable.get(other).is_some_and(|names| names.contains(one))
        };
        let group = |name: &&str| -> BTreeSet<String> {
            let others = reachable[name].iter().filter(|other| mutual(name, other));
            others.map(|other| (*other).to_owned()).collect()
        };
        reachable.keys().map(group).filter(|group| group.len() > 1).collect()
    }

    fn reachable_from(&self, name: &str) -> BTreeSet<&str> {
        let (mut found, mut open) = (BTreeSet::new(), vec![name]);
        while let Some(next) = open.pop() {
            for to in self.0.get(next).into_iter().flatten() {
                if found.insert(to.as_str()) {
                    open.push(to);
                }
            }
        }
        found
    }
}
