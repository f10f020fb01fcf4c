//! The official `openai` client for Python, against one node and against a ring.

use crate::support::node::{Node, Setup};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// The client's version on PyPI.
const VERSION: &str = "3.51.0";
/// What the client does, and what it must see; below the crate.
const SCRIPT: &str = "tests/e2e/openai_client.py";

fn cache() -> PathBuf {
    let of = |name: &str| {
        std::env::var_os(name)
            .filter(|v| !v.is_empty())
            .map(PathBuf::from)
    };
    let base = of("XDG_CACHE_HOME").or_else(|| of("HOME").map(|home| home.join(".cache")));
    base.expect("XDG_CACHE_HOME or HOME is set").join("myzel")
}

fn run(command: &mut Command) -> Output {
    command
        .output()
        .unwrap_or_else(|error| panic!("{command:?}: {error}"))
}

/// A Python with the client, made once and used again.
fn python() -> PathBuf {
    let home = cache().join(format!("venv-openai-{VERSION}"));
    let python = home.join("bin/python");
    let import = format!("import openai; assert openai.__version__ == {VERSION:?}");
    let works = |python: &Path| {
        let tried = Command::new(python).args(["-c", &import]).output();
        tried.is_ok_and(|output| output.status.success())
    };
    if works(&python) {
        return python;
    }
    let made = run(Command::new("python3")
        .args(["-m", "venv", "--clear"])
        .arg(&home));
    assert!(
        made.status.success(),
        "python3-venv is needed: {}",
        String::from_utf8_lossy(&made.stderr)
    );
    let package = format!("openai=={VERSION}");
    let mut pip = Command::new(&python);
    pip.args([
        "-m",
        "pip",
        "install",
        "--quiet",
        "--disable-pip-version-check",
        &package,
    ]);
    let installed = run(&mut pip);
    let said = String::from_utf8_lossy(&installed.stderr).into_owned();
    assert!(
        installed.status.success() && works(&python),
        "{package} cannot be installed: {said}"
    );
    python
}

async fn satisfied(node: &Node) {
    let (url, model) = (node.url.clone(), node.status().model.name);
    let python = python();
    let output = tokio::task::spawn_blocking(move || {
        let mut client = Command::new(python);
        client
            .arg(specimen::crate_dir().join(SCRIPT))
            .args([url, model])
            .env_remove("OPENAI_API_KEY")
            .env("NO_PROXY", "*");
        run(&mut client)
    });
    let output = output.await.unwrap();
    let (out, err) = (
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr),
    );
    assert!(
        output.status.success(),
        "the client is not satisfied:\n{out}\n{err}"
    );
    assert_eq!(out.trim(), "all of it");
}

#[tokio::test]
async fn the_official_client_is_satisfied_with_one_node() {
    let node = Setup::new("solo").arg("--context", "512").up().await;
    satisfied(&node).await;
}

#[tokio::test]
async fn the_official_client_is_satisfied_with_a_ring() {
    let a = Setup::new("a").arg("--context", "512").split(1).up().await;
    let _b = Setup::new("b").join(&a).up().await;
    a.ring_up().await;
    satisfied(&a).await;
}
