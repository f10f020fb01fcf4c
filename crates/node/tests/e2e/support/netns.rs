//! Machines of their own, as far as the network can tell: namespaces around a switch, with no way out.

use std::process::Command;

/// The folder where iproute2 keeps its namespaces.
const FOLDER: &str = "/run/netns";

/// Namespaces that hang on one switch; gone when dropped. Addresses are `10.77.0.1`, `10.77.0.2` …
pub(crate) struct Machines {
    names: Vec<String>,
    switch: String,
}

impl Machines {
    /// `count` machines.
    ///
    /// # Panics
    ///
    /// When this is not root: these tests are not skipped.
    pub(crate) fn new(count: usize) -> Self {
        assert!(
            nix::unistd::geteuid().is_root(),
            "this test makes network namespaces and needs root; run it as root: sudo -E ./test"
        );
        sweep();
        let name = |part: &str| format!("myzel-e2e-{}-{part}", std::process::id());
        let names = (1..=count).map(|n| name(&n.to_string())).collect();
        // Owned before anything is made, so that a failure on the way cleans up.
        let machines = Self {
            names,
            switch: name("switch"),
        };
        let switch = &machines.switch;
        ip(&format!("netns add {switch}"));
        ip(&format!("-n {switch} link add bridge type bridge"));
        ip(&format!("-n {switch} link set bridge up"));
        for (i, name) in machines.names.iter().enumerate() {
            let n = i + 1;
            ip(&format!("netns add {name}"));
            ip(&format!(
                "-n {switch} link add port{n} type veth peer name eth0 netns {name}"
            ));
            ip(&format!("-n {switch} link set port{n} master bridge up"));
            ip(&format!("-n {name} addr add 10.77.0.{n}/24 dev eth0"));
            ip(&format!("-n {name} link set eth0 up"));
            ip(&format!("-n {name} link set lo up"));
        }
        machines
    }

    /// The namespace of machine `n`, from 1.
    pub(crate) fn name(&self, n: usize) -> &str {
        &self.names[n - 1]
    }

    /// Where machine `n` can send to, as `ip route` prints it.
    pub(crate) fn routes(&self, n: usize) -> String {
        ip(&format!("-n {} route show table main", self.name(n)))
    }

    /// Bytes that machine `n` has received over its one interface.
    pub(crate) fn received_bytes(&self, n: usize) -> u64 {
        let json = ip(&format!("-n {} -s -j link show dev eth0", self.name(n)));
        let json: serde_json::Value = serde_json::from_str(&json).expect("ip prints JSON");
        json[0]["stats64"]["rx"]["bytes"]
            .as_u64()
            .expect("ip counts bytes")
    }

    /// From now on nothing of machine `a` reaches machine `b`, and the other way round.
    pub(crate) fn separate(&self, a: usize, b: usize) {
        for (here, there) in [(a, b), (b, a)] {
            let nft = |words: &str| {
                ip(&format!("netns exec {} nft {words}", self.name(here)));
            };
            nft("add table inet test");
            nft("add chain inet test in { type filter hook input priority 0 ; }");
            nft(&format!(
                "add rule inet test in ip saddr 10.77.0.{there} counter drop"
            ));
        }
    }

    /// Packets that the firewall of machine `n` has dropped.
    pub(crate) fn dropped(&self, n: usize) -> u64 {
        let words = format!("netns exec {} nft list chain inet test in", self.name(n));
        let rules = ip(&words);
        let counts = rules.split("counter packets ").skip(1);
        counts
            .map(|rest| rest.split(' ').next().unwrap().parse::<u64>().unwrap())
            .sum()
    }

    /// Pulls machine `n`'s plug out of the switch, or puts it in again.
    pub(crate) fn plug(&self, n: usize, state: &str) {
        ip(&format!("-n {} link set port{n} {state}", self.switch));
    }
}

impl Drop for Machines {
    fn drop(&mut self) {
        for name in self.names.iter().chain([&self.switch]) {
            // One that was not made yet need not be removed.
            let _ = Command::new("ip").args(["netns", "del", name]).output();
        }
    }
}

/// Removes what a killed test process has left behind.
fn sweep() {
    let entries = std::fs::read_dir(FOLDER).into_iter().flatten().flatten();
    for name in entries.filter_map(|entry| entry.file_name().into_string().ok()) {
        let mut parts = name
            .strip_prefix("myzel-e2e-")
            .into_iter()
            .flat_map(|rest| rest.split('-'));
        let pid = parts.next().and_then(|pid| pid.parse().ok());
        if pid.is_some_and(|pid| !super::processes::lives(pid)) {
            let _ = Command::new("ip").args(["netns", "del", &name]).output();
        }
    }
}

fn ip(args: &str) -> String {
    let output = Command::new("ip")
        .args(args.split(' '))
        .output()
        .expect("iproute2 is installed");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "ip {args}: {said}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}
