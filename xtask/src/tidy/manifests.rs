//! What the manifests and the lock file must say.

use toml::{Table, Value};

use super::Finding;
use super::tree::Tree;
use super::unsafety::FFI_CRATE;

/// Packages in the lock file, ours included.
const LOCK_PACKAGES_MAX: usize = 600;
/// Every package that is not ours comes from here.
const REGISTRY: &str = "registry+https://github.com/rust-lang/crates.io-index";
/// Its behaviour is part of the numerics contract, so it never moves by itself.
const EXACT_PIN: &str = "llama-cpp-sys-2";

/// All findings about `Cargo.toml` files and `Cargo.lock`.
pub(crate) fn check(tree: &Tree) -> Vec<Finding> {
    let root = table(tree, "Cargo.toml");
    let lints = at(&root, &["workspace", "lints"])
        .and_then(Value::as_table)
        .cloned();
    let mut findings = workspace(&root, lints.as_ref());
    for path in member_manifests(tree) {
        findings.extend(member(path, &table(tree, path), lints.as_ref()));
    }
    findings.extend(lock(&table(tree, "Cargo.lock")));
    findings
}

fn finding(file: &str, rule: &'static str, what: String, why: &str, out: &str) -> Finding {
    let (file, why, out) = (file.to_owned(), why.to_owned(), out.to_owned());
    Finding {
        file,
        line: 0,
        rule,
        what,
        why,
        out,
    }
}

/// An unreadable file is an empty table: every rule about it then strikes.
fn table(tree: &Tree, path: &str) -> Value {
    let parsed = tree.text(path).and_then(|text| text.parse::<Table>().ok());
    Value::Table(parsed.unwrap_or_default())
}

fn at<'a>(value: &'a Value, path: &[&str]) -> Option<&'a Value> {
    path.iter().try_fold(value, |value, key| value.get(key))
}

fn member_manifests(tree: &Tree) -> impl Iterator<Item = &str> {
    let paths = tree.files.iter().map(|file| file.path.as_str());
    paths.filter(|path| {
        let depth = path.matches('/').count();
        let in_workspace =
            (path.starts_with("crates/") && depth == 2) || *path == "xtask/Cargo.toml";
        in_workspace && path.ends_with("/Cargo.toml")
    })
}

fn workspace(root: &Value, lints: Option<&Table>) -> Vec<Finding> {
    let mut findings = Vec::new();
    let level = lints.and_then(|lints| lints.get("rust")?.get("unsafe_code")?.as_str());
    if !matches!(level, Some("deny" | "forbid")) {
        findings.push(finding(
            "Cargo.toml",
            "lints",
            format!("`unsafe_code` is {}", level.unwrap_or("not set")),
            "a native fault must only be able to take down `engine-host`",
            "set `unsafe_code = \"deny\"` in [workspace.lints.rust]",
        ));
    }
    let pin = at(root, &["workspace", "dependencies", EXACT_PIN]);
    let version = pin.and_then(|pin| pin.get("version").unwrap_or(pin).as_str());
    if !version.is_some_and(|version| version.starts_with('=')) {
        findings.push(finding(
            "Cargo.toml",
            "pins",
            format!("`{EXACT_PIN}` is not pinned to one version"),
            "an update may change the bits of every activation; that is a decision, not an accident",
            "write `version = \"=X.Y.Z\"` in [workspace.dependencies]",
        ));
    }
    findings
}

/// `[lints] workspace = true`; the crate for FFI may have its own table if it keeps all the rest.
fn member(path: &str, manifest: &Value, lints: Option<&Table>) -> Option<Finding> {
    let own = manifest.get("lints");
    if own
        .and_then(|own| own.get("workspace"))
        .and_then(Value::as_bool)
        == Some(true)
    {
        return None;
    }
    let why = "one set of lints for the whole house";
    if path != format!("crates/{FFI_CRATE}/Cargo.toml") {
        let what = "the workspace's lints are not taken over".into();
        return Some(finding(
            path,
            "lints",
            what,
            why,
            "add `[lints]` with `workspace = true`",
        ));
    }
    let missing = missing_lints(own, lints?);
    let what = format!(
        "lints missing or weaker than the workspace's: {}",
        missing.join(", ")
    );
    let out = "copy the workspace's table; only `unsafe_code` may differ";
    (!missing.is_empty()).then(|| finding(path, "lints", what, why, out))
}

fn missing_lints(own: Option<&Value>, workspace: &Table) -> Vec<String> {
    let all = workspace.iter().flat_map(|(tool, lints)| {
        lints
            .as_table()
            .into_iter()
            .flatten()
            .map(move |(lint, level)| (tool, lint, level))
    });
    let kept = |tool: &str, lint: &str, level: &Value| {
        own.and_then(|own| own.get(tool)?.get(lint))
            .is_some_and(|own| own == level)
    };
    all.filter(|(tool, lint, level)| *lint != "unsafe_code" && !kept(tool, lint, level))
        .map(|(tool, lint, _)| format!("{tool}.{lint}"))
        .collect()
}

fn lock(lock: &Value) -> Vec<Finding> {
    let packages = lock
        .get("package")
        .and_then(Value::as_array)
        .map_or(&[][..], Vec::as_slice);
    let mut findings = Vec::new();
    if packages.is_empty() || packages.len() > LOCK_PACKAGES_MAX {
        let what = format!(
            "{} packages, allowed are 1 to {LOCK_PACKAGES_MAX}",
            packages.len()
        );
        let why = "every package is code that we ship, build and answer for";
        let out = "commit the lock file; drop a dependency, or its default features";
        findings.push(finding("Cargo.lock", "lock", what, why, out));
    }
    let text = |package: &Value, key: &str| package.get(key)?.as_str().map(str::to_owned);
    for package in packages {
        let Some(source) = text(package, "source").filter(|source| source != REGISTRY) else {
            continue;
        };
        let name = text(package, "name").unwrap_or_default();
        let what = format!("`{name}` comes from {source}");
        let why = "a branch can be rewritten or vanish; the registry keeps what it published";
        findings.push(finding(
            "Cargo.lock",
            "lock",
            what,
            why,
            "use a published version",
        ));
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::*;

    const ROOT: &str = "[workspace.lints.rust]\nunsafe_code = \"deny\"\nmissing_docs = \"warn\"\n\
        [workspace.dependencies]\nllama-cpp-sys-2 = { version = \"=1.2.3\" }\n";
    const TAKES_OVER: &str = "[lints]\nworkspace = true\n";
    const LOCK: &str = "[[package]]\nname = \"a\"\nversion = \"1.0.0\"\n";

    /// The tidy files with some of them replaced.
    #[track_caller]
    fn check(changed: &[(&str, &str)], expected: &[&str]) {
        let mut files = vec![
            ("Cargo.toml", ROOT),
            ("Cargo.lock", LOCK),
            ("crates/net/Cargo.toml", TAKES_OVER),
            ("crates/engine-host/Cargo.toml", TAKES_OVER),
        ];
        files.retain(|(path, _)| changed.iter().all(|(other, _)| other != path));
        files.extend(changed);
        let found = super::check(&Tree::of(&files));
        let found: Vec<String> = found
            .iter()
            .map(|f| format!("{} {}", f.file, f.what))
            .collect();
        super::super::tests::assert_strikes(&found, expected);
    }

    #[test]
    fn the_workspace_denies_unsafe_code_and_pins_the_engine() {
        check(&[], &[]);
        check(&[("Cargo.toml", &ROOT.replace("deny", "forbid"))], &[]);
        check(
            &[("Cargo.toml", &ROOT.replace("deny", "warn"))],
            &["Cargo.toml `unsafe_code` is warn"],
        );
        check(
            &[("Cargo.toml", &ROOT.replace('=', "= ").replace("\"= ", "\""))],
            &["Cargo.toml `llama-cpp-sys-2` is not pinned"],
        );
        check(
            &[("Cargo.toml", "")],
            &["Cargo.toml `unsafe_code` is not set", "Cargo.toml `llama"],
        );
    }

    #[test]
    fn every_crate_takes_the_lints_over() {
        let net = "crates/net/Cargo.toml";
        check(
            &[(net, "[package]\n")],
            &["crates/net/Cargo.toml the workspace's lints"],
        );
        check(
            &[(net, "[lints]\nworkspace = false\n")],
            &["crates/net/Cargo.toml the workspace's"],
        );
        check(
            &[("xtask/Cargo.toml", "")],
            &["xtask/Cargo.toml the workspace's lints"],
        );
        let host = "crates/engine-host/Cargo.toml";
        check(
            &[(
                host,
                "[lints.rust]\nunsafe_code = \"allow\"\nmissing_docs = \"warn\"\n",
            )],
            &[],
        );
        check(
            &[(host, "[lints.rust]\nunsafe_code = \"allow\"\n")],
            &[
                "crates/engine-host/Cargo.toml lints missing or weaker than the workspace's: rust.missing_docs",
            ],
        );
    }

    #[test]
    fn the_lock_file_has_a_budget_and_one_source() {
        check(&[("Cargo.lock", &LOCK.repeat(600))], &[]);
        check(
            &[("Cargo.lock", &LOCK.repeat(601))],
            &["Cargo.lock 601 packages"],
        );
        check(&[("Cargo.lock", "")], &["Cargo.lock 0 packages"]);
        check(
            &[("Cargo.lock", &format!("{LOCK}source = \"{REGISTRY}\"\n"))],
            &[],
        );
        check(
            &[(
                "Cargo.lock",
                &format!("{LOCK}source = \"git+https://example.org/a\"\n"),
            )],
            &["Cargo.lock `a` comes from git+https://example.org/a"],
        );
    }
}
