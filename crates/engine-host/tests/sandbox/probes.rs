//! The probes: each runs in a process of its own, sealed or not, and ends with 0 or with the error's number.

use engine_host::sandbox::{Sealed, seal};
use nix::libc;
use proto::host::{LoadSpec, Part, Role};
use proto::model::Numerics;
use std::fs::{File, OpenOptions};
use std::io;
use std::net::{TcpListener, UdpSocket};
use std::os::unix::net::UnixDatagram;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

/// The memory that sealed probes may use.
pub(crate) const MEMORY_BYTES: u64 = 2 << 30;
/// More than that.
const TOO_MUCH_BYTES: usize = 4 << 30;

/// What a probe works on.
struct Ground<'a> {
    model: &'a str,
    other: &'a str,
}

type Probe = fn(&Ground<'_>) -> io::Result<()>;

/// The probes by name; `refusals` says what each is to end with.
const PROBES: &[(&str, Probe)] = &[
    ("read the model", |g| File::open(g.model).map(drop)),
    ("read another file", |g| File::open(g.other).map(drop)),
    ("list a directory", |_| std::fs::read_dir("/").map(drop)),
    ("write the model", |g| {
        OpenOptions::new().append(true).open(g.model).map(drop)
    }),
    ("create a file", |g| {
        File::create(format!("{}.new", g.other)).map(drop)
    }),
    ("remove a file", |g| std::fs::remove_file(g.other)),
    ("a TCP socket", |_| {
        TcpListener::bind("127.0.0.1:0").map(drop)
    }),
    ("a UDP socket", |_| UdpSocket::bind("127.0.0.1:0").map(drop)),
    ("a Unix socket", |_| UnixDatagram::unbound().map(drop)),
    ("start a process", |_| {
        Command::new("/proc/self/exe")
            .arg("--list")
            .status()
            .map(drop)
    }),
    ("become a process", |_| {
        let mut itself = Command::new("/proc/self/exe");
        Err(itself.args(["--list", "--ignored"]).exec())
    }),
    ("fork", |_| fork()),
    ("trace", |_| {
        // SAFETY: takes no pointers.
        done(unsafe { libc::ptrace(libc::PTRACE_TRACEME, 0, 0, 0) })
    }),
    ("signal another process", |_| {
        // SAFETY: takes no pointers; signal 0 does nothing.
        done(i64::from(unsafe { libc::kill(libc::getppid(), 0) }))
    }),
    ("executable memory", |_| executable()),
    ("allocate too much", |_| {
        let mut bytes = Vec::<u8>::new();
        let reserved = bytes.try_reserve_exact(TOO_MUCH_BYTES);
        reserved.map_err(|_| io::Error::from_raw_os_error(libc::ENOMEM))
    }),
    ("become dumpable", |_| {
        // SAFETY: takes no pointers.
        done(i64::from(unsafe { libc::prctl(libc::PR_SET_DUMPABLE, 1) }))
    }),
    ("threads", |_| {
        let threads = (0..8).map(|n| std::thread::spawn(move || n));
        let sum: u32 = threads.map(|thread| thread.join().unwrap()).sum();
        assert_eq!(sum, 28);
        Ok(())
    }),
    ("abort", |_| std::process::abort()),
    ("kernel services", |_| services()),
];

fn done(result: i64) -> io::Result<()> {
    if result == -1 {
        Err(io::Error::last_os_error())
    } else {
        Ok(())
    }
}

fn fork() -> io::Result<()> {
    // SAFETY: there is one thread, and the child ends at once.
    let child = unsafe { libc::fork() };
    if child == 0 {
        // SAFETY: ends the process.
        unsafe { libc::_exit(0) }
    }
    done(i64::from(child))
}

fn executable() -> io::Result<()> {
    let prot = libc::PROT_READ | libc::PROT_WRITE | libc::PROT_EXEC;
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
    // SAFETY: a new mapping that nobody uses.
    let at = unsafe { libc::mmap(std::ptr::null_mut(), 4096, prot, flags, -1, 0) };
    done(at as i64)
}

/// Ways into the kernel that computing does not need. Called without sense: who may call them gets another error than EPERM.
fn services() -> io::Result<()> {
    for call in [
        libc::SYS_io_uring_setup,
        libc::SYS_bpf,
        libc::SYS_unshare,
        libc::SYS_mount,
        libc::SYS_keyctl,
        libc::SYS_userfaultfd,
        libc::SYS_perf_event_open,
        libc::SYS_process_vm_readv,
        libc::SYS_process_vm_writev,
        libc::SYS_memfd_create,
        libc::SYS_pidfd_open,
        libc::SYS_setns,
        libc::SYS_ioctl,
        libc::SYS_sendmsg,
        libc::SYS_setuid,
    ] {
        // SAFETY: no pointer is valid, so nothing can be read or written; user id -1 changes nothing.
        let result = unsafe { libc::syscall(call, -1, -1, -1, -1, -1, -1) };
        let error = io::Error::last_os_error();
        if result != -1 || error.raw_os_error() != Some(libc::EPERM) {
            return Ok(());
        }
    }
    Err(io::Error::from_raw_os_error(libc::EPERM))
}

/// Ends the process with what the probe found.
pub(crate) fn run(mode: &str, name: &str, model: &str, other: &str) {
    let ground = Ground { model, other };
    let mut parked = None;
    match mode {
        "without-landlock" => without_landlock(),
        "with-threads" => {
            parked = Some(std::thread::spawn(|| {
                loop {
                    std::thread::park();
                }
            }));
        }
        _ => {}
    }
    if mode != "open" {
        let Sealed { sandbox, figures } = seal(&spec(model)).unwrap();
        if name == "report" {
            println!("{}: {}", sandbox.level, sandbox.missing.join("; "));
            let seen = figures.running().is_some();
            assert!(seen && figures.resident_bytes() > 0);
            return;
        }
    }
    let (_, probe) = PROBES.iter().find(|(known, _)| *known == name).unwrap();
    let code = match probe(&ground) {
        Ok(()) => 0,
        Err(error) => error.raw_os_error().unwrap_or(99),
    };
    drop(parked);
    std::process::exit(code);
}

fn spec(model: &str) -> LoadSpec {
    let part = Part::of(Role::Whole, Path::new(model));
    LoadSpec {
        step_rows_max: 1,
        memory_bytes_max: Some(MEMORY_BYTES),
        ..LoadSpec::new(vec![part], Numerics::Exact)
    }
}

/// Makes this process believe that its kernel has no Landlock.
fn without_landlock() {
    use seccompiler::{BpfProgram, SeccompAction, SeccompFilter, TargetArch, apply_filter};
    let calls = [
        libc::SYS_landlock_create_ruleset,
        libc::SYS_landlock_add_rule,
        libc::SYS_landlock_restrict_self,
    ];
    let rules = calls.map(|call| (call, Vec::new())).into();
    let refused = SeccompAction::Errno(libc::ENOSYS.unsigned_abs());
    let arch = TargetArch::try_from(std::env::consts::ARCH).unwrap();
    let filter = SeccompFilter::new(rules, SeccompAction::Allow, refused, arch).unwrap();
    apply_filter(&BpfProgram::try_from(filter).unwrap()).unwrap();
}
