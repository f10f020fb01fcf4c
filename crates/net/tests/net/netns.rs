//! A network of its own for a test: some addresses on an interface that leads nowhere, and a firewall.

use nix::sched::{CloneFlags, unshare};
use std::process::Command;

/// The address of machine `n`, from 1 to 9.
pub(crate) fn ip(n: u8) -> String {
    format!("10.77.0.{n}")
}

/// Runs a test in a network namespace that has loopback and the addresses of nine machines, and ends with it.
///
/// # Panics
///
/// When this is not root, since these tests are not skipped; and as the test does.
pub(crate) fn alone<F: Future<Output = ()>>(test: impl FnOnce() -> F + Send + 'static) {
    assert!(
        nix::unistd::geteuid().is_root(),
        "this test makes a network namespace and needs root; run it as root: sudo -E ./test"
    );
    let run = move || {
        // Only this thread and those that it starts are in there.
        unshare(CloneFlags::CLONE_NEWNET).expect("root may");
        tool("ip link set lo up");
        tool("ip link add eth0 type veth peer name end");
        tool("ip link set end up");
        tool("ip link set eth0 up");
        (1..=9).for_each(|n| tool(&format!("ip addr add {}/24 dev eth0", ip(n))));
        tool("nft add table inet test");
        tool("nft add chain inet test out { type filter hook output priority 0 ; }");
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        runtime.block_on(test());
    };
    if let Err(panic) = std::thread::spawn(run).join() {
        std::panic::resume_unwind(panic);
    }
}

/// From now on nothing passes between two machines.
pub(crate) fn cut(a: u8, b: u8) {
    for (from, to) in [(a, b), (b, a)] {
        let (from, to) = (ip(from), ip(to));
        drop_all(&format!("ip saddr {from} ip daddr {to}"));
    }
}

/// From now on nothing of TCP reaches a machine or comes from it.
pub(crate) fn cut_tcp(n: u8) {
    drop_all(&format!("ip daddr {} meta l4proto tcp", ip(n)));
}

fn drop_all(what: &str) {
    tool(&format!("nft add rule inet test out {what} counter drop"));
}

/// Packets that were dropped.
pub(crate) fn dropped() -> u64 {
    let rules = output("nft list chain inet test out");
    let counts = rules.split("counter packets ").skip(1);
    counts
        .map(|rest| rest.split(' ').next().unwrap().parse::<u64>().unwrap())
        .sum()
}

fn tool(words: &str) {
    output(words);
}

fn output(words: &str) -> String {
    let (program, args) = words.split_once(' ').unwrap();
    let output = Command::new(program).args(args.split(' ')).output();
    let output = output.unwrap_or_else(|error| panic!("{program}: {error}"));
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{words}: {said}");
    String::from_utf8(output.stdout).unwrap()
}
