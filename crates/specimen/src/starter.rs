//! The real model that tests run: the starter of the catalogue, fetched once for all tests.

use std::path::PathBuf;

/// BLAKE3 of the starter's file, as the catalogue has it.
pub const STARTER_BLAKE3: &str = "5f4fa13bfc6dd4a91fd00e22974a9c4e9ed628fd7d7f307398ddf30260d6b2c3";

/// The directory of llama.cpp's chat templates, with the build of llama.cpp that they belong to.
const TEMPLATES: &str = "templates-11434.0.0";

/// The home of test nodes, to be their `XDG_DATA_HOME`: models in it are shared by all of them, read only.
///
/// `MYZEL_TEST_HOME`, or `myzel/test-home` in the user's cache directory.
///
/// # Panics
///
/// When neither that variable nor `XDG_CACHE_HOME` nor `HOME` is set.
#[must_use]
pub fn test_home() -> PathBuf {
    let of = |name: &str| {
        std::env::var_os(name)
            .filter(|v| !v.is_empty())
            .map(PathBuf::from)
    };
    of("MYZEL_TEST_HOME")
        .or_else(|| of("XDG_CACHE_HOME").map(|cache| cache.join("myzel/test-home")))
        .or_else(|| of("HOME").map(|home| home.join(".cache/myzel/test-home")))
        .expect("MYZEL_TEST_HOME, XDG_CACHE_HOME or HOME says where tests keep their model")
}

/// The directory of the crate whose test runs.
///
/// Asked for at run time: build products may be shared between clones, and what the compiler saw would be another's.
///
/// # Panics
///
/// When neither cargo nor nextest runs the test.
#[must_use]
pub fn crate_dir() -> PathBuf {
    let dir = std::env::var_os("CARGO_MANIFEST_DIR");
    dir.expect("cargo and nextest tell a test where its crate is")
        .into()
}

/// The directory of chat templates that llama.cpp ships, which `./test` fetches: `MYZEL_TEST_TEMPLATES`, or beside the
/// [`test_home`].
///
/// # Panics
///
/// When they were not fetched; the message says how to.
#[must_use]
pub fn chat_templates() -> PathBuf {
    let named = std::env::var_os("MYZEL_TEST_TEMPLATES").filter(|dir| !dir.is_empty());
    let dir = named.map_or_else(|| test_home().with_file_name(TEMPLATES), PathBuf::from);
    assert!(
        dir.is_dir(),
        "llama.cpp's chat templates are not in {}; ./test fetches them",
        dir.display()
    );
    dir
}

/// The starter's GGUF file.
///
/// # Panics
///
/// When it was not fetched; the message says how to.
#[must_use]
pub fn starter() -> PathBuf {
    let home = test_home();
    let path = home
        .join("myzel/models")
        .join(format!("{STARTER_BLAKE3}.gguf"));
    assert!(
        path.is_file(),
        "the starter model is not in {0}; ./test fetches it, or: \
         XDG_DATA_HOME={0} myzel model pull smollm2-135m-instruct",
        home.display()
    );
    path
}
