//! Giving up everything that computing does not need, before the first byte of a model is read.
//!
//! # Story
//!
//! llama.cpp is a large native library that parses files from strangers and computes what other members send. [`seal`] is
//! called while the process has one thread, so that every later thread inherits it. It opens what will be read again,
//! then takes away, in this order: memory, cores and written files beyond limits (setrlimit), the right to be looked into
//! (`PR_SET_DUMPABLE`), new privileges, all files but the model's, sockets and signals to others (Landlock, [`files`]),
//! and every system call that is not on a short list (seccomp, [`calls`]). Nothing of it can be taken back.
//!
//! What the kernel does not offer is named in [`Sandbox::missing`]; the node decides what such a process may do. Systems other
//! than Linux give a separate process with limits, and say so.
//!
//! Sources: setrlimit(2), prctl(2), landlock(7), seccomp(2).

#[cfg(target_os = "linux")]
mod calls;
#[cfg(target_os = "linux")]
mod files;

use crate::figures::Figures;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use proto::host::{LoadSpec, Sandbox, SandboxLevel};

/// Files that may be open beside the models' own: pipe, standard streams, proc(5), and an adapter or two.
const FILES_OPEN_MAX: u64 = 64;

/// A process that is sealed.
#[derive(Debug)]
pub struct Sealed {
    /// How far.
    pub sandbox: Sandbox,
    /// What was opened before.
    pub figures: Figures,
}

/// Why a process was not sealed; nothing has changed then.
#[derive(Debug, thiserror::Error)]
pub enum SealError {
    /// The models do not fit under [`LoadSpec::memory_bytes_max`].
    #[error(
        "the model's files ({files} bytes) and the engine itself ({own} bytes) do not fit into the {max} bytes of memory \
         that this engine may use; allow more, or choose a smaller model"
    )]
    Memory {
        /// Size of all files.
        files: u64,
        /// Address space of the process before loading.
        own: u64,
        /// The limit.
        max: u64,
    },
}

/// Seals the calling process; to be called once, while it has one thread.
///
/// # Errors
///
/// [`SealError`]. What the system cannot do is no error, but named in the result.
pub fn seal(spec: &LoadSpec) -> Result<Sealed, SealError> {
    let figures = Figures::open();
    check_memory(spec, &figures)?;
    let mut missing = limit(spec);
    let level = lock_up(spec, &mut missing);
    // A level without its limits is not the whole level.
    let level = match level {
        SandboxLevel::Full if !missing.is_empty() => SandboxLevel::Partial,
        level => level,
    };
    let sandbox = Sandbox { level, missing };
    Ok(Sealed { sandbox, figures })
}

fn check_memory(spec: &LoadSpec, figures: &Figures) -> Result<(), SealError> {
    let Some(max) = spec.memory_bytes_max else {
        return Ok(());
    };
    let sizes = files(spec).filter_map(|file| Some(std::fs::metadata(file).ok()?.len()));
    let (files, own) = (sizes.sum::<u64>(), figures.address_bytes());
    match files.checked_add(own) {
        Some(bytes) if bytes <= max => Ok(()),
        _ => Err(SealError::Memory { files, own, max }),
    }
}

fn files(spec: &LoadSpec) -> impl Iterator<Item = &String> {
    spec.parts.iter().flat_map(|part| &part.files)
}

/// Sets the resource limits; returns those that could not be set.
fn limit(spec: &LoadSpec) -> Vec<String> {
    let open = FILES_OPEN_MAX + files(spec).count() as u64;
    let wanted = [
        (Resource::RLIMIT_CORE, Some(0), "core dumps"),
        (Resource::RLIMIT_FSIZE, Some(0), "written files"),
        (Resource::RLIMIT_NOFILE, Some(open), "open files"),
        (Resource::RLIMIT_AS, spec.memory_bytes_max, "memory"),
    ];
    let failed = wanted.into_iter().filter_map(|(resource, max, what)| {
        let (_, hard) = getrlimit(resource).ok()?;
        // A limit is only ever lowered: raising it would want a privilege.
        let max = max?.min(hard);
        let error = setrlimit(resource, max, max).err()?;
        Some(format!("a limit of {what} ({error})"))
    });
    failed.collect()
}

#[cfg(target_os = "linux")]
fn lock_up(spec: &LoadSpec, missing: &mut Vec<String>) -> SandboxLevel {
    use nix::sys::prctl;
    // Threads that run already would keep what this one gives up.
    match std::fs::read_dir("/proc/self/task").map(Iterator::count) {
        Ok(1) => {}
        Ok(threads) => missing.push(format!("{} threads that run already", threads - 1)),
        Err(error) => missing.push(format!("a look at its own threads ({error})")),
    }
    if let Err(error) = prctl::set_dumpable(false) {
        missing.push(format!("PR_SET_DUMPABLE ({error})"));
    }
    if let Err(error) = prctl::set_no_new_privs() {
        missing.push(format!("PR_SET_NO_NEW_PRIVS ({error})"));
    }
    let files = files::restrict(spec);
    let calls = calls::restrict();
    let level = match (&files, &calls) {
        (Ok(()), Ok(())) => SandboxLevel::Full,
        (Err(_), Err(_)) => SandboxLevel::ProcessOnly,
        _ => SandboxLevel::Partial,
    };
    missing.extend(files.err().into_iter().chain(calls.err()));
    level
}

#[cfg(not(target_os = "linux"))]
fn lock_up(_: &LoadSpec, missing: &mut Vec<String>) -> SandboxLevel {
    missing.push("everything but limits and a process of its own: only Linux has more".to_owned());
    SandboxLevel::ProcessOnly
}
