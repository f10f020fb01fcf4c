//! Words and minds compute; they touch nothing.
//!
//! *Invariant:* the same mind runs in the node and in a simulator that repeats a run from its seed. So
//! time and randomness are arguments, and sockets, files, threads and processes belong to the hands.
//! Types such as `std::net::SocketAddr` or `std::time::Duration` are data and are welcome.

use super::Finding;
use super::bans::{self, Ban, What};
use super::layers::{Layer, place};
use super::scan::Source;

const RULE: &str = "purity";

const SOCKET: &str = "a mind does no input or output; the hands do, and report it as an event";
const FILE: &str = "a mind does no input or output, so that it runs the same in the simulator";
const CLOCK: &str = "time is an argument, so that a run can be repeated from its seed";
const CHANCE: &str = "randomness is an argument, so that a run can be repeated from its seed";
const THREAD: &str = "a mind is a machine called by its owner; it owns no task or thread";
const WORLD: &str =
    "what the outside world says is an argument, so that the function is its whole story";
const ORDER: &str = "its order differs from run to run, and what a mind emits follows that order";

const TO_HANDS: &str = "emit an effect and let a crate of the hands carry it out";
const TAKE_NOW: &str = "add a parameter `now` (a proto type or milliseconds as a number)";
const TAKE_SEED: &str = "take bytes, a seed or `&mut impl Rng` as a parameter";
const TAKE_VALUE: &str = "take the value as a parameter";

/// For words and minds.
const PURE: [Ban; 22] = [
    path("std::net::TcpListener", SOCKET, TO_HANDS),
    path("std::net::TcpStream", SOCKET, TO_HANDS),
    path("std::net::UdpSocket", SOCKET, TO_HANDS),
    path(
        "std::net::ToSocketAddrs",
        SOCKET,
        "take a `SocketAddr`; names are resolved by the hands",
    ),
    path(
        "std::fs",
        FILE,
        "take bytes or `impl Read`; the store opens files",
    ),
    path("std::io::stdin", FILE, TO_HANDS),
    path("std::io::stdout", FILE, TO_HANDS),
    path("std::io::stderr", FILE, TO_HANDS),
    path("std::os", FILE, TO_HANDS),
    path("std::thread", THREAD, TO_HANDS),
    path("std::process", WORLD, TO_HANDS),
    path("std::env", WORLD, TAKE_VALUE),
    path("std::time::Instant", CLOCK, TAKE_NOW),
    path("std::time::SystemTime", CLOCK, TAKE_NOW),
    path("std::time::UNIX_EPOCH", CLOCK, TAKE_NOW),
    path("getrandom", CHANCE, TAKE_SEED),
    path("rand::rng", CHANCE, TAKE_SEED),
    path("rand::random", CHANCE, TAKE_SEED),
    path("*::ThreadRng", CHANCE, TAKE_SEED),
    path("*::OsRng", CHANCE, TAKE_SEED),
    path("*::SysRng", CHANCE, TAKE_SEED),
    path("*::thread_rng", CHANCE, TAKE_SEED),
];

/// For minds on top: iteration order is a hidden random number.
const ORDERED: [Ban; 3] = [
    path("std::collections::HashMap", ORDER, "use `BTreeMap`"),
    path("std::collections::HashSet", ORDER, "use `BTreeSet`"),
    path("std::hash::RandomState", ORDER, "use an ordered collection"),
];

const fn path(path: &'static str, why: &'static str, out: &'static str) -> Ban {
    Ban {
        what: What::Path(path),
        why,
        out,
    }
}

/// Findings of one file; none outside words and minds.
pub(crate) fn check(source: &Source) -> Vec<Finding> {
    let bans: Vec<Ban> = match place(&source.krate).map(|place| place.layer) {
        Some(Layer::Words) => PURE.to_vec(),
        Some(Layer::Minds) => PURE.iter().chain(&ORDERED).copied().collect(),
        _ => return Vec::new(),
    };
    source
        .product()
        .filter_map(|sighting| bans::broken(source, sighting, RULE, &bans))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::super::tests::{assert_strikes, strikes};

    const MIND: &str = "crates/swarm/src/lib.rs";
    const WORD: &str = "crates/proto/src/lib.rs";

    #[track_caller]
    fn check(path: &str, text: &str, expected: &[&str]) {
        assert_strikes(&strikes(super::check, path, text), expected);
    }

    #[test]
    fn what_touches_the_world_is_found() {
        check(
            WORD,
            "use std::net::TcpStream;",
            &["1 `std::net::TcpStream`"],
        );
        check(
            WORD,
            "use std::{net::{self}, fmt};\nfn f() { net::UdpSocket::bind(0); }",
            &["2 `std::net::UdpSocket::bind`"],
        );
        check(
            WORD,
            "use std::fs as f;\nfn g() { f::read(\"x\"); }",
            &["1 `std::fs`", "2 `std::fs::read`"],
        );
        check(
            MIND,
            "fn f() { let _ = ::std::time::Instant::now(); }",
            &["1 `std::time::Instant::now`"],
        );
        check(
            MIND,
            "use std as s;\ntype T = s::time::SystemTime;",
            &["2 `std::time::SystemTime`"],
        );
        check(
            MIND,
            "use std::time::*;",
            &["1 `use std::time::*`, which brings in `std::time::Instant`"],
        );
        check(
            MIND,
            "fn f() { assert!(std::env::var(\"x\").is_ok()); }",
            &["1 `std::env::var`"],
        );
        check(
            MIND,
            "fn f() { std::thread::yield_now(); std::process::abort(); }",
            &["1 `std::thread::yield_now`", "1 `std::process::abort`"],
        );
        check(MIND, "use rand_core::OsRng;", &["1 `rand_core::OsRng`"]);
        check(
            MIND,
            "fn f() -> u8 { rand::random() }",
            &["1 `rand::random`"],
        );
        check(
            MIND,
            "fn f() { getrandom::fill(&mut b); }",
            &["1 `getrandom::fill`"],
        );
        check(MIND, "fn f(getrandom: u8) -> u8 { getrandom }", &[]);
    }

    #[test]
    fn minds_keep_an_order_and_words_need_not() {
        check(
            MIND,
            "use std::collections::HashMap;",
            &["1 `std::collections::HashMap`"],
        );
        check(WORD, "use std::collections::HashMap;", &[]);
        check(MIND, "use std::collections::BTreeMap;", &[]);
    }

    #[test]
    fn data_types_tests_and_hands_are_free() {
        check(
            WORD,
            "use std::net::{IpAddr, SocketAddr};\nuse std::time::Duration;",
            &[],
        );
        check(
            MIND,
            "mod fs; fn f() { fs::read(); self::time::Instant::now(); }",
            &[],
        );
        check(
            MIND,
            "#[cfg(test)] mod tests { use std::fs; #[test] fn t() { fs::read(0); } }",
            &[],
        );
        check(MIND, "#[cfg(all(test, unix))] use std::fs;", &[]);
        check(MIND, "#[cfg(not(test))] use std::fs;", &["1 `std::fs`"]);
        check("crates/swarm/tests/t.rs", "use std::fs;", &[]);
        check(
            "crates/swarm/src/tests/t.rs",
            "use std::fs;",
            &["1 `std::fs`"],
        );
        check("crates/store/src/lib.rs", "use std::fs;", &[]);
    }
}
