//! A banned name, its reason and its way out; and whether a fact breaks the ban.

use super::Finding;
use super::scan::{Fact, Sighting, Source};

/// What is banned.
#[derive(Debug, Clone, Copy)]
pub(crate) enum What {
    /// A full path and everything below it; `*::Name` is that last segment under any path.
    Path(&'static str),
    /// A method of any type.
    Method(&'static str),
    /// A macro.
    Macro(&'static str),
    /// A call whose handle is dropped on the spot.
    Detached(&'static str),
}

/// One row of a table of bans.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Ban {
    pub(crate) what: What,
    pub(crate) why: &'static str,
    pub(crate) out: &'static str,
}

/// The row that `sighting` breaks, as a finding of `rule`.
pub(crate) fn broken(
    source: &Source,
    sighting: &Sighting,
    rule: &'static str,
    bans: &[Ban],
) -> Option<Finding> {
    let (ban, what) = bans
        .iter()
        .find_map(|ban| Some((ban, strikes(ban.what, &sighting.fact)?)))?;
    let finding = source.finding(sighting.line, rule, what);
    Some(Finding {
        why: ban.why.into(),
        out: ban.out.into(),
        ..finding
    })
}

/// How the fact reads, if it is what the ban means.
fn strikes(what: What, fact: &Fact) -> Option<String> {
    match (what, fact) {
        (What::Path(banned), Fact::Path(path)) if is_below(path, banned) => {
            Some(format!("`{path}`"))
        }
        (What::Path(banned), Fact::Glob(path))
            if is_below(banned, path) || is_below(path, banned) =>
        {
            Some(format!("`use {path}::*`, which brings in `{banned}`"))
        }
        (What::Method(banned), Fact::Method(name)) if name == banned => {
            Some(format!("`.{name}()`"))
        }
        (What::Macro(banned), Fact::Macro(name)) if name == banned => Some(format!("`{name}!`")),
        (What::Detached(banned), Fact::Detached(path)) if path == banned => {
            Some(format!("`{path}` with its handle dropped"))
        }
        _ => None,
    }
}

fn is_below(path: &str, banned: &str) -> bool {
    if let Some(name) = banned.strip_prefix("*::") {
        return path.rsplit("::").next() == Some(name);
    }
    // A crate's name alone may be a variable; it counts as the start of a longer path.
    let may_end = banned.contains("::");
    path.strip_prefix(banned)
        .is_some_and(|rest| (may_end && rest.is_empty()) || rest.starts_with("::"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_ban_covers_what_is_below_and_nothing_beside() {
        let cases = [
            ("std::fs", "std::fs", true),
            ("std::fs::read", "std::fs", true),
            ("std::fsx", "std::fs", false),
            ("crate::std::fs", "std::fs", false),
            ("std", "std::fs", false),
            ("rand_core::OsRng", "*::OsRng", true),
            ("OsRng", "*::OsRng", true),
            ("getrandom::fill", "getrandom", true),
            ("getrandom", "getrandom", false),
            ("OsRng::new", "*::OsRng", false),
        ];
        for (path, banned, expected) in cases {
            assert_eq!(is_below(path, banned), expected, "{path} {banned}");
        }
    }
}
