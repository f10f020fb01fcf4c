//! Calls that are banned in what is shipped, each with its reason.
//!
//! Test code is free of these rules: it may unwrap, print and sleep.

use super::Finding;
use super::bans::{self, Ban, What};
use super::layers::{Layer, place};
use super::scan::Source;

const RULE: &str = "calls";

/// Crates whose code runs on tokio's threads.
const ASYNC_CRATES: [&str; 5] = ["net", "store", "engine", "api", "node"];
/// Crates that speak to a person at a terminal.
const SPEAKING_CRATES: [&str; 2] = ["node", "xtask"];

const QUEUE: &str = "every queue has a named limit; without one a slow reader eats the memory";
const LEAK: &str = "what is never freed grows with every session, and no destructor runs";
const UNFINISHED: &str = "what is on the main branch works, or is not there";
const PRINTS: &str = "a library does not own the terminal; its lines would land in somebody's JSON";
const DETACHED: &str = "every task is tracked and cancelled, else shutdown leaves it behind";
const EXIT: &str = "no destructor runs: children, locks and half-written files stay behind";

const BOUND: &str = "use a bounded channel; its capacity is a named constant";
const OWN: &str = "give it an owner: a field, an `Arc`, or a `'static` constant";
const TRACK: &str = "keep the handle in a `JoinSet` or `TaskTracker`, or await it";

/// For every shipped crate.
const EVERYWHERE: [Ban; 18] = [
    ban(
        What::Method("unwrap"),
        "a panic without a cause takes the process down",
        "return an error, or `expect(\"the invariant that holds\")`",
    ),
    ban(
        What::Method("unwrap_err"),
        "a panic without a cause takes the process down",
        "match on the result",
    ),
    ban(
        What::Macro("todo"),
        UNFINISHED,
        "finish it or leave the feature out",
    ),
    ban(
        What::Macro("unimplemented"),
        UNFINISHED,
        "finish it or return an error that says so",
    ),
    ban(
        What::Macro("dbg"),
        "it prints to somebody's terminal",
        "use `tracing::debug!`",
    ),
    ban(
        What::Path("tokio::sync::mpsc::unbounded_channel"),
        QUEUE,
        BOUND,
    ),
    ban(
        What::Path("std::sync::mpsc::channel"),
        QUEUE,
        "use `std::sync::mpsc::sync_channel`",
    ),
    ban(
        What::Path("futures::channel::mpsc::unbounded"),
        QUEUE,
        BOUND,
    ),
    ban(What::Path("Box::leak"), LEAK, OWN),
    ban(What::Path("std::boxed::Box::leak"), LEAK, OWN),
    ban(What::Method("leak"), LEAK, OWN),
    ban(
        What::Path("std::mem::forget"),
        LEAK,
        "use `ManuallyDrop` where FFI takes over, and say who frees",
    ),
    ban(
        What::Path("std::env::set_var"),
        "other threads read the environment at the same time",
        "pass the value as an argument, or set it on the child's `Command`",
    ),
    ban(
        What::Path("std::env::remove_var"),
        "other threads read the environment at the same time",
        "clear it on the child's `Command`",
    ),
    ban(What::Detached("tokio::spawn"), DETACHED, TRACK),
    ban(What::Detached("tokio::task::spawn"), DETACHED, TRACK),
    ban(
        What::Detached("tokio::task::spawn_blocking"),
        DETACHED,
        TRACK,
    ),
    ban(
        What::Detached("std::thread::spawn"),
        DETACHED,
        "keep the handle and join it",
    ),
];

/// Only a binary's `main.rs` may end the process.
const NOT_IN_MAIN: Ban = ban(
    What::Path("std::process::exit"),
    EXIT,
    "return an `ExitCode` or an error up to `main`",
);

/// Only a process that holds nothing but a model may fall where it stands.
const NOT_BESIDE_OTHERS: Ban = ban(
    What::Path("std::process::abort"),
    EXIT,
    "return an error up to `main`",
);

/// Sleeping a runtime thread stops every task that waits on it.
const NOT_IN_ASYNC: Ban = ban(
    What::Path("std::thread::sleep"),
    "it stops a runtime thread and every task that waits for it",
    "use `tokio::time::sleep`",
);

/// For crates that do not own the terminal.
const NOT_IN_LIBRARIES: [Ban; 4] = [
    ban(What::Macro("println"), PRINTS, "use `tracing`"),
    ban(What::Macro("print"), PRINTS, "use `tracing`"),
    ban(What::Macro("eprintln"), PRINTS, "use `tracing`"),
    ban(What::Macro("eprint"), PRINTS, "use `tracing`"),
];

const fn ban(what: What, why: &'static str, out: &'static str) -> Ban {
    Ban { what, why, out }
}

/// Findings of one file; none in crates of the workshop other than this one.
pub(crate) fn check(source: &Source) -> Vec<Finding> {
    let is_workshop = place(&source.krate).is_some_and(|place| place.layer == Layer::Workshop);
    if is_workshop && source.krate != "xtask" {
        return Vec::new();
    }
    let mut bans = EVERYWHERE.to_vec();
    if !source.path.ends_with("/main.rs") {
        bans.push(NOT_IN_MAIN);
    }
    if source.krate != "engine-host" {
        bans.push(NOT_BESIDE_OTHERS);
    }
    if ASYNC_CRATES.contains(&source.krate.as_str()) {
        bans.push(NOT_IN_ASYNC);
    }
    // Build scripts speak to cargo by printing.
    if !SPEAKING_CRATES.contains(&source.krate.as_str()) && !source.path.ends_with("/build.rs") {
        bans.extend(NOT_IN_LIBRARIES);
    }
    source
        .product()
        .filter_map(|sighting| bans::broken(source, sighting, RULE, &bans))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::super::tests::{assert_strikes, strikes};

    #[track_caller]
    fn check(path: &str, text: &str, expected: &[&str]) {
        assert_strikes(&strikes(super::check, path, text), expected);
    }

    #[test]
    fn each_ban_strikes() {
        let path = "crates/net/src/a.rs";
        check(path, "fn f() { x.unwrap(); }", &["1 `.unwrap()`"]);
        check(path, "fn f() { info!(x.unwrap()); }", &["1 `.unwrap()`"]);
        check(path, "fn f() { x.unwrap_err(); }", &["1 `.unwrap_err()`"]);
        check(path, "fn f() { todo!() }", &["1 `todo!`"]);
        check(path, "fn f() { unimplemented!() }", &["1 `unimplemented!`"]);
        check(path, "fn f() { std::dbg!(x); }", &["1 `dbg!`"]);
        check(
            path,
            "fn f() { println!(); print!(); eprintln!(); eprint!(); }",
            &["1 `println!`", "1 `print!`", "1 `eprintln!`", "1 `eprint!`"],
        );
        check(
            path,
            "use tokio::sync::mpsc;\nfn f() { mpsc::unbounded_channel(); }",
            &["2 `tokio::sync::mpsc::unbounded_channel`"],
        );
        check(
            path,
            "use std::sync::mpsc::{self};\nfn f() { mpsc::channel(); }",
            &["2 `std::sync::mpsc::channel`"],
        );
        check(
            path,
            "fn f() { futures::channel::mpsc::unbounded(); }",
            &["1 `futures::"],
        );
        check(path, "fn f() { Box::leak(b); }", &["1 `Box::leak`"]);
        check(
            path,
            "fn f() { std::boxed::Box::leak(b); }",
            &["1 `std::boxed::Box::leak`"],
        );
        check(path, "fn f() { s.leak(); }", &["1 `.leak()`"]);
        check(
            path,
            "use core::mem;\nfn f() { mem::forget(b); }",
            &["2 `std::mem::forget`"],
        );
        check(
            path,
            "fn f() { std::process::abort(); }",
            &["1 `std::process::abort`"],
        );
        check(
            path,
            "fn f() { std::env::set_var(a, b); }",
            &["1 `std::env::set_var`"],
        );
        check(
            path,
            "fn f() { std::env::remove_var(a); }",
            &["1 `std::env::remove_var`"],
        );
    }

    #[test]
    fn a_task_needs_an_owner() {
        let path = "crates/net/src/a.rs";
        check(
            path,
            "fn f() { tokio::spawn(g()); }",
            &["1 `tokio::spawn` with its handle dropped"],
        );
        check(
            path,
            "fn f() { let _ = tokio::task::spawn(g()); }",
            &["1 `tokio::task::spawn`"],
        );
        check(
            path,
            "use tokio::task;\nfn f() { task::spawn_blocking(g); }",
            &["2 `tokio::task::spawn_bl"],
        );
        check(
            path,
            "use std::thread;\nfn f() { thread::spawn(g); }",
            &["2 `std::thread::spawn`"],
        );
        check(
            path,
            "fn f() -> H { let h = tokio::spawn(g()); tokio::spawn(g()) }",
            &[],
        );
        check(path, "fn f() { tasks.spawn(g()); }", &[]);
    }

    #[test]
    fn some_bans_depend_on_the_crate() {
        let exit = "fn main() { std::process::exit(1); }";
        check("crates/node/src/main.rs", exit, &[]);
        check("crates/node/src/cli.rs", exit, &["1 `std::process::exit`"]);
        let sleep = "fn f() { std::thread::sleep(d); }";
        check("crates/engine-host/src/a.rs", sleep, &[]);
        check("crates/engine/src/a.rs", sleep, &["1 `std::thread::sleep`"]);
        check("crates/node/src/cli.rs", "fn f() { println!(); }", &[]);
        check("crates/store/build.rs", "fn f() { println!(); }", &[]);
        let abort = "fn f() { std::process::abort(); }";
        check("crates/engine-host/src/a.rs", abort, &[]);
    }

    #[test]
    fn tests_and_the_workshop_are_free() {
        check(
            "crates/net/src/a.rs",
            "#[tokio::test] async fn t() { x.unwrap(); }",
            &[],
        );
        check(
            "crates/net/tests/a.rs",
            "fn f() { x.unwrap(); println!(); }",
            &[],
        );
        check("crates/specimen/src/lib.rs", "fn f() { x.unwrap(); }", &[]);
        check(
            "xtask/src/a.rs",
            "fn f() { x.unwrap(); }",
            &["1 `.unwrap()`"],
        );
    }
}
