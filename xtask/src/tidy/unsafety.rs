//! `unsafe` and FFI live in one crate.
//!
//! *Invariant:* a native fault can only come from `engine-host`, which runs as its own process. Tests
//! count too: a crate with unsafe tests has an unsafe story.

use super::Finding;
use super::scan::{Fact, Source};

/// The one crate that may.
pub(crate) const FFI_CRATE: &str = "engine-host";

/// Findings of one file.
pub(crate) fn check(source: &Source) -> Vec<Finding> {
    if source.krate == FFI_CRATE {
        return Vec::new();
    }
    let found = source
        .sightings
        .iter()
        .filter_map(|sighting| match sighting.fact {
            Fact::Unsafe(kind) => Some(source.finding(sighting.line, "unsafe", kind.to_owned())),
            _ => None,
        });
    let explained = found.map(|finding| Finding {
        why: format!("only `{FFI_CRATE}` may fault natively: it is a process of its own"),
        out: format!("use a safe crate (`nix` for system calls) or move it to `{FFI_CRATE}`"),
        ..finding
    });
    explained.collect()
}

#[cfg(test)]
mod tests {
    use super::super::tests::{assert_strikes, strikes};

    #[track_caller]
    fn check(path: &str, text: &str, expected: &[&str]) {
        assert_strikes(&strikes(super::check, path, text), expected);
    }

    #[test]
    fn every_form_is_found_outside_the_host() {
        let path = "crates/net/src/lib.rs";
        check(path, "fn f() { unsafe { g() } }", &["1 unsafe block"]);
        check(path, "unsafe fn f() {}", &["1 unsafe fn"]);
        check(path, "unsafe impl Send for A {}", &["1 unsafe impl"]);
        check(path, "unsafe trait T {}", &["1 unsafe trait"]);
        check(path, "unsafe extern \"C\" { fn f(); }", &["1 extern block"]);
        check(path, "extern \"C\" fn f() {}", &["1 extern fn"]);
        check(
            path,
            "#[unsafe(no_mangle)] fn f() {}",
            &["1 unsafe attribute"],
        );
        check(path, "#[no_mangle] fn f() {}", &["1 linker attribute"]);
        check(
            path,
            "#![allow(dead_code, unsafe_code)]",
            &["1 lifted lint `unsafe_code`"],
        );
        check(
            path,
            "fn f() { assert!(unsafe { g() }); }",
            &["1 unsafe code in a macro"],
        );
        check(
            path,
            "#[cfg(test)] mod t { unsafe fn f() {} }",
            &["1 unsafe fn"],
        );
        check(path, "#![deny(unsafe_code)]", &[]);
        check("crates/engine-host/src/lib.rs", "unsafe fn f() {}", &[]);
    }
}
