//! The thread that carries packets between machines.
//!
//! Each machine's interface is a TUN device whose other end is here. The thread sleeps until a packet can be read or the
//! next one is due, and nothing else. It asks the system to be woken first and exactly, because its lateness
//! would be the link's; whether that was enough, calibration says.

use std::collections::BTreeMap;
use std::fmt;
use std::net::Ipv4Addr;
use std::os::fd::AsFd;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use nix::poll::{PollFd, PollFlags, ppoll};
use nix::sys::eventfd::{EfdFlags, EventFd};
use nix::sys::prctl::set_timerslack;
use nix::unistd::gettid;
use tun_rs::SyncDevice;

use super::wire::Wire;

/// Bytes of an interface's largest packet.
pub(crate) const MTU: u16 = 1_500;
/// Packets that are on their way at once, all ways together; one more is dropped as if a queue were full.
const FLYING_MAX: usize = 1 << 17;
/// Packets that are read from one machine before the others have their turn.
const BATCH: usize = 64;
/// How late the system may wake the thread on purpose, in nanoseconds.
const SLACK_NS: u64 = 1;
/// Its priority among real-time threads, 1 to 99.
const PRIORITY: &str = "50";
/// The thread's name, as the system shows it.
pub(crate) const THREAD: &str = "lab-links";

/// All links of a world, and the thread that is them. Dropping it ends the thread and removes the interfaces.
#[derive(Debug)]
pub(crate) struct Emulator {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug)]
struct Shared {
    board: Mutex<Board>,
    /// Rung when the board has another port, or everything is over.
    bell: EventFd,
}

#[derive(Debug)]
struct Board {
    seed: u64,
    ports: Vec<Port>,
    /// By sender and receiver; made when first needed.
    wires: BTreeMap<(usize, usize), Wire>,
    is_over: bool,
}

/// One machine's interface.
#[derive(Clone)]
struct Port {
    device: Arc<SyncDevice>,
    /// The address, as a number: the links' thread has copies of ports.
    addr: Arc<AtomicU32>,
}

impl Port {
    fn addr(&self) -> Ipv4Addr {
        self.addr.load(Ordering::Acquire).into()
    }
}

/// A packet on its way.
struct Packet {
    from: usize,
    to: usize,
    bytes: Vec<u8>,
}

/// By the time at which they are due and the order in which they were sent.
type Flying = BTreeMap<(Duration, u64), Packet>;

impl fmt::Debug for Port {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Port({})", self.addr())
    }
}

impl Board {
    fn wire(&mut self, from: usize, to: usize) -> &mut Wire {
        let way = ((from as u64) << 32) | to as u64;
        let seed = self.seed;
        let new = || Wire::new(seed, way);
        self.wires.entry((from, to)).or_insert_with(new)
    }
}

impl Shared {
    fn board(&self) -> MutexGuard<'_, Board> {
        self.board.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Emulator {
    /// Links between no machines yet.
    ///
    /// # Errors
    ///
    /// When the system gives no thread or no event.
    pub(crate) fn start(seed: u64) -> Result<Self> {
        let board = Board {
            seed,
            ports: Vec::new(),
            wires: BTreeMap::new(),
            is_over: false,
        };
        let shared = Arc::new(Shared {
            board: Mutex::new(board),
            bell: EventFd::from_flags(EfdFlags::EFD_NONBLOCK | EfdFlags::EFD_CLOEXEC)?,
        });
        let of_thread = shared.clone();
        let thread = std::thread::Builder::new()
            .name(THREAD.to_owned())
            .spawn(move || carry(&of_thread))?;
        Ok(Self {
            shared,
            thread: Some(thread),
        })
    }

    /// Takes in a machine's interface, which must not block; returns its number.
    ///
    /// # Errors
    ///
    /// When the thread cannot be told.
    pub(crate) fn attach(&self, device: SyncDevice, addr: Ipv4Addr) -> Result<usize> {
        let mut board = self.shared.board();
        let device = Arc::new(device);
        let addr = Arc::new(AtomicU32::new(addr.into()));
        board.ports.push(Port { device, addr });
        self.shared
            .bell
            .write(1)
            .context("waking the links' thread")?;
        Ok(board.ports.len() - 1)
    }

    /// From now on an interface has another address.
    pub(crate) fn readdress(&self, port: usize, addr: Ipv4Addr) {
        let board = self.shared.board();
        board.ports[port].addr.store(addr.into(), Ordering::Release);
    }

    /// Looks at the way from one interface to another, or changes it.
    pub(crate) fn with<T>(
        &self,
        (from, to): (usize, usize),
        work: impl FnOnce(&mut Wire) -> T,
    ) -> T {
        work(self.shared.board().wire(from, to))
    }

    /// Ends the thread. Says whether it did its work until then; else a scenario could pass because no packet went
    /// anywhere.
    pub(crate) fn end(&mut self) -> bool {
        let Some(thread) = self.thread.take() else {
            return true;
        };
        self.shared.board().is_over = true;
        self.shared.bell.write(1).is_ok() && thread.join().is_ok()
    }
}

impl Drop for Emulator {
    fn drop(&mut self) {
        self.end();
    }
}

fn carry(shared: &Shared) {
    hurry();
    let begun = Instant::now();
    let (mut flying, mut sent) = (Flying::new(), 0);
    let mut ports = Vec::new();
    loop {
        let next = flying.first_key_value().map(|((due, _), _)| *due);
        let ready = wait(
            shared,
            &ports,
            next.map(|due| due.saturating_sub(begun.elapsed())),
        );
        for from in ready {
            read(shared, &ports, from, begun, |due, packet| {
                flying.insert((due, sent), packet);
                sent += 1;
                flying.len() < FLYING_MAX
            });
        }
        deliver(shared, &ports, &mut flying, begun);
        // An event that was not rung reads as an error, and nothing has changed then.
        if shared.bell.read().is_ok() {
            let board = shared.board();
            if board.is_over {
                return;
            }
            ports.clone_from(&board.ports);
        }
    }
}

/// Asks for exact and early waking. Where the system refuses, calibration shows whether it was needed.
fn hurry() {
    let _ = set_timerslack(SLACK_NS);
    let thread = gettid().to_string();
    let _ = Command::new("chrt")
        .args(["--fifo", "--pid", PRIORITY, &thread])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status();
}

/// Sleeps until something can be read or `max` is over; returns the ports that can be read.
fn wait(shared: &Shared, ports: &[Port], max: Option<Duration>) -> Vec<usize> {
    let fds = ports.iter().map(|port| port.device.as_fd());
    let mut polled: Vec<PollFd<'_>> = fds
        .chain([shared.bell.as_fd()])
        .map(|fd| PollFd::new(fd, PollFlags::POLLIN))
        .collect();
    // Interrupted by a signal, it is asked again.
    let _ = ppoll(&mut polled, max.map(Into::into), None);
    let readable = |(at, fd): (usize, &PollFd<'_>)| fd.any().unwrap_or(false).then_some(at);
    let devices = &polled[..ports.len()];
    devices.iter().enumerate().filter_map(readable).collect()
}

/// Reads what a machine has sent and hands on what will arrive somewhere. `fly` says whether there is room for more.
fn read(
    shared: &Shared,
    ports: &[Port],
    from: usize,
    begun: Instant,
    mut fly: impl FnMut(Duration, Packet) -> bool,
) {
    let mut buffer = [0; MTU as usize];
    let mut has_room = true;
    for _ in 0..BATCH {
        let Ok(length) = ports[from].device.recv(&mut buffer) else {
            return;
        };
        let now = begun.elapsed();
        let bytes = &buffer[..length];
        let mut board = shared.board();
        for to in receivers(ports, from, bytes) {
            let wire = board.wire(from, to);
            let Some(due) = wire.send(length, now) else {
                continue;
            };
            if !has_room {
                wire.counts().overflowed += 1;
                continue;
            }
            let bytes = bytes.to_vec();
            has_room = fly(due, Packet { from, to, bytes });
        }
    }
}

/// Who gets a packet: the machine that it is for, or all others if it is for a group. What is no IPv4 is for nobody.
fn receivers(ports: &[Port], from: usize, packet: &[u8]) -> Vec<usize> {
    let Some(to) = destination(packet) else {
        return Vec::new();
    };
    let is_for_all = to.is_multicast() || to.octets()[3] == u8::MAX;
    let others = ports.iter().enumerate().filter(|(at, _)| *at != from);
    others
        .filter(|(_, port)| is_for_all || port.addr() == to)
        .map(|(at, _)| at)
        .collect()
}

/// The destination in an IPv4 header (RFC 791, section 3.1).
fn destination(packet: &[u8]) -> Option<Ipv4Addr> {
    let is_v4 = packet.first()? >> 4 == 4;
    let octets: [u8; 4] = packet.get(16..20)?.try_into().ok()?;
    is_v4.then(|| octets.into())
}

fn deliver(shared: &Shared, ports: &[Port], flying: &mut Flying, begun: Instant) {
    let is_due = |due: Duration| due <= begun.elapsed();
    while let Some(first) = flying.first_entry().filter(|first| is_due(first.key().0)) {
        let due = first.key().0;
        let Packet { from, to, bytes } = first.remove();
        // A machine whose interface is down gets nothing.
        if ports[to].device.send(&bytes).is_ok() {
            let mut board = shared.board();
            let counts = board.wire(from, to).counts();
            counts.delivered += 1;
            counts.delivered_bytes += bytes.len() as u64;
            counts.latest = counts.latest.max(begun.elapsed() - due);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_destination_is_read_from_a_header_and_from_nothing_else() {
        let mut packet = vec![0; 20];
        packet[0] = 0x45;
        packet[16..].copy_from_slice(&[10, 88, 0, 2]);
        assert_eq!(destination(&packet), Some(Ipv4Addr::new(10, 88, 0, 2)));
        assert_eq!(destination(&packet[..19]), None);
        packet[0] = 0x60;
        assert_eq!(destination(&packet), None);
        assert_eq!(destination(&[]), None);
    }
}
