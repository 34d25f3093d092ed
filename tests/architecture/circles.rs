//! No two files of production code name each other, directly or by way of others.

use std::collections::{BTreeMap, BTreeSet};

use crate::source;

/// Circles that stay, each with its reason. Kept empty, or nearly so.
const DELIBERATE: &[(&[&str], &str)] = &[];

#[test]
fn no_files_import_each_other_in_a_circle() {
    let (modules, edges) = source::file_edges();
    let circles = circles(&edges);
    let mut wrong = Vec::new();
    for circle in &circles {
        let files: Vec<&str> = circle.iter().map(|module| modules[module].as_str()).collect();
        if !DELIBERATE.iter().any(|(known, _)| *known == files) {
            wrong.push(describe(circle, &edges));
        }
    }
    for (known, reason) in DELIBERATE {
        let is_there = circles
            .iter()
            .any(|circle| circle.iter().map(|module| &*modules[module]).eq(known.iter().copied()));
        if !is_there {
            wrong.push(format!("{known:?} is no circle any more: take it out of the list ({reason})"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// Groups of modules each of which reaches every other.
fn circles(edges: &BTreeMap<String, BTreeSet<String>>) -> BTreeSet<BTreeSet<String>> {
    let reached: BTreeMap<&String, BTreeSet<&String>> =
        edges.keys().map(|module| (module, reachable(module, edges))).collect();
    let circle_of = |module: &String| -> BTreeSet<String> {
        let back = |other: &&&String| reached.get(**other).is_some_and(|far| far.contains(module));
        reached[module].iter().filter(back).map(|other| (*other).clone()).collect()
    };
    edges.keys().map(circle_of).filter(|circle| circle.len() > 1).collect()
}

fn reachable<'a>(from: &'a String, edges: &'a BTreeMap<String, BTreeSet<String>>) -> BTreeSet<&'a String> {
    let (mut found, mut open) = (BTreeSet::new(), vec![from]);
    while let Some(module) = open.pop() {
        for next in edges.get(module).into_iter().flatten() {
            if found.insert(next) {
                open.push(next);
            }
        }
    }
    found
}

fn describe(circle: &BTreeSet<String>, edges: &BTreeMap<String, BTreeSet<String>>) -> String {
    let mut lines = vec![format!("a circle of {} files:", circle.len())];
    for module in circle {
        let into: Vec<&str> = edges[module].intersection(circle).map(String::as_str).collect();
        lines.push(format!("  {module} names {}", into.join(", ")));
    }
    lines.join("\n")
}

#[test]
fn a_circle_is_found_and_a_chain_is_none() {
    let edges = |pairs: &[(&str, &str)]| {
        let mut edges: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
        for (from, to) in pairs {
            edges.entry((*from).to_owned()).or_default().insert((*to).to_owned());
        }
        edges
    };
    assert!(circles(&edges(&[("a", "b"), ("b", "c"), ("a", "c")])).is_empty());
    let found = circles(&edges(&[("a", "b"), ("b", "c"), ("c", "a"), ("c", "d")]));
    assert_eq!(found, BTreeSet::from([["a", "b", "c"].map(str::to_owned).into()]));
}
