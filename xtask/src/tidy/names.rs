//! Names say what a thing is. `Manager`, `Helper` and `Util` say that nobody knew.

use super::Finding;
use super::scan::{Fact, Source};

const EMPTY_WORDS: [&str; 8] = [
    "manager",
    "managers",
    "helper",
    "helpers",
    "util",
    "utils",
    "utility",
    "utilities",
];

/// Findings of one file: its own name, and the types, traits and modules it declares.
pub(crate) fn check(source: &Source) -> Vec<Finding> {
    let declared = source
        .sightings
        .iter()
        .filter_map(|sighting| match &sighting.fact {
            Fact::Name { kind, name } => Some((sighting.line, *kind, name.as_str())),
            _ => None,
        });
    let parts = source.path.trim_end_matches(".rs").split('/');
    let own = parts.map(|part| (0, "file", part));
    let empty = declared.chain(own).filter_map(|(line, kind, name)| {
        let word = empty_word(name)?;
        Some(source.finding(line, "names", format!("{kind} `{name}` is called a {word}")))
    });
    let explained = empty.map(|finding| Finding {
        why: "the word fits anything, so it tells nothing and the thing grows without bound".into(),
        out:
            "say what it does or holds: a noun of the domain (`Supervisor`, `Journal`, `Catalogue`)"
                .into(),
        ..finding
    });
    explained.collect()
}

fn empty_word(name: &str) -> Option<String> {
    words(name)
        .into_iter()
        .find(|word| EMPTY_WORDS.contains(&word.as_str()))
}

/// The words of a `CamelCase`, `snake_case` or `kebab-case` name, in lower case.
fn words(name: &str) -> Vec<String> {
    let mut words = vec![String::new()];
    for letter in name.chars() {
        if letter.is_uppercase() || matches!(letter, '_' | '-' | '.') {
            words.push(String::new());
        }
        if letter.is_alphanumeric() {
            let last = words.last_mut().expect("one word is there from the start");
            last.extend(letter.to_lowercase());
        }
    }
    words
}

#[cfg(test)]
mod tests {
    use super::super::tests::{assert_strikes, strikes};

    #[track_caller]
    fn check(path: &str, text: &str, expected: &[&str]) {
        assert_strikes(&strikes(super::check, path, text), expected);
    }

    #[test]
    fn empty_words_are_found_in_types_modules_and_files() {
        let path = "crates/net/src/hop.rs";
        check(
            path,
            "struct PeerManager;",
            &["1 struct `PeerManager` is called a manager"],
        );
        check(path, "enum Helper {}", &["1 enum `Helper`"]);
        check(path, "trait UtilExt {}", &["1 trait `UtilExt`"]);
        check(path, "type Managers = u8;", &["1 type `Managers`"]);
        check(path, "mod string_utils {}", &["1 module `string_utils`"]);
        check(
            "crates/net/src/utils.rs",
            "",
            &["0 file `utils` is called a utils"],
        );
        check("crates/net/src/helper/a.rs", "", &["0 file `helper`"]);
        check(
            path,
            "struct Utilization; struct Manage; mod helpfully {} fn helper() {}",
            &[],
        );
    }
}
