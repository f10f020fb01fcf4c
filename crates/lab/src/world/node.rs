//! A node of ours on a machine: how it is started, and what it says of itself.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde_json::Value;

use super::ground::run;
use super::{Machine, Process};
use crate::wait;

/// How long a node may load until it is ready, and a ring until it is up.
const READY_MAX: Duration = Duration::from_secs(120);
/// Variables that begin like this are settings of whoever runs us; they must not reach a node.
const SETTINGS: [&str; 5] = ["MYZEL_", "LLAMA_", "OMP_", "GOMP_", "GGML_"];
/// How many characters of a log an error quotes.
const TAIL_CHARS: usize = 600;

/// How a node is started. The same one can be started again, with the data that it left.
#[derive(Debug, Clone)]
pub struct Setup {
    machine: Machine,
    binary: PathBuf,
    data: PathBuf,
    args: Vec<String>,
    envs: Vec<(String, String)>,
}

impl Setup {
    /// A node with the machine's name, one thread, and nothing to be fetched from anywhere.
    pub(super) fn new(machine: &Machine, binary: &Path) -> Self {
        let data = machine.dir().join("data");
        let setup = Self {
            machine: machine.clone(),
            binary: binary.to_path_buf(),
            args: Vec::new(),
            envs: Vec::new(),
            data,
        };
        let home = setup.data.display().to_string();
        setup
            .arg("--name", machine.name())
            .arg("--api", "127.0.0.1:0")
            .arg("--listen", &format!("{}:0", machine.addr()))
            .arg("--threads", "1")
            .env("XDG_DATA_HOME", &home)
            .env("HF_ENDPOINT", "http://127.0.0.1:9")
            .env("PIP_NO_INDEX", "1")
            .env("PIP_FIND_LINKS", "")
    }

    /// Adds an option of `myzel up`; one given before is replaced.
    pub fn arg(mut self, name: &str, value: &str) -> Self {
        if let Some(at) = self.args.iter().position(|arg| arg == name) {
            self.args.drain(at..at + 2);
        }
        self.args.extend([name.to_owned(), value.to_owned()]);
        self
    }

    /// Adds a variable of the environment; one given before is replaced.
    pub fn env(mut self, name: &str, value: &str) -> Self {
        self.envs.retain(|(there, _)| there != name);
        self.envs.push((name.to_owned(), value.to_owned()));
        self
    }

    /// The model: a file, or a name of the catalogue.
    pub fn model(self, model: &str) -> Self {
        self.arg("--model", model)
    }

    /// The data directory, such as a [`Machine::disk`].
    pub fn data(mut self, dir: &Path) -> Self {
        self.data = dir.to_path_buf();
        self
    }

    /// Spreads the model over so many other nodes.
    pub fn split(self, stages: u32) -> Self {
        self.arg("--split", &stages.to_string())
    }

    /// With the numerics whose bits depend on nothing else.
    pub fn exact(self) -> Self {
        self.arg("--numerics", "exact")
    }

    /// Joins the commons of another node.
    pub fn join(self, node: &Node) -> Self {
        self.arg("--join", node.ticket())
    }

    /// `myzel --data-dir … args`, on the machine and in the node's environment.
    pub fn command(&self, args: &[&str]) -> Command {
        let mut command = self.machine.command(&self.binary);
        for (name, _) in std::env::vars_os() {
            let text = name.to_string_lossy();
            if SETTINGS.iter().any(|prefix| text.starts_with(prefix)) {
                command.env_remove(name);
            }
        }
        command
            .envs(self.envs.iter().map(|(name, value)| (name, value)))
            .arg("--data-dir")
            .arg(&self.data)
            .args(args);
        command
    }

    /// Starts the node and waits until it is ready.
    ///
    /// # Errors
    ///
    /// When it does not become ready; the error quotes its log.
    pub fn up(&self) -> Result<Node> {
        let args: Vec<&str> = ["up"]
            .into_iter()
            .chain(self.args.iter().map(String::as_str))
            .collect();
        let mut process = self.machine.start("myzel", &mut self.command(&args))?;
        let what = format!("the node {} is ready", self.machine.name());
        let (api, ticket) = wait::until(READY_MAX, &what, || {
            let printed = process.printed()?;
            if let Some((line, _)) = printed.split_once('\n') {
                return ready(line).map(Some);
            }
            if let Some(status) = process.ended()? {
                bail!("the node ended with {status}: {}", tail(&process.said()));
            }
            Ok(None)
        })?;
        Ok(Node {
            setup: self.clone(),
            process,
            api,
            ticket,
        })
    }
}

/// A node that runs. It is killed when this is dropped.
#[derive(Debug)]
pub struct Node {
    setup: Setup,
    process: Process,
    api: SocketAddr,
    ticket: String,
}

impl Node {
    /// Where it answers, inside its machine.
    pub fn api(&self) -> SocketAddr {
        self.api
    }

    /// How another joins it.
    pub fn ticket(&self) -> &str {
        &self.ticket
    }

    /// The machine that it runs on.
    pub fn machine(&self) -> &Machine {
        &self.setup.machine
    }

    /// How it was started.
    pub fn setup(&self) -> &Setup {
        &self.setup
    }

    /// Its process: to be killed, frozen, thawed, ended.
    pub fn process(&mut self) -> &mut Process {
        &mut self.process
    }

    /// What a command of the binary prints, given its data directory.
    ///
    /// # Errors
    ///
    /// When it fails, with what it said.
    pub fn cli(&self, args: &[&str]) -> Result<String> {
        run(&mut self.setup.command(args), "see its message")
    }

    /// What `myzel status --json` says.
    ///
    /// # Errors
    ///
    /// When it does not say.
    pub fn status(&self) -> Result<Value> {
        let text = self.cli(&["status", "--json"])?;
        serde_json::from_str(&text).context("what `status --json` printed")
    }

    /// Waits until its answers go over its ring.
    ///
    /// # Errors
    ///
    /// When they never do; the error quotes its log.
    pub fn ring_up(&self) -> Result<()> {
        let what = format!("{} answers over its ring", self.machine().name());
        let up = wait::until(READY_MAX, &what, || {
            let status = self.status()?;
            let is_up = status["answers"] == "ring" && status["ring"]["state"] == "up";
            Ok(is_up.then_some(()))
        });
        up.with_context(|| tail(&self.process.said()))
    }
}

/// Reads `ready http://ADDR/v1 ticket TICKET`.
fn ready(line: &str) -> Result<(SocketAddr, String)> {
    let parts = || {
        let (url, ticket) = line.strip_prefix("ready ")?.split_once(" ticket ")?;
        let addr = url.strip_prefix("http://")?.strip_suffix("/v1")?;
        Some((addr.parse().ok()?, ticket.trim().to_owned()))
    };
    parts().with_context(|| format!("not a ready line: {line:?}"))
}

/// The end of a log.
fn tail(log: &str) -> String {
    let log = log.trim();
    let skipped = log.chars().count().saturating_sub(TAIL_CHARS);
    match log.chars().skip(skipped).collect::<String>() {
        text if text.is_empty() => "it left no words".to_owned(),
        text => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ready_line_is_read() {
        let (api, ticket) = ready("ready http://127.0.0.1:7717/v1 ticket myzel1abc").unwrap();
        assert_eq!((api.port(), ticket.as_str()), (7717, "myzel1abc"));
        for line in ["", "ready", "ready http://127.0.0.1:7717/v1", "error: no"] {
            assert!(ready(line).is_err(), "{line}");
        }
    }

    #[test]
    fn a_tail_is_the_end_of_a_log() {
        assert_eq!(tail(" \n"), "it left no words");
        assert_eq!(tail("a\nb\n"), "a\nb");
        let long = "x".repeat(TAIL_CHARS) + "é";
        assert_eq!(tail(&long).chars().count(), TAIL_CHARS);
        assert!(tail(&long).ends_with('é'));
    }
}
