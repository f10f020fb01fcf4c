//! Which system calls a sealed process may make.
//!
//! Everything that is not listed fails with `EPERM`. The list is what loading and computing need (memory, threads, time, the
//! pipe, reading), and what the C library does around abort.
//! Arguments are checked where one call does harmless and harmful things: files open for reading alone, memory is never
//! executable, `clone` makes threads and nothing else, signals go to this process alone.

use nix::libc;
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter,
    SeccompRule, TargetArch, apply_filter,
};
use std::collections::BTreeMap;

/// Calls without conditions.
const FREE: &[i64] = &[
    // reading, and the pipe
    libc::SYS_read,
    libc::SYS_readv,
    libc::SYS_pread64,
    libc::SYS_write,
    libc::SYS_writev,
    libc::SYS_lseek,
    libc::SYS_close,
    libc::SYS_fstat,
    libc::SYS_newfstatat,
    libc::SYS_statx,
    libc::SYS_fadvise64,
    libc::SYS_recvfrom,
    libc::SYS_ppoll,
    // memory
    libc::SYS_brk,
    libc::SYS_munmap,
    libc::SYS_mremap,
    libc::SYS_madvise,
    libc::SYS_sysinfo,
    // threads; clone3 is on the list because the other filter answers it
    libc::SYS_clone3,
    libc::SYS_exit,
    libc::SYS_exit_group,
    libc::SYS_futex,
    libc::SYS_set_robust_list,
    libc::SYS_set_tid_address,
    libc::SYS_rseq,
    libc::SYS_membarrier,
    libc::SYS_sched_yield,
    libc::SYS_sched_getaffinity,
    libc::SYS_gettid,
    libc::SYS_getpid,
    libc::SYS_getcpu,
    // time and chance
    libc::SYS_clock_gettime,
    libc::SYS_clock_getres,
    libc::SYS_clock_nanosleep,
    libc::SYS_nanosleep,
    libc::SYS_gettimeofday,
    libc::SYS_getrandom,
    // its own signals
    libc::SYS_rt_sigaction,
    libc::SYS_rt_sigprocmask,
    libc::SYS_rt_sigreturn,
    libc::SYS_sigaltstack,
    libc::SYS_restart_syscall,
    // about itself
    libc::SYS_uname,
    libc::SYS_getrusage,
];

/// Calls that only this architecture has.
#[cfg(target_arch = "x86_64")]
const FREE_HERE: &[i64] = &[libc::SYS_poll, libc::SYS_time];
#[cfg(not(target_arch = "x86_64"))]
const FREE_HERE: &[i64] = &[];

/// arch_prctl(2) on x86_64: asking for the permission to use AMX tiles (Linux, arch/x86/include/uapi/asm/prctl.h).
#[cfg(target_arch = "x86_64")]
const ARCH_REQ_XCOMP_PERM: u64 = 0x1023;

/// Flags of clone(2) that make a thread.
const THREAD: u64 = (libc::CLONE_THREAD | libc::CLONE_VM | libc::CLONE_SIGHAND) as u64;
/// Flags of clone(2) that make a namespace.
const NAMESPACES: u64 = (libc::CLONE_NEWNS
    | libc::CLONE_NEWCGROUP
    | libc::CLONE_NEWUTS
    | libc::CLONE_NEWIPC
    | libc::CLONE_NEWUSER
    | libc::CLONE_NEWPID
    | libc::CLONE_NEWNET) as u64;
/// Flags of open(2) that change a file.
const WRITES: u64 = (libc::O_ACCMODE | libc::O_CREAT | libc::O_TRUNC | libc::O_APPEND) as u64;

type Rules = BTreeMap<i64, Vec<SeccompRule>>;

/// Restricts the calling thread and all that it will start.
///
/// # Errors
///
/// What is missing, for people.
pub(super) fn restrict() -> Result<(), String> {
    let missing = |error: String| format!("seccomp, so any system call can be made ({error})");
    let arch = TargetArch::try_from(std::env::consts::ARCH).map_err(|e| missing(e.to_string()))?;
    let rules = rules().map_err(|error| missing(error.to_string()))?;
    // The C library takes "not implemented" as the word to fall back to clone, whose flags can be checked; those of
    // clone3 lie in memory. A call is carried out when every filter allows it.
    let clone3 = Rules::from([(libc::SYS_clone3, Vec::new())]);
    for (rules, others, these) in [
        (clone3, SeccompAction::Allow, errno(libc::ENOSYS)),
        (rules, errno(libc::EPERM), SeccompAction::Allow),
    ] {
        let filter = SeccompFilter::new(rules, others, these, arch);
        let program = filter.and_then(BpfProgram::try_from);
        let program = program.map_err(|error| missing(error.to_string()))?;
        apply_filter(&program).map_err(|error| missing(error.to_string()))?;
    }
    Ok(())
}

fn errno(code: i32) -> SeccompAction {
    SeccompAction::Errno(code.unsigned_abs())
}

fn rules() -> Result<Rules, seccompiler::BackendError> {
    let free = FREE.iter().chain(FREE_HERE).map(|call| (*call, Vec::new()));
    let mut rules: Rules = free.collect();
    let own = u64::from(std::process::id());
    let mut only = |call, conditions: Vec<SeccompCondition>| {
        rules
            .entry(call)
            .or_default()
            .push(SeccompRule::new(conditions)?);
        Ok::<_, seccompiler::BackendError>(())
    };
    only(libc::SYS_openat, vec![bits(2, WRITES, 0)?])?;
    only(libc::SYS_mmap, vec![bits(2, libc::PROT_EXEC as u64, 0)?])?;
    only(
        libc::SYS_mprotect,
        vec![bits(2, libc::PROT_EXEC as u64, 0)?],
    )?;
    only(
        libc::SYS_clone,
        vec![bits(0, THREAD, THREAD)?, bits(0, NAMESPACES, 0)?],
    )?;
    only(libc::SYS_tgkill, vec![equal(0, own)?])?;
    // To whom the socket is connected, and to nobody else.
    only(libc::SYS_sendto, vec![null(4)?])?;
    only(libc::SYS_prctl, vec![equal(0, libc::PR_SET_NAME as u64)?])?;
    // Limits may be read.
    only(libc::SYS_prlimit64, vec![equal(0, 0)?, null(2)?])?;
    for flags in [libc::F_GETFD, libc::F_GETFL] {
        only(libc::SYS_fcntl, vec![equal(1, flags as u64)?])?;
    }
    #[cfg(target_arch = "x86_64")]
    only(libc::SYS_arch_prctl, vec![equal(0, ARCH_REQ_XCOMP_PERM)?])?;
    Ok(rules)
}

/// The argument, an `int` or flags within 32 bits, is `value` where `mask` has ones.
fn bits(
    argument: u8,
    mask: u64,
    value: u64,
) -> Result<SeccompCondition, seccompiler::BackendError> {
    let operator = SeccompCmpOp::MaskedEq(mask);
    SeccompCondition::new(argument, SeccompCmpArgLen::Dword, operator, value)
}

/// The argument, an `int`, is `value`.
fn equal(argument: u8, value: u64) -> Result<SeccompCondition, seccompiler::BackendError> {
    let operator = SeccompCmpOp::Eq;
    SeccompCondition::new(argument, SeccompCmpArgLen::Dword, operator, value)
}

/// The argument, a pointer, is null.
fn null(argument: u8) -> Result<SeccompCondition, seccompiler::BackendError> {
    let operator = SeccompCmpOp::Eq;
    SeccompCondition::new(argument, SeccompCmpArgLen::Qword, operator, 0)
}
