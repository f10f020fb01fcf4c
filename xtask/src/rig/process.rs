//! A server's process with a log and a data directory of its own; and a node of ours, which says when it is ready.

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{ChildStdout, Command, Stdio};

use anyhow::{Context, Result, bail};
use serde_json::Value;
use tempfile::{NamedTempFile, TempDir};

use super::started::{Running, Started};

/// How many lines of a log an error quotes.
const TAIL_LINES: usize = 5;
/// Variables that begin like this are settings of whoever runs us; they must not reach a server.
const SETTINGS: [&str; 5] = ["MYZEL_", "LLAMA_", "OMP_", "GOMP_", "GGML_"];

/// A process with its log and its data directory.
#[derive(Debug)]
pub(crate) struct Process {
    // Fields are dropped in this order: the process first, then what it writes to.
    /// The process.
    pub(crate) running: Running,
    stdout: Option<BufReader<ChildStdout>>,
    log: NamedTempFile,
    dir: TempDir,
}

/// A node of ours that is ready.
#[derive(Debug)]
pub(crate) struct Node {
    /// Where it answers.
    pub(crate) addr: SocketAddr,
    /// How another joins it.
    pub(crate) ticket: String,
    /// Its process.
    pub(crate) process: Process,
}

impl Process {
    /// Starts a program.
    ///
    /// # Errors
    ///
    /// When it does not start.
    pub(crate) fn spawn(
        started: &Started,
        program: &Path,
        args: &[String],
        stdout: Stdio,
    ) -> Result<Self> {
        let (log, dir) = (NamedTempFile::new()?, TempDir::new()?);
        let mut command = Command::new(program);
        command
            .args(args)
            .stdin(Stdio::null())
            .stdout(stdout)
            .stderr(log.reopen()?);
        for (name, _) in std::env::vars_os() {
            let text = name.to_string_lossy();
            if SETTINGS.iter().any(|prefix| text.starts_with(prefix)) {
                command.env_remove(name);
            }
        }
        command
            .env("MYZEL_DATA_DIR", dir.path())
            .env("XDG_DATA_HOME", dir.path())
            // What is measured stays on this machine, and is alone on it.
            .env("MYZEL_LAN", "false")
            .env("MYZEL_DHT", "false")
            .env("MYZEL_RELAY", "off");
        let running = started.spawn(&mut command)?;
        Ok(Self {
            running,
            stdout: None,
            log,
            dir,
        })
    }

    /// Fails once the process has ended.
    ///
    /// # Errors
    ///
    /// Exactly then; the error quotes its log.
    pub(crate) fn check(&mut self) -> Result<()> {
        match self.running.try_wait()? {
            Some(status) => bail!("it ended with {status}: {}", self.tail()),
            None => Ok(()),
        }
    }

    /// The last lines of its log, in one.
    pub(crate) fn tail(&self) -> String {
        let text = std::fs::read(self.log.path()).unwrap_or_default();
        tail(&String::from_utf8_lossy(&text))
    }

    /// What `myzel status --json` says of it, a node of ours.
    ///
    /// # Errors
    ///
    /// When it does not say.
    pub(crate) fn status(&self, started: &Started, myzel: &Path) -> Result<Value> {
        let mut command = Command::new(myzel);
        command
            .arg("--data-dir")
            .arg(self.dir.path())
            .args(["status", "--json"]);
        let text = started.output(&mut command)?;
        serde_json::from_str(&text).context("what `status --json` printed")
    }
}

impl Node {
    /// Starts a node of ours and reads its `ready` line.
    ///
    /// # Errors
    ///
    /// When it does not become ready; the error quotes its log.
    pub(crate) fn start(started: &Started, myzel: &Path, args: &[String]) -> Result<Self> {
        let mut process = Process::spawn(started, myzel, args, Stdio::piped())?;
        let stdout = process.running.child.stdout.take();
        let mut stdout = BufReader::new(stdout.expect("the output is a pipe"));
        let mut line = String::new();
        stdout.read_line(&mut line)?;
        // Kept open: a node that cannot print would end.
        process.stdout = Some(stdout);
        match ready(&line) {
            Some((addr, ticket)) => Ok(Self {
                addr,
                ticket,
                process,
            }),
            None => bail!("it is not ready but says {line:?}: {}", process.tail()),
        }
    }
}

/// The last lines of a log, in one.
pub(crate) fn tail(log: &str) -> String {
    let lines: Vec<&str> = log
        .lines()
        .map(str::trim)
        .filter(|line| !line.is_empty())
        .collect();
    match lines.as_slice() {
        [] => "it left no words".to_owned(),
        lines => lines[lines.len().saturating_sub(TAIL_LINES)..].join(" / "),
    }
}

/// Reads `ready http://ADDR/v1 ticket TICKET`.
fn ready(line: &str) -> Option<(SocketAddr, String)> {
    let mut words = line.strip_prefix("ready ")?.split_whitespace();
    let addr = words
        .next()?
        .strip_prefix("http://")?
        .strip_suffix("/v1")?
        .parse()
        .ok()?;
    let ticket = words.skip_while(|word| *word != "ticket").nth(1)?;
    Some((addr, ticket.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ready_line_is_read() {
        let (addr, ticket) = ready("ready http://127.0.0.1:7717/v1 ticket myzel1abc\n").unwrap();
        assert_eq!((addr.port(), ticket.as_str()), (7717, "myzel1abc"));
        for line in [
            "",
            "ready",
            "ready http://127.0.0.1:7717/v1",
            "error: port taken",
        ] {
            assert_eq!(ready(line), None, "{line}");
        }
    }

    #[test]
    fn a_tail_is_the_end_of_a_log() {
        assert_eq!(tail("\n\n"), "it left no words");
        assert_eq!(tail("a\n b \n\n"), "a / b");
        assert_eq!(tail("1\n2\n3\n4\n5\n6\n7\n"), "3 / 4 / 5 / 6 / 7");
    }
}
