//! From Rust source to facts.
//!
//! Each file is parsed once with `syn`; a [`Visitor`] writes down what the rules ask about. Paths are
//! resolved through the file's own imports (`use std::fs as f; f::read` is `std::fs::read`), so a rule
//! names a full path and cannot be dodged by renaming.
//!
//! Every fact knows whether it is test code: below `#[test]` or `#[cfg(test)]`, in a module so gated,
//! or in a file of `tests/`, `benches/`, `examples/` or `fuzz/`.

use syn::visit::Visit;
use syn::{Attribute, Expr, Meta};

use super::Finding;
use super::tree::Tree;
use super::visitor::Visitor;

/// Something a rule may ask about. Paths are joined with `::`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Fact {
    /// A path named anywhere: call, type, import, macro argument.
    Path(String),
    /// `use path::*`.
    Glob(String),
    /// A method call.
    Method(String),
    /// A macro call, by its last segment.
    Macro(String),
    /// Unsafe code or FFI, and which kind.
    Unsafe(&'static str),
    /// A function and its span in lines, from signature to closing brace.
    Function { name: String, lines: usize },
    /// A named type, trait or module.
    Name { kind: &'static str, name: String },
    /// A task or thread whose handle is dropped on the spot.
    Detached(String),
}

/// A fact at a line.
#[derive(Debug, Clone)]
pub(crate) struct Sighting {
    pub(crate) line: usize,
    pub(crate) in_test: bool,
    pub(crate) fact: Fact,
}

/// One parsed file.
#[derive(Debug)]
pub(crate) struct Source {
    /// Path below the root, with forward slashes.
    pub(crate) path: String,
    /// Name of the crate's directory: `crates/NAME/…`, `xtask/…`, `fuzz/…`.
    pub(crate) krate: String,
    /// Lines of the file.
    pub(crate) lines: usize,
    /// Lines with text in the `//!` block that opens the file.
    pub(crate) story_lines: usize,
    pub(crate) sightings: Vec<Sighting>,
}

impl Source {
    /// A finding in this file.
    pub(crate) fn finding(&self, line: usize, rule: &'static str, what: String) -> Finding {
        let (why, out) = (String::new(), String::new());
        Finding {
            file: self.path.clone(),
            line,
            rule,
            what,
            why,
            out,
        }
    }

    /// What is not test code.
    pub(crate) fn product(&self) -> impl Iterator<Item = &Sighting> {
        self.sightings.iter().filter(|sighting| !sighting.in_test)
    }
}

/// Parses every Rust file of the tree. A file that does not parse is a finding.
pub(crate) fn sources(tree: &Tree) -> (Vec<Source>, Vec<Finding>) {
    let mut sources = Vec::new();
    let mut broken = Vec::new();
    let mut gated = Vec::new();
    for file in tree.files.iter().filter(|file| file.path.ends_with(".rs")) {
        match scan(&file.path, file.text.as_deref().unwrap_or_default()) {
            Ok((source, modules)) => {
                sources.push(source);
                gated.extend(modules);
            }
            Err(error) => broken.push(unparsed(&file.path, &error)),
        }
    }
    for source in &mut sources {
        if is_test_path(&source.path) || gated.iter().any(|base| is_module(&source.path, base)) {
            source
                .sightings
                .iter_mut()
                .for_each(|sighting| sighting.in_test = true);
        }
    }
    (sources, broken)
}

fn unparsed(path: &str, error: &syn::Error) -> Finding {
    Finding {
        file: path.to_owned(),
        line: error.span().start().line,
        rule: "parse",
        what: format!("the file does not parse: {error}"),
        why: "the other rules cannot see into it".into(),
        out: "let `cargo check` say what is wrong".into(),
    }
}

/// The source and the base paths of its modules that are only there for tests.
fn scan(path: &str, text: &str) -> syn::Result<(Source, Vec<String>)> {
    let file = syn::parse_file(text)?;
    let mut visitor = Visitor::default();
    visitor.visit_file(&file);
    let directory = module_directory(path);
    let gated = visitor
        .gated
        .iter()
        .map(|name| format!("{directory}/{name}"))
        .collect();
    let source = Source {
        path: path.to_owned(),
        krate: crate_of(path).to_owned(),
        lines: text.lines().count(),
        story_lines: story_lines(&file.attrs),
        sightings: visitor.finish(),
    };
    Ok((source, gated))
}

fn crate_of(path: &str) -> &str {
    let mut parts = path.split('/');
    match parts.next() {
        Some("crates") => parts.next().unwrap_or_default(),
        first => first.unwrap_or_default(),
    }
}

fn is_test_path(path: &str) -> bool {
    let mut above_src = path.split('/').take_while(|part| *part != "src");
    above_src.any(|part| matches!(part, "tests" | "benches" | "examples" | "fuzz"))
}

/// Where the children of the module in this file live.
fn module_directory(path: &str) -> String {
    let (directory, name) = path.rsplit_once('/').unwrap_or(("", path));
    match name {
        "lib.rs" | "main.rs" | "mod.rs" => directory.to_owned(),
        _ => path.trim_end_matches(".rs").to_owned(),
    }
}

fn is_module(path: &str, base: &str) -> bool {
    path.strip_prefix(base)
        .is_some_and(|rest| rest == ".rs" || rest.starts_with('/'))
}

fn story_lines(attrs: &[Attribute]) -> usize {
    let docs = attrs.iter().map_while(|attr| match &attr.meta {
        Meta::NameValue(pair) if pair.path.is_ident("doc") => Some(&pair.value),
        _ => None,
    });
    let text = docs.filter_map(|value| match value {
        Expr::Lit(syn::ExprLit {
            lit: syn::Lit::Str(text),
            ..
        }) => Some(text.value()),
        _ => None,
    });
    text.flat_map(|text| text.lines().map(str::to_owned).collect::<Vec<_>>())
        .filter(|line| !line.trim().is_empty())
        .count()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn facts(text: &str) -> Vec<(usize, bool, Fact)> {
        let (source, _) = scan("crates/net/src/lib.rs", text).unwrap();
        source
            .sightings
            .into_iter()
            .map(|s| (s.line, s.in_test, s.fact))
            .collect()
    }

    #[track_caller]
    fn check_path(text: &str, expected: &str) {
        let expected = Fact::Path(expected.into());
        let found = facts(text);
        assert!(
            found.iter().any(|(_, _, fact)| *fact == expected),
            "{text}: {found:?}"
        );
    }

    #[test]
    fn paths_are_resolved_through_imports() {
        check_path("fn f() { a::b(); }", "a::b");
        check_path("use x::a; fn f() { a::b(); }", "x::a::b");
        check_path("fn f() { use x::a as c; c::b(); }", "x::a::b");
        check_path(
            "use y as x; use x::{a::{self}}; fn f() -> a::B {}",
            "y::a::B",
        );
        check_path("use core::mem; fn f() { mem::swap(); }", "std::mem::swap");
        check_path("use a::b; use b::a; fn f() { a::c(); }", "a::b::a::b::a::c");
        check_path("use a; fn f() { a::c(); }", "a::c");
        check_path("fn f() { <x::Y>::g(); }", "x::Y");
    }

    #[test]
    fn an_import_of_the_tests_does_not_rename_the_product() {
        let text =
            "mod fs; fn f() { fs::g(); } #[cfg(test)] mod t { use std::fs; fn h() { fs::g(); } }";
        check_path(text, "fs::g");
        check_path(text, "std::fs::g");
    }

    #[test]
    fn a_gated_module_takes_its_file_along() {
        let files = [
            ("crates/net/src/hop.rs", "#[cfg(test)] mod tests; mod wire;"),
            ("crates/net/src/hop/tests.rs", "mod deep; fn f() {}"),
            ("crates/net/src/hop/tests/deep.rs", "fn f() {}"),
            ("crates/net/src/hop/wire.rs", "fn f() {}"),
            ("crates/net/tests/ring.rs", "fn f() {}"),
            ("fuzz/fuzz_targets/gguf.rs", "fn f() {}"),
        ];
        let (sources, broken) = sources(&Tree::of(&files));
        assert_eq!(broken, []);
        let is_test = |source: &Source| source.product().next().is_none();
        let product: Vec<_> = sources
            .iter()
            .filter(|s| !is_test(s))
            .map(|s| &s.path)
            .collect();
        // The first is product but for the declaration of its test module.
        assert_eq!(
            product,
            ["crates/net/src/hop.rs", "crates/net/src/hop/wire.rs"]
        );
    }

    #[test]
    fn a_file_that_does_not_parse_is_a_finding() {
        let (sources, broken) = sources(&Tree::of(&[("xtask/src/a.rs", "\nfn f( {}")]));
        assert!(sources.is_empty());
        assert_eq!((broken[0].rule, broken[0].line), ("parse", 2));
    }
}
