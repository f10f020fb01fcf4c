//! Arrows between crates point downwards.
//!
//! The table [`HOUSE`] gives every crate its layer and, where crates of one layer may know each other,
//! a step within it: an arrow must go to a lower (layer, step). What a crate reaches through the
//! registry counts as well: a pure crate with tokio three levels down is not pure.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::path::Path;

use anyhow::{Context, Result};
use cargo_metadata::{DependencyKind, Metadata, MetadataCommand, Package, PackageId};

use super::Finding;
use super::unsafety::FFI_CRATE;

/// The graph is that of one platform, so that every machine sees the same.
const PLATFORM: &str = "x86_64-unknown-linux-gnu";

/// From the ground up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Layer {
    /// Wire and disk types, keys.
    Words,
    /// Pure machines.
    Minds,
    /// What touches network, disk and processes.
    Hands,
    /// What people and programs speak to.
    Faces,
    /// Never shipped.
    Workshop,
}

/// Where a crate stands; ordered, so that an arrow may go to what is smaller.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Place {
    pub(crate) layer: Layer,
    step: u8,
}

const fn at(layer: Layer, step: u8) -> Place {
    Place { layer, step }
}

/// Every crate of the house.
const HOUSE: [(&str, Place); 14] = [
    ("proto", at(Layer::Words, 0)),
    ("identity", at(Layer::Words, 1)),
    ("swarm", at(Layer::Minds, 0)),
    ("net", at(Layer::Hands, 0)),
    ("store", at(Layer::Hands, 0)),
    ("engine", at(Layer::Hands, 0)),
    ("engine-host", at(Layer::Hands, 0)),
    ("api", at(Layer::Faces, 0)),
    ("node", at(Layer::Faces, 1)),
    ("lab", at(Layer::Workshop, 0)),
    ("specimen", at(Layer::Workshop, 0)),
    ("sim", at(Layer::Workshop, 0)),
    ("fuzz", at(Layer::Workshop, 1)),
    ("xtask", at(Layer::Workshop, 1)),
];

/// What must not appear anywhere below words and minds: runtimes, sockets, disks, OS calls, OS randomness.
const IMPURE: [&str; 22] = [
    "async-std",
    "axum",
    "fs4",
    "getrandom",
    "hf-hub",
    "hyper",
    "iroh",
    "llama-cpp-sys-2",
    "memmap2",
    "mio",
    "nix",
    "noq",
    "polling",
    "quinn",
    "rand",
    "redb",
    "reqwest",
    "rustix",
    "smol",
    "socket2",
    "tempfile",
    "tokio",
];

/// The place of a crate in the house, if it has one.
pub(crate) fn place(name: &str) -> Option<Place> {
    HOUSE
        .iter()
        .find(|(known, _)| *known == name)
        .map(|(_, place)| *place)
}

/// One crate of the workspace with its arrows.
#[derive(Debug, Clone, Default)]
struct Member {
    name: String,
    /// Its manifest below the root.
    manifest: String,
    /// Names it depends on for its product, build scripts included.
    normal: BTreeSet<String>,
    /// Names it depends on for its tests.
    dev: BTreeSet<String>,
    /// Every crate its product reaches, with the one it is reached through.
    reach: BTreeMap<String, String>,
}

/// The crates of a workspace.
#[derive(Debug)]
pub(crate) struct Graph {
    members: Vec<Member>,
}

impl Graph {
    /// Asks `cargo metadata`.
    ///
    /// # Errors
    ///
    /// When cargo fails, for example because the lock file does not fit the manifests.
    pub(crate) fn from_cargo(root: &Path) -> Result<Self> {
        let options = ["--locked", "--filter-platform", PLATFORM].map(str::to_owned);
        let metadata = MetadataCommand::new()
            .current_dir(root)
            .other_options(options.to_vec())
            .exec()
            .with_context(|| format!("`cargo metadata --locked` failed in {}", root.display()))?;
        let members = metadata.workspace_packages();
        Ok(Self {
            members: members
                .iter()
                .map(|package| member(&metadata, package))
                .collect(),
        })
    }

    fn is_member(&self, name: &str) -> bool {
        self.members.iter().any(|member| member.name == name)
    }
}

fn member(metadata: &Metadata, package: &Package) -> Member {
    let root = metadata.workspace_root.as_std_path();
    let manifest = package.manifest_path.as_std_path();
    let of_kind = |dev: bool| {
        let dependencies = package.dependencies.iter();
        let chosen = dependencies.filter(move |d| (d.kind == DependencyKind::Development) == dev);
        chosen.map(|dependency| dependency.name.clone()).collect()
    };
    Member {
        name: package.name.to_string(),
        manifest: manifest
            .strip_prefix(root)
            .unwrap_or(manifest)
            .to_string_lossy()
            .into_owned(),
        normal: of_kind(false),
        dev: of_kind(true),
        reach: reach(metadata, &package.id),
    }
}

/// Breadth first along normal dependencies, so that the way to each crate is a shortest one.
fn reach(metadata: &Metadata, start: &PackageId) -> BTreeMap<String, String> {
    let name = |id: &PackageId| metadata[id].name.to_string();
    let nodes = metadata.resolve.iter().flat_map(|resolve| &resolve.nodes);
    let edges: BTreeMap<_, _> = nodes.map(|node| (&node.id, &node.deps)).collect();
    let mut through = BTreeMap::new();
    let mut seen = BTreeSet::from([start]);
    let mut queue = VecDeque::from([start]);
    while let Some(id) = queue.pop_front() {
        let is_normal = |dep: &&cargo_metadata::NodeDep| {
            dep.dep_kinds
                .iter()
                .any(|kind| kind.kind == DependencyKind::Normal)
        };
        for dep in edges
            .get(id)
            .into_iter()
            .flat_map(|deps| deps.iter())
            .filter(is_normal)
        {
            if seen.insert(&dep.pkg) {
                through.entry(name(&dep.pkg)).or_insert_with(|| name(id));
                queue.push_back(&dep.pkg);
            }
        }
    }
    through
}

/// All findings about arrows.
pub(crate) fn check(graph: &Graph) -> Vec<Finding> {
    let rules = [homeless, upward, test_upward, impure, foreign];
    let each = |member| rules.iter().flat_map(move |rule| rule(graph, member));
    graph.members.iter().flat_map(each).collect()
}

fn finding(member: &Member, what: String, why: &str, out: String) -> Finding {
    let (file, why) = (member.manifest.clone(), why.to_owned());
    Finding {
        file,
        line: 0,
        rule: "layers",
        what,
        why,
        out,
    }
}

/// A crate that the table does not know.
fn homeless(_: &Graph, member: &Member) -> Vec<Finding> {
    if place(&member.name).is_some() {
        return Vec::new();
    }
    let what = format!("crate `{}` has no layer", member.name);
    let why = "without a place nobody can say which arrows it may have";
    vec![finding(
        member,
        what,
        why,
        "give it a layer in xtask/src/tidy/layers.rs".into(),
    )]
}

/// Arrows of the product.
fn upward(graph: &Graph, member: &Member) -> Vec<Finding> {
    let Some(own) = place(&member.name).filter(|own| own.layer != Layer::Workshop) else {
        return Vec::new();
    };
    let inner = member.normal.iter().filter(|name| graph.is_member(name));
    let wrong = inner.filter(|name| place(name).is_some_and(|other| other >= own));
    let explained = wrong.map(|name| {
        let what = format!(
            "`{}` depends on `{name}`, which is not below it",
            member.name
        );
        let why = "arrows go from faces to hands to minds to words, and never sideways";
        finding(
            member,
            what,
            why,
            "let them meet in a proto type, wired by `node`".into(),
        )
    });
    explained.collect()
}

/// Arrows of the tests: sideways is allowed, and the workshop is made for it.
fn test_upward(graph: &Graph, member: &Member) -> Vec<Finding> {
    let Some(own) = place(&member.name).filter(|own| own.layer != Layer::Workshop) else {
        return Vec::new();
    };
    let is_wrong = |other: Place| other.layer > own.layer && other.layer != Layer::Workshop;
    let inner = member.dev.iter().filter(|name| graph.is_member(name));
    let wrong = inner.filter(|name| place(name).is_some_and(is_wrong));
    let explained = wrong.map(|name| {
        let what = format!(
            "the tests of `{}` depend on `{name}`, which is above it",
            member.name
        );
        let why = "a crate must be testable without what is built on it";
        finding(member, what, why, format!("move the test to `{name}`"))
    });
    explained.collect()
}

/// Runtimes and the like below words and minds.
fn impure(_: &Graph, member: &Member) -> Vec<Finding> {
    let own = place(&member.name).map(|own| own.layer);
    if !matches!(own, Some(Layer::Words | Layer::Minds)) {
        return Vec::new();
    }
    let found = IMPURE
        .iter()
        .filter(|name| member.reach.contains_key(**name));
    let explained = found.map(|name| {
        let what = format!("`{}` reaches `{name}`: {}", member.name, way(member, name));
        let why =
            "words and minds run in the simulator, without runtime, sockets, disk or OS randomness";
        finding(
            member,
            what,
            why,
            "drop the dependency, or the feature that pulls it in".into(),
        )
    });
    explained.collect()
}

/// `a -> b -> c`.
fn way(member: &Member, name: &str) -> String {
    let mut way = vec![name];
    while let Some(previous) = member.reach.get(way[way.len() - 1]) {
        way.push(previous);
        if *previous == member.name {
            break;
        }
    }
    way.reverse();
    way.join(" -> ")
}

/// Bindings to native libraries outside the one crate for FFI.
fn foreign(_: &Graph, member: &Member) -> Vec<Finding> {
    if member.name == FFI_CRATE {
        return Vec::new();
    }
    let is_binding = |name: &&String| {
        name.ends_with("-sys")
            || name.contains("-sys-")
            || ["libc", "libloading"].contains(&name.as_str())
    };
    let explained = member.normal.iter().filter(is_binding).map(|name| {
        let what = format!("`{}` depends on the native binding `{name}`", member.name);
        let why = "a native fault must only be able to take down `engine-host`";
        finding(
            member,
            what,
            why,
            format!("use a safe crate or move the code to `{FFI_CRATE}`"),
        )
    });
    explained.collect()
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn member(name: &str, normal: &[&str], dev: &[&str]) -> Member {
        let set = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
        let manifest = format!("crates/{name}/Cargo.toml");
        let (normal, dev, reach) = (set(normal), set(dev), BTreeMap::new());
        Member {
            name: name.into(),
            manifest,
            normal,
            dev,
            reach,
        }
    }

    /// The house with one crate replaced.
    #[track_caller]
    fn check(changed: Member, expected: &[&str]) {
        let names = HOUSE
            .iter()
            .map(|(name, _)| *name)
            .filter(|name| *name != changed.name);
        let mut members: Vec<Member> = names.map(|name| member(name, &[], &[])).collect();
        members.push(changed);
        let found: Vec<String> = super::check(&Graph { members })
            .into_iter()
            .map(|finding| finding.what)
            .collect();
        super::super::tests::assert_strikes(&found, expected);
    }

    #[test]
    fn arrows_of_the_product_go_down() {
        check(member("node", &["api", "net", "swarm", "proto"], &[]), &[]);
        check(member("identity", &["proto"], &[]), &[]);
        check(member("engine-host", &["swarm"], &[]), &[]);
        check(
            member("proto", &["identity"], &[]),
            &["`proto` depends on `identity`"],
        );
        check(
            member("swarm", &["net"], &[]),
            &["`swarm` depends on `net`"],
        );
        check(
            member("engine", &["store"], &[]),
            &["`engine` depends on `store`"],
        );
        check(member("api", &["node"], &[]), &["`api` depends on `node`"]);
        check(
            member("node", &["specimen"], &[]),
            &["`node` depends on `specimen`"],
        );
        check(member("xtask", &["node", "specimen"], &[]), &[]);
    }

    #[test]
    fn arrows_of_tests_may_go_sideways_and_to_the_workshop() {
        check(member("swarm", &[], &["proto", "specimen"]), &[]);
        check(member("engine", &[], &["engine-host"]), &[]);
        check(
            member("swarm", &[], &["net"]),
            &["the tests of `swarm` depend on `net`"],
        );
    }

    #[test]
    fn a_crate_without_a_layer_is_found() {
        check(member("gossip", &[], &[]), &["crate `gossip` has no layer"]);
    }

    #[test]
    fn an_impure_crate_deep_below_a_mind_is_found_with_its_way() {
        let pair = |name: &str, through: &str| (name.to_owned(), through.to_owned());
        let reach = BTreeMap::from([pair("a", "swarm"), pair("b", "a"), pair("tokio", "b")]);
        let swarm = Member {
            reach: reach.clone(),
            ..member("swarm", &["a"], &[])
        };
        check(
            swarm,
            &["`swarm` reaches `tokio`: swarm -> a -> b -> tokio"],
        );
        check(
            Member {
                reach,
                ..member("net", &["a"], &[])
            },
            &[],
        );
    }

    #[test]
    fn native_bindings_belong_to_the_host() {
        check(member("engine-host", &["llama-cpp-sys-2"], &[]), &[]);
        check(
            member("engine", &["llama-cpp-sys-2"], &[]),
            &["`engine` depends on the native"],
        );
        check(
            member("net", &["libc"], &[]),
            &["`net` depends on the native binding `libc`"],
        );
        check(
            member("net", &["openssl-sys"], &[]),
            &["`net` depends on the native binding"],
        );
        check(member("net", &["nix"], &[]), &[]);
    }

    /// A workspace of two crates on disk, one of them with an arrow that points upwards.
    #[test]
    fn cargo_metadata_becomes_a_graph() {
        let dir = tempfile::tempdir().unwrap();
        let manifest = |name: &str, tail: &str| {
            let src = dir.path().join("crates").join(name).join("src");
            fs::create_dir_all(&src).unwrap();
            fs::write(src.join("lib.rs"), "").unwrap();
            let head =
                format!("[package]\nname = \"{name}\"\nversion = \"0.1.0\"\nedition = \"2024\"\n");
            fs::write(src.parent().unwrap().join("Cargo.toml"), head + tail).unwrap();
        };
        manifest("proto", "[dependencies]\ntokio = { path = \"../tokio\" }\n");
        manifest(
            "tokio",
            "[dev-dependencies]\nproto = { path = \"../proto\" }\n",
        );
        let workspace = "[workspace]\nresolver = \"3\"\nmembers = [\"crates/*\"]\n";
        fs::write(dir.path().join("Cargo.toml"), workspace).unwrap();
        let lock = "version = 4\n\n[[package]]\nname = \"proto\"\nversion = \"0.1.0\"\n\
            dependencies = [\n \"tokio\",\n]\n\n[[package]]\nname = \"tokio\"\nversion = \"0.1.0\"\n\
            dependencies = [\n \"proto\",\n]\n";
        fs::write(dir.path().join("Cargo.lock"), lock).unwrap();

        let graph = Graph::from_cargo(dir.path()).unwrap();
        let mut found: Vec<_> = super::check(&graph)
            .into_iter()
            .map(|f| (f.file, f.what))
            .collect();
        found.sort();
        let expected = [
            (
                "crates/proto/Cargo.toml",
                "`proto` reaches `tokio`: proto -> tokio",
            ),
            ("crates/tokio/Cargo.toml", "crate `tokio` has no layer"),
        ];
        assert_eq!(
            found,
            expected.map(|(file, what)| (file.to_owned(), what.to_owned()))
        );
    }
}
