//! A node: a real `myzel up` with a data directory of its own, gone without a trace at the end of its test.

use super::http::Client;
use super::processes::{BINARY, engine_hosts, lives, signal};
use super::wait::{PATIENCE, eventually, settles};
use nix::sys::signal::Signal;
use node::status::Status;
use proto::ids::NodeId;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// How long the system may take to remove a dead node's engine-hosts.
const BURIAL: Duration = Duration::from_secs(5);

/// How a node is started. The same one can be started several times.
#[derive(Debug, Clone)]
pub(crate) struct Setup {
    dir: Arc<TempDir>,
    /// The data directory, if it is not the temporary one.
    data: Option<PathBuf>,
    args: Vec<String>,
    envs: Vec<(String, String)>,
    /// The network namespace to run in.
    inside: Option<String>,
    /// Whether the node believes that its kernel has no Landlock.
    without_landlock: bool,
}

impl Setup {
    /// A node called `name`, with an empty data directory, the starter as its model, one thread, and any free port.
    pub(crate) fn new(name: &str) -> Self {
        let dir = tempfile::Builder::new().prefix("myzel-e2e-").tempdir();
        let dir = Arc::new(dir.expect("a temporary directory"));
        let setup = Self {
            dir,
            data: None,
            args: Vec::new(),
            envs: Vec::new(),
            inside: None,
            without_landlock: false,
        };
        let home = specimen::test_home();
        let home = home.to_str().expect("the test home's path is text");
        setup
            .arg("--name", name)
            .arg("--api", "127.0.0.1:0")
            .arg("--threads", "1")
            .env("XDG_DATA_HOME", home)
            // Nothing is to be heard outside, and nobody else's node to be found.
            .env("MYZEL_LAN", "false")
            .env("MYZEL_DHT", "false")
            .env("MYZEL_RELAY", "off")
            // Nothing is to be fetched from anywhere.
            .env("HF_ENDPOINT", "http://127.0.0.1:9")
            .env("PIP_NO_INDEX", "1")
            .env("PIP_FIND_LINKS", "")
    }

    /// Adds an option; one given before is replaced.
    pub(crate) fn arg(mut self, name: &str, value: &str) -> Self {
        if let Some(at) = self.args.iter().position(|arg| arg == name) {
            self.args.drain(at..at + 2);
        }
        self.args.extend([name.to_owned(), value.to_owned()]);
        self
    }

    pub(crate) fn model(self, path: &Path) -> Self {
        let path = path.to_str().expect("the path is text");
        self.arg("--model", path)
    }

    pub(crate) fn join(self, node: &Node) -> Self {
        self.arg("--join", &node.ticket)
    }

    pub(crate) fn split(self, stages: u32) -> Self {
        self.arg("--split", &stages.to_string())
    }

    pub(crate) fn exact(self) -> Self {
        self.arg("--numerics", "exact")
    }

    /// Adds a variable of the environment; one given before is replaced.
    pub(crate) fn env(mut self, name: &str, value: &str) -> Self {
        self.envs.retain(|(there, _)| there != name);
        self.envs.push((name.to_owned(), value.to_owned()));
        self
    }

    /// In a network namespace.
    pub(crate) fn inside(mut self, namespace: &str) -> Self {
        self.inside = Some(namespace.to_owned());
        self
    }

    /// As on a kernel without Landlock, from which on the engine is not fully locked up.
    pub(crate) fn without_landlock(mut self) -> Self {
        self.without_landlock = true;
        self
    }

    /// Whether it is in this namespace.
    pub(crate) fn is_inside(&self, namespace: &str) -> bool {
        self.inside.as_deref() == Some(namespace)
    }

    /// With its data elsewhere than in a temporary directory.
    pub(crate) fn data(mut self, dir: &Path) -> Self {
        self.data = Some(dir.to_path_buf());
        self
    }

    /// The data directory.
    pub(crate) fn dir(&self) -> &Path {
        self.data.as_deref().unwrap_or(self.dir.path())
    }

    /// `myzel --data-dir … args`, in the node's environment.
    pub(crate) fn command(&self, args: &[&str]) -> Command {
        let mut command = match &self.inside {
            // This program replaces itself, so the process id is the node's.
            Some(namespace) => {
                let mut ip = Command::new("ip");
                ip.args(["netns", "exec", namespace, BINARY]);
                ip
            }
            None => Command::new(BINARY),
        };
        for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("MYZEL_")) {
            command.env_remove(name);
        }
        command.envs(self.envs.iter().map(|(name, value)| (name, value)));
        command
            .arg("--data-dir")
            .arg(self.dir())
            .args(args)
            .stdin(Stdio::null());
        command
    }

    /// Runs a command of the binary to its end.
    pub(crate) fn run(&self, args: &[&str]) -> Output {
        self.command(args).output().expect("the binary starts")
    }

    /// The output of a command that must succeed.
    pub(crate) fn cli(&self, args: &[&str]) -> String {
        let output = self.run(args);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{args:?} failed: {said}");
        String::from_utf8(output.stdout).expect("the output is text")
    }

    /// What a command says that must fail, with exit code 1 and without output.
    pub(crate) fn cli_fails(&self, args: &[&str]) -> String {
        failed(&self.run(args))
    }

    fn up_args(&self) -> Vec<&str> {
        std::iter::once("up")
            .chain(self.args.iter().map(String::as_str))
            .collect()
    }

    /// Starts the node, which must refuse; returns what it says.
    pub(crate) fn refused(&self) -> String {
        let command = self
            .command(&self.up_args())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn();
        let mut child = command.expect("the binary starts");
        let pid = child.id();
        // Its few lines fit into the pipes, so they can be read at the end.
        let ended = settles(PATIENCE, || {
            child.try_wait().expect("it can be waited for").is_some()
        });
        if !ended {
            child.kill().expect("it is ours");
        }
        let output = child.wait_with_output().expect("its output can be read");
        assert!(
            ended,
            "the node runs though it should refuse: {}",
            String::from_utf8_lossy(&output.stderr)
        );
        assert!(
            settles(BURIAL, || engine_hosts(pid).is_empty()),
            "an engine-host is left behind"
        );
        failed(&output)
    }

    /// Starts the process.
    pub(crate) fn start(&self) -> Node {
        let mut command = self.command(&self.up_args());
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = if self.without_landlock {
            // A filter holds for a thread and what that starts, so this thread is for the filter alone.
            let start = move || {
                hide_landlock();
                command.spawn()
            };
            std::thread::spawn(start)
                .join()
                .expect("the filter is installed")
        } else {
            command.spawn()
        }
        .expect("it starts");
        let (out, err) = (Lines::default(), Lines::default());
        out.collect(child.stdout.take().expect("it is piped"));
        err.collect(child.stderr.take().expect("it is piped"));
        let (url, ticket) = (String::new(), String::new());
        Node {
            setup: self.clone(),
            pid: child.id(),
            child,
            out,
            err,
            url,
            ticket,
        }
    }

    /// Starts the node and waits for its `ready`.
    pub(crate) async fn up(&self) -> Node {
        let mut node = self.start();
        node.ready().await;
        node
    }
}

/// Makes the calling thread, and every process that it starts, believe that the kernel has no Landlock.
fn hide_landlock() {
    use nix::libc;
    use seccompiler::{BpfProgram, SeccompAction, SeccompFilter, TargetArch, apply_filter};
    let calls = [
        libc::SYS_landlock_create_ruleset,
        libc::SYS_landlock_add_rule,
        libc::SYS_landlock_restrict_self,
    ];
    let rules = calls.map(|call| (call, Vec::new())).into();
    let missing = SeccompAction::Errno(libc::ENOSYS.unsigned_abs());
    let arch = TargetArch::try_from(std::env::consts::ARCH).expect("a known architecture");
    let filter = SeccompFilter::new(rules, SeccompAction::Allow, missing, arch);
    let program = filter
        .and_then(BpfProgram::try_from)
        .expect("a small filter");
    apply_filter(&program).expect("the kernel takes the filter");
}

fn failed(output: &Output) -> String {
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(
        output.status.code(),
        Some(1),
        "it should fail with code 1: {said}"
    );
    assert_eq!(
        String::from_utf8_lossy(&output.stdout),
        "",
        "a failure prints nothing to standard output"
    );
    assert!(said.contains("error: "), "{said}");
    said
}

/// Asserts that a text has each of these parts.
pub(crate) fn says(text: &str, parts: &[&str]) {
    for part in parts {
        assert!(text.contains(part), "{part:?} is not in: {text}");
    }
}

/// The lines that a process has printed so far.
#[derive(Debug, Clone, Default)]
struct Lines(Arc<Mutex<Vec<String>>>);

impl Lines {
    /// Collects lines in a thread, which ends with the pipe.
    fn collect(&self, pipe: impl Read + Send + 'static) {
        let lines = self.0.clone();
        std::thread::spawn(move || {
            for line in BufReader::new(pipe).lines().map_while(Result::ok) {
                lines.lock().expect("no panic while pushing").push(line);
            }
        });
    }

    fn all(&self) -> Vec<String> {
        self.0.lock().expect("no panic while pushing").clone()
    }
}

/// A running node. Dropping it kills it, and asserts that nothing of it is left.
pub(crate) struct Node {
    setup: Setup,
    child: Child,
    pub(crate) pid: u32,
    out: Lines,
    err: Lines,
    /// The endpoint, once ready.
    pub(crate) url: String,
    /// The ticket, once ready.
    pub(crate) ticket: String,
}

impl Node {
    /// Waits for the line beginning with `ready`.
    pub(crate) async fn ready(&mut self) {
        let (out, child) = (self.out.clone(), &mut self.child);
        let line = eventually("the node is ready", || {
            let line = out.all().into_iter().next();
            let ended = child.try_wait().expect("it can be waited for");
            assert!(
                line.is_some() || ended.is_none(),
                "the node ended before it was ready: {ended:?}"
            );
            async { line }
        })
        .await;
        let words: Vec<&str> = line.split(' ').collect();
        let ["ready", url, "ticket", ticket] = words[..] else {
            panic!("not a ready line: {line}")
        };
        (self.url, self.ticket) = (url.to_owned(), ticket.to_owned());
    }

    /// Waits until it is ready, or has ended; then what it said.
    pub(crate) async fn ready_or_gone(&mut self) -> Option<String> {
        let (out, child) = (self.out.clone(), &mut self.child);
        let ready = eventually("the node is ready, or has ended", || {
            let ready = !out.all().is_empty();
            let ended = child.try_wait().expect("it can be waited for").is_some();
            async move { (ready || ended).then_some(ready) }
        });
        match ready.await {
            true => {
                self.ready().await;
                None
            }
            false => Some(self.said()),
        }
    }

    /// How it was started.
    pub(crate) fn setup(&self) -> &Setup {
        &self.setup
    }

    /// What it has printed to standard output.
    pub(crate) fn printed(&self) -> Vec<String> {
        self.out.all()
    }

    /// A client of its endpoint, for its model.
    pub(crate) fn client(&self) -> Client {
        Client::new(&self.url, &self.status().model.name)
    }

    /// What `myzel status --json` says.
    pub(crate) fn status(&self) -> Status {
        let text = self.setup.cli(&["status", "--json"]);
        serde_json::from_str(&text).expect("the status is JSON")
    }

    /// Its key.
    pub(crate) fn id(&self) -> NodeId {
        self.status().node
    }

    /// Waits until its status is as wanted.
    pub(crate) async fn status_when(&self, what: &str, wanted: impl Fn(&Status) -> bool) -> Status {
        eventually(what, || {
            let status = self.status();
            let found = wanted(&status).then_some(status);
            async { found }
        })
        .await
    }

    /// Waits until its ring is up and answers go over it.
    pub(crate) async fn ring_up(&self) -> Status {
        self.status_when("the ring is up", |status| {
            status.ring.as_ref().is_some_and(|ring| ring.state == "up")
                && status.answers == node::status::Answers::Ring
        })
        .await
    }

    /// Its living engine-hosts.
    pub(crate) fn engine_hosts(&self) -> Vec<u32> {
        engine_hosts(self.pid)
    }

    /// Sends it a signal.
    pub(crate) fn signal(&self, which: Signal) {
        signal(self.pid, which);
    }

    /// Kills it as a power cut would, and waits until it is gone.
    pub(crate) fn kill9(&mut self) {
        self.signal(Signal::SIGKILL);
        self.child.wait().expect("it can be waited for");
    }

    /// Sends a signal and waits for the end.
    pub(crate) fn end_by(&mut self, which: Signal) -> (ExitStatus, Duration) {
        let begun = Instant::now();
        self.signal(which);
        let mut status = None;
        settles(PATIENCE, || {
            status = self.child.try_wait().expect("it can be waited for");
            status.is_some()
        });
        (
            status.expect("the node ends after a signal"),
            begun.elapsed(),
        )
    }

    /// What it has said on standard error.
    pub(crate) fn said(&self) -> String {
        self.err.all().join("\n")
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        if lives(self.pid) {
            // SIGKILL strikes a stopped process, too.
            let _ = self.child.kill();
        }
        let _ = self.child.wait();
        let clean = settles(BURIAL, || engine_hosts(self.pid).is_empty());
        if std::thread::panicking() {
            eprintln!("-- node {} said:\n{}", self.pid, self.said());
        } else {
            assert!(
                clean,
                "engine-hosts are left behind: {:?}",
                engine_hosts(self.pid)
            );
        }
    }
}
