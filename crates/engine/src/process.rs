//! Starting a child process that dies with us.

use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream as StdUnixStream;
use std::path::PathBuf;
use std::process::Stdio;
use std::sync::OnceLock;
use std::sync::mpsc::{SyncSender, sync_channel};
use tokio::net::UnixStream;
use tokio::process::{Child, Command};
use tokio::runtime::Handle;
use tokio::sync::oneshot;

/// How an engine-host is started.
#[derive(Debug, Clone)]
pub struct Launch {
    /// The binary: this one.
    pub program: PathBuf,
    /// Arguments before the parent's process id.
    pub args: Vec<String>,
}

/// Starts that may wait; more make callers wait.
const STARTS_QUEUED_MAX: usize = 64;

struct Order {
    launch: Launch,
    stdin: OwnedFd,
    runtime: Handle,
    reply: oneshot::Sender<io::Result<Child>>,
}

/// Starts an engine-host and returns it with our end of its pipe.
///
/// # Errors
///
/// When the system refuses a socket pair or a process.
pub(crate) async fn start(launch: &Launch) -> io::Result<(Child, UnixStream)> {
    let (ours, theirs) = StdUnixStream::pair()?;
    ours.set_nonblocking(true)?;
    let (reply, started) = oneshot::channel();
    let order = Order {
        launch: launch.clone(),
        stdin: theirs.into(),
        runtime: Handle::current(),
        reply,
    };
    let gone = || io::Error::other("the thread that starts processes is gone");
    spawner()?.send(order).map_err(|_| gone())?;
    let child = started.await.map_err(|_| gone())??;
    Ok((child, UnixStream::from_std(ours)?))
}

/// The one thread that starts children. The kernel sends the parent-death signal when the *thread* that forked ends,
/// so children must not be forked by a thread of a pool.
fn spawner() -> io::Result<&'static SyncSender<Order>> {
    static SPAWNER: OnceLock<SyncSender<Order>> = OnceLock::new();
    if let Some(sender) = SPAWNER.get() {
        return Ok(sender);
    }
    let (sender, orders) = sync_channel::<Order>(STARTS_QUEUED_MAX);
    std::thread::Builder::new()
        .name("engine-spawner".into())
        .spawn(move || {
            for order in orders {
                let _context = order.runtime.enter();
                // The caller may have gone; the child is then killed by its drop.
                let _ = order.reply.send(spawn(order.launch, order.stdin));
            }
        })?;
    Ok(SPAWNER.get_or_init(|| sender))
}

fn spawn(launch: Launch, stdin: OwnedFd) -> io::Result<Child> {
    Command::new(launch.program)
        .args(launch.args)
        .arg(std::process::id().to_string())
        // ggml would start a debugger to print where it aborted.
        .env("GGML_NO_BACKTRACE", "1")
        .stdin(Stdio::from(stdin))
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
}
