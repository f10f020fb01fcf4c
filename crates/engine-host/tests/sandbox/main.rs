//! What a sealed engine-host can no longer do, and what it still can: compute, and steer what it draws.
//!
//! A process is sealed for good, and must have one thread then; so this program starts itself for each probe, and
//! brings a harness of its own that knows as much of the usual one's command line as runners use.

#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a test may")]

mod hosts;
mod models;
#[cfg(target_os = "linux")]
mod probes;
#[cfg(target_os = "linux")]
mod refusals;
#[path = "../engine/support.rs"]
#[allow(dead_code, reason = "only stages are cut with it here")]
mod stages;
mod steer;
mod texts;

/// A test by its name.
type Test = (&'static str, fn());

fn main() {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = args.iter().map(String::as_str).collect();
    match words.as_slice() {
        ["engine-host", parent] => engine_host::run(parent.parse().unwrap()).unwrap(),
        #[cfg(target_os = "linux")]
        ["probe", mode, name, model, other] => probes::run(mode, name, model, other),
        _ => harness(&words),
    }
}

fn tests() -> Vec<Test> {
    let mut tests = [hosts::TESTS, steer::TESTS, texts::TESTS].concat();
    #[cfg(target_os = "linux")]
    tests.extend(refusals::TESTS);
    tests
}

fn harness(words: &[&str]) {
    let ignored = words.contains(&"--ignored");
    if words.contains(&"--list") {
        for (name, _) in tests().iter().filter(|_| !ignored) {
            println!("{name}: test");
        }
        return;
    }
    let named = words.iter().filter(|word| !word.starts_with('-'));
    let wanted: Vec<&str> = named.copied().collect();
    let exact = words.contains(&"--exact");
    let fits = |name: &str| {
        let hit = |word: &&str| match exact {
            true => name == *word,
            false => name.contains(word),
        };
        wanted.is_empty() || wanted.iter().any(hit)
    };
    for (name, test) in tests()
        .into_iter()
        .filter(|(name, _)| !ignored && fits(name))
    {
        println!("test {name} …");
        // A panic ends the program with an exit code that runners understand.
        test();
    }
}
