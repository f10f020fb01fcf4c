//! Compiles the shim (`shim/`), and with it the part of llama.cpp's `common` that knows chat templates and tool calls.
//!
//! `llama-cpp-sys-2` builds llama.cpp itself; its feature `common` would bring downloads, an HTTP client and argument parsing
//! along. The few functions of theirs that the chosen files use are in `shim/standins.cpp`.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The files of llama.cpp's `common`, and directories of which all are taken.
const COMMON: &[&str] = &[
    "chat.cpp",
    "chat-auto-parser-generator.cpp",
    "chat-auto-parser-helpers.cpp",
    "chat-diff-analyzer.cpp",
    "chat-peg-parser.cpp",
    "jinja",
    "json.cpp",
    "json-schema.cpp",
    "json-schema-to-grammar.cpp",
    "parsers",
    "peg-parser.cpp",
    "trie.cpp",
    "unicode.cpp",
];
const SHIM: &[&str] = &["chat.cpp", "grammar.cpp", "memory.cpp", "standins.cpp"];

fn main() {
    let said = "cargo:rerun-if-changed=build.rs\ncargo:rerun-if-changed=shim\n";
    let told = std::io::stdout().write_all(said.as_bytes());
    told.expect("cargo listens");
    let llama = sources();
    let common = llama.join("common");
    let theirs = COMMON.iter().flat_map(|name| files(&common.join(name)));
    let mut build = cc::Build::new();
    build
        .cpp(true)
        .std("c++17")
        .warnings(false)
        // Texts are short: nothing is gained by more, and it would take twice as long to compile.
        .opt_level(2)
        .debug(false)
        .include("shim")
        .include(&common)
        .files(theirs)
        .files(SHIM.iter().map(|name| Path::new("shim").join(name)));
    for part in ["include", "ggml/include", "src", "vendor"] {
        build.include(llama.join(part));
    }
    build.compile("myzel_shim");
}

/// A file, or all C++ files of a directory.
fn files(path: &Path) -> Vec<PathBuf> {
    if !path.is_dir() {
        return vec![path.to_owned()];
    }
    let entries = std::fs::read_dir(path).expect("a directory of llama.cpp's can be listed");
    let paths = entries.map(|entry| entry.expect("it can be listed to its end").path());
    let mut files: Vec<PathBuf> = paths
        .filter(|path| path.extension().is_some_and(|kind| kind == "cpp"))
        .collect();
    // The order in which they lie in the directory would be another one on each machine.
    files.sort();
    files
}

/// Where llama.cpp's sources are: beside the manifest of the very `llama-cpp-sys-2` that is linked, be it from a registry,
/// vendored or patched.
fn sources() -> PathBuf {
    // What was fetched suffices; only a build that fetched for less than the whole workspace needs the network once more.
    let metadata = metadata(&["--offline"])
        .or_else(|_| metadata(&[]))
        .unwrap_or_else(|why| panic!("cargo metadata: {why}"));
    let packages = metadata["packages"].as_array().into_iter().flatten();
    let manifests: Vec<&str> = packages
        .filter(|package| package["name"] == "llama-cpp-sys-2")
        .filter_map(|package| package["manifest_path"].as_str())
        .collect();
    let [manifest] = manifests.as_slice() else {
        panic!("one llama-cpp-sys-2 is needed, cargo metadata names {manifests:?}");
    };
    Path::new(manifest).with_file_name("llama.cpp")
}

fn metadata(more: &[&str]) -> Result<serde_json::Value, String> {
    let from = |name| std::env::var(name).expect("cargo sets it for build scripts");
    let output = Command::new(from("CARGO"))
        .args(["metadata", "--format-version=1", "--filter-platform"])
        .arg(from("TARGET"))
        .args(more)
        .current_dir(from("CARGO_MANIFEST_DIR"))
        .output()
        .map_err(|error| error.to_string())?;
    if !output.status.success() {
        return Err(String::from_utf8_lossy(&output.stderr).into_owned());
    }
    serde_json::from_slice(&output.stdout).map_err(|error| error.to_string())
}
