//! A world: machines with a network between them, and nothing else.
//!
//! [`World`] makes machines and shapes what lies between them; a [`Machine`] runs processes and can be frozen or lose its
//! power; [`Node`] is a `myzel up` on one. Dropping the world ends every process on its machines and removes
//! namespaces, interfaces, mounts and files, also on the way out of a panic.

mod cpu;
mod disk;
pub(crate) mod ground;
mod link;
mod machine;
mod node;
mod partition;
mod process;
pub(crate) mod processes;

use std::fs;
use std::net::{Ipv4Addr, UdpSocket};

use anyhow::{Context, Result, bail, ensure};
use tun_rs::{DeviceBuilder, SyncDevice};

use crate::link::calibrate::{self, Stamps};
use crate::link::emulator::{Emulator, MTU};
use crate::link::{Measured, Shape};
pub use cpu::Starved;
pub use disk::Disk;
use ground::{Ground, Namespace, ip};
pub use link::Link;
pub use machine::Machine;
pub use node::{Node, Setup};
pub use partition::Partition;
pub use process::Process;

/// The most machines of a world; their addresses are `10.88.0.1`, `10.88.0.2` …
pub const MACHINES_MAX: usize = 250;
/// Packets that wait in an interface for the emulator, which reads them at once unless the system is very busy.
const INTERFACE_PACKETS: u32 = 4_096;

/// Machines that can reach each other and nobody else.
#[derive(Debug)]
pub struct World {
    emulator: Emulator,
    machines: Vec<Machine>,
    /// The last address that no machine has from the beginning.
    spare_addr: u8,
    ground: Ground,
    /// For calibration.
    _stamps: Stamps,
}

/// The interface of a machine: its name there, as a computer's first one is called.
const INTERFACE: &str = "eth0";

impl World {
    /// An empty world. The same seed gives the n-th packet of each way the same fate.
    ///
    /// # Errors
    ///
    /// When this is not root or the system lacks something; the message says what is needed.
    pub fn new(seed: u64) -> Result<Self> {
        Ok(Self {
            ground: Ground::new()?,
            emulator: Emulator::start(seed)?,
            machines: Vec::new(),
            spare_addr: MACHINES_MAX as u8,
            _stamps: Stamps::keep()?,
        })
    }

    /// A machine more. Its links to all others are wires that one does not notice.
    ///
    /// # Errors
    ///
    /// When the name is taken or no plain word, or the system refuses.
    pub fn machine(&mut self, name: &str) -> Result<Machine> {
        let is_word =
            |name: &str| !name.is_empty() && name.chars().all(|c| c.is_ascii_alphanumeric());
        ensure!(
            is_word(name),
            "a machine's name is letters and digits: {name:?}"
        );
        ensure!(
            self.machines.iter().all(|other| other.name() != name),
            "there is a machine {name} already"
        );
        ensure!(
            self.machines.len() < MACHINES_MAX,
            "at most {MACHINES_MAX} machines"
        );
        let port = self.machines.len();
        let addr = Ipv4Addr::new(10, 88, 0, port as u8 + 1);
        let namespace = Namespace::named(self.ground.named(name));
        let machine = Machine::new(name, namespace, addr, port, self.ground.dir(name));
        // Owned before anything is made, so that a failure on the way cleans up.
        self.machines.push(machine.clone());
        fs::create_dir_all(machine.dir())?;
        machine.namespace().make()?;
        let device = machine.namespace().inside(|| interface(addr))??;
        // Groups are reached over the one interface; there is no way to anywhere else.
        let name = machine.namespace().name();
        ip(&format!("-n {name} route add 224.0.0.0/4 dev {INTERFACE}"))?;
        let attached = self.emulator.attach(device, addr)?;
        assert_eq!(attached, port, "machines and interfaces are numbered alike");
        Ok(machine)
    }

    /// Gives a machine another address, as another network would; what is sent to the old one gets lost.
    ///
    /// # Errors
    ///
    /// When there is no address left, or the system refuses.
    pub fn readdress(&mut self, machine: &Machine) -> Result<Ipv4Addr> {
        let spare = self
            .spare_addr
            .checked_add(1)
            .filter(|last| *last < u8::MAX);
        self.spare_addr = spare.context("no address is left")?;
        let (old, new) = (machine.addr(), Ipv4Addr::new(10, 88, 0, self.spare_addr));
        let name = machine.namespace().name();
        // The last address takes the ways with it.
        ip(&format!("-n {name} addr del {old}/24 dev {INTERFACE}"))?;
        ip(&format!("-n {name} addr add {new}/24 dev {INTERFACE}"))?;
        ip(&format!(
            "-n {name} route replace 224.0.0.0/4 dev {INTERFACE}"
        ))?;
        machine.set_addr(new);
        self.emulator.readdress(machine.port(), new);
        Ok(new)
    }

    /// Several machines.
    ///
    /// # Errors
    ///
    /// As [`Self::machine`].
    pub fn machines<const N: usize>(&mut self, names: [&str; N]) -> Result<[Machine; N]> {
        let machines: Vec<Machine> = names
            .into_iter()
            .map(|name| self.machine(name))
            .collect::<Result<_>>()?;
        Ok(machines.try_into().expect("as many machines as names"))
    }

    /// Both ways between two machines.
    pub fn link(&self, a: &Machine, b: &Machine) -> Link<'_> {
        Link::new(self, vec![(a.port(), b.port()), (b.port(), a.port())])
    }

    /// The way from one machine to another, and not back.
    pub fn way(&self, from: &Machine, to: &Machine) -> Link<'_> {
        Link::new(self, vec![(from.port(), to.port())])
    }

    /// Every way between all the machines that are there.
    pub fn links(&self) -> Link<'_> {
        let count = self.machines.len();
        let pairs = (0..count).flat_map(|from| (0..count).map(move |to| (from, to)));
        Link::new(self, pairs.filter(|(from, to)| from != to).collect())
    }

    /// Lets nothing through between two machines, in either way.
    pub fn cut(&self, a: &Machine, b: &Machine) {
        self.link(a, b).cut();
    }

    /// Lets through again what was cut.
    pub fn mend(&self, a: &Machine, b: &Machine) {
        self.link(a, b).mend();
    }

    /// Parts two groups of machines by their own firewalls, which count what they drop.
    ///
    /// # Errors
    ///
    /// When there is no nftables.
    pub fn partition(&self, left: &[&Machine], right: &[&Machine]) -> Result<Partition> {
        Partition::new(left, right)
    }

    /// Measures the way from one machine to another; `asked` says what to look for.
    ///
    /// # Errors
    ///
    /// When no socket can be opened or read.
    pub fn measure(&self, from: &Machine, to: &Machine, asked: &Shape) -> Result<Measured> {
        let open = |machine: &Machine| machine.inside(|| UdpSocket::bind((machine.addr(), 0)));
        let (sender, receiver) = (open(from)??, open(to)??);
        calibrate::measure(&sender, &receiver, asked)
    }

    /// Measures the way from one machine to another and holds it against `asked`.
    ///
    /// # Errors
    ///
    /// When it is another, with all figures; or when it cannot be measured.
    pub fn confirm(&self, from: &Machine, to: &Machine, asked: &Shape) -> Result<Measured> {
        let measured = self.measure(from, to, asked)?;
        let misses = measured.misses(asked);
        if !misses.is_empty() {
            let (from, to, misses) = (from.name(), to.name(), misses.join("; "));
            bail!("the way from {from} to {to} is not as asked ({asked}) but {measured}: {misses}");
        }
        Ok(measured)
    }

    /// Confirms that both ways between two machines are what was asked of them, before a scenario trusts them.
    ///
    /// # Errors
    ///
    /// As [`Self::confirm`].
    pub fn calibrate(&self, a: &Machine, b: &Machine) -> Result<[Measured; 2]> {
        let way =
            |from: &Machine, to: &Machine| self.confirm(from, to, &self.way(from, to).asked());
        Ok([way(a, b)?, way(b, a)?])
    }

    pub(crate) fn emulator(&self) -> &Emulator {
        &self.emulator
    }
}

impl Drop for World {
    fn drop(&mut self) {
        for machine in &self.machines {
            // Those that withstand would be killed again below.
            let _ = machine.kill();
        }
        // Before the namespaces: interfaces that are gone can always be "read", and its thread would only spin.
        let has_worked = self.emulator.end();
        for machine in &self.machines {
            machine.namespace().remove();
        }
        assert!(
            has_worked || std::thread::panicking(),
            "the links' thread panicked"
        );
    }
}

/// Makes the interface of the machine that the calling thread is inside of.
fn interface(addr: Ipv4Addr) -> Result<SyncDevice> {
    // Packets of IPv6 go nowhere here, so nobody should try; a kernel without it needs no telling.
    for which in ["all", "default"] {
        let _ = fs::write(format!("/proc/sys/net/ipv6/conf/{which}/disable_ipv6"), "1");
    }
    let device = DeviceBuilder::new()
        .name(INTERFACE)
        .ipv4(addr, 24, None)
        .mtu(MTU)
        .tx_queue_len(INTERFACE_PACKETS)
        .enable(true)
        .build_sync()
        .context("making a TUN device")?;
    device.set_nonblocking(true)?;
    Ok(device)
}
