//! The proving ground: real processes, one network namespace each, and links that misbehave on request. Workshop: never
//! shipped.
//!
//! # Story
//!
//! A test makes a [`World`] from a seed, machines in it, and says what lies between them:
//!
//! ```no_run
//! # fn main() -> anyhow::Result<()> {
//! use lab::World;
//!
//! let mut world = World::new(7)?;
//! let [a, b] = world.machines(["a", "b"])?;
//! world.link(&a, &b).delay_ms(25).loss(0.01);
//! world.calibrate(&a, &b)?;
//!
//! let binary = std::path::Path::new("target/release/myzel");
//! let coordinator = a.myzel(binary).split(1).up()?;
//! let mut peer = b.myzel(binary).join(&coordinator).up()?;
//! coordinator.ring_up()?;
//!
//! world.way(&b, &a).cut(); // b hears and is not heard
//! peer.process().kill()?; // the process, as by the system
//! a.freeze()?; // a whole machine, as by a closed lid
//! # Ok(())
//! # }
//! ```
//!
//! Each machine is a network namespace whose one interface is a TUN device. One thread holds the
//! other ends of all of them: it reads a packet, asks the pure machine of its way ([`link`]) when it arrives, and
//! sleeps until then. Kernels without netem are enough.
//!
//! Nothing is trusted untested. [`World::calibrate`] measures delay, jitter, loss, rate and cuts with packets of its own
//! and fails when they are not as asked; [`World::link`]'s counts, a [`Partition`]'s counter and the states of
//! processes show that a fault struck.
//!
//! The world owns everything: the thread, the interfaces, the namespaces, the processes on the machines, mounts and files.
//! All of it goes when the world is dropped, also by a panic. What a killed process left is removed by the next
//! world: the names bear the process's number.
//!
//! It needs root, `/dev/net/tun`, iproute2, and for partitions nftables; [`World::new`] says what is missing. With `chrt`
//! (util-linux) the links' thread is woken before all others, which keeps delays exact on a busy machine.
//!
//! What it cannot do: the wall clock of one process (a time namespace moves only the monotonic clock). The scenario that
//! needs that puts a library of its own between process and clock.

pub mod link;
pub mod wait;
mod world;

pub use link::{Counts, Measured, Shape};
pub use world::{
    Disk, Link, MACHINES_MAX, Machine, Node, Partition, Process, Setup, Starved, World,
};
