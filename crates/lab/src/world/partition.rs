//! Partitions by the machines' own firewalls (nftables), of which the sender's sockets notice nothing.

use std::sync::atomic::{AtomicU32, Ordering};

use anyhow::{Context, Result};
use serde_json::Value;

use super::Machine;
use super::ground::run;

/// The number of the next table of this process.
static NEXT: AtomicU32 = AtomicU32::new(1);

const OUT: &str =
    "install nftables (Debian: apt-get install nftables), with a kernel that has nf_tables";

/// A rule at each machine of two groups that drops what comes from the other group. It holds until it is healed.
#[derive(Debug)]
#[must_use = "a partition that nobody can heal lasts for the world's life"]
pub struct Partition {
    table: String,
    machines: Vec<Machine>,
}

impl Partition {
    /// Parts `left` from `right`. Neither group is parted in itself.
    pub(crate) fn new(left: &[&Machine], right: &[&Machine]) -> Result<Self> {
        let table = format!("lab{}", NEXT.fetch_add(1, Ordering::Relaxed));
        let mut partition = Self {
            table,
            machines: Vec::new(),
        };
        for (here, there) in [(left, right), (right, left)] {
            let addrs: Vec<String> = there.iter().map(|other| other.addr().to_string()).collect();
            for machine in here {
                partition.machines.push((*machine).clone());
                partition.nft(
                    machine,
                    &format!(
                        "add table ip {0}; \
                         add chain ip {0} input {{ type filter hook input priority 0 ; }}; \
                         add rule ip {0} input ip saddr {{ {1} }} counter drop",
                        partition.table,
                        addrs.join(", ")
                    ),
                )?;
            }
        }
        Ok(partition)
    }

    /// Packets that it has dropped so far.
    ///
    /// # Errors
    ///
    /// When the firewall does not say.
    pub fn dropped(&self) -> Result<u64> {
        let list = format!("list table ip {}", self.table);
        let each = self.machines.iter().map(|machine| {
            let text = self.nft(machine, &list)?;
            let json: Value = serde_json::from_str(&text).context("what nft printed")?;
            counted(&json).with_context(|| format!("nft counts nothing: {text}"))
        });
        each.sum()
    }

    /// Removes the rules.
    ///
    /// # Errors
    ///
    /// When the firewall refuses.
    pub fn heal(self) -> Result<()> {
        for machine in &self.machines {
            self.nft(machine, &format!("delete table ip {}", self.table))?;
        }
        Ok(())
    }

    fn nft(&self, machine: &Machine, commands: &str) -> Result<String> {
        run(machine.command("nft").args(["-j", commands]), OUT)
    }
}

/// The packets of the one rule's counter.
fn counted(list: &Value) -> Option<u64> {
    let things = list["nftables"].as_array()?.iter();
    let expressions = things.filter_map(|thing| thing["rule"]["expr"].as_array());
    let mut counters = expressions
        .flatten()
        .filter_map(|e| e["counter"]["packets"].as_u64());
    counters.next()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_counter_is_found_in_what_nft_prints() {
        let json = serde_json::json!({"nftables": [
            {"metainfo": {"version": "1.0.6"}},
            {"table": {"name": "lab1"}},
            {"rule": {"expr": [
                {"match": {"op": "=="}},
                {"counter": {"packets": 7, "bytes": 900}},
                {"drop": null}
            ]}}
        ]});
        assert_eq!(counted(&json), Some(7));
        assert_eq!(counted(&serde_json::json!({"nftables": []})), None);
    }
}
