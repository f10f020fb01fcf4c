//! What is measured, and with which flags.

use std::fmt;

use proto::model::Numerics;

/// Positions of each request's context.
const CONTEXT: u32 = 2_048;
/// Requests computed at once.
const SLOTS: u32 = 4;

/// A server, or a ring of servers, in one setting.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Subject {
    /// Ours.
    Myzel {
        /// The numerics mode.
        numerics: Numerics,
        /// Threads of each process; `None` leaves it to the program.
        threads: Option<u32>,
        /// Remote stages; 0 is the whole model in one node.
        remote: u32,
    },
    /// The peer.
    LlamaServer {
        /// Threads; `None` leaves it to the program.
        threads: Option<u32>,
    },
}

impl Subject {
    /// A single node of ours.
    pub(super) fn node(numerics: Numerics, threads: Option<u32>) -> Self {
        Self::Myzel {
            numerics,
            threads,
            remote: 0,
        }
    }

    /// How many remote stages it has.
    pub(super) fn remote(&self) -> u32 {
        match self {
            Self::Myzel { remote, .. } => *remote,
            Self::LlamaServer { .. } => 0,
        }
    }

    /// Its threads, in words.
    pub(super) fn threads(&self) -> String {
        let (Self::Myzel { threads, .. } | Self::LlamaServer { threads }) = self;
        threads.map_or_else(|| "default".to_owned(), |threads| threads.to_string())
    }

    /// The arguments that start it, with the model's file and the port to listen on.
    pub(super) fn args(&self, model: &str, port: &str) -> Vec<String> {
        let line = match self {
            Self::Myzel { .. } => format!("up --api 127.0.0.1:{port} --listen 127.0.0.1:0"),
            Self::LlamaServer { .. } => format!(
                "--host 127.0.0.1 --port {port} --ctx-size {} --parallel {SLOTS} --no-kv-unified \
                 --cache-ram 0 --no-webui --offline",
                CONTEXT * SLOTS
            ),
        };
        let mut args: Vec<String> = line.split_whitespace().map(str::to_owned).collect();
        let mut add = |name: &str, value: String| args.extend([name.to_owned(), value]);
        add("--model", model.to_owned());
        match self {
            Self::Myzel {
                numerics,
                threads,
                remote,
            } => {
                add("--context", CONTEXT.to_string());
                add("--sessions", SLOTS.to_string());
                add("--numerics", word(*numerics).to_owned());
                if let Some(threads) = threads {
                    add("--threads", threads.to_string());
                }
                if *remote > 0 {
                    add("--split", remote.to_string());
                }
            }
            Self::LlamaServer { threads } => {
                if let Some(threads) = threads {
                    add("--threads", threads.to_string());
                    add("--threads-batch", threads.to_string());
                }
            }
        }
        args
    }
}

/// The mode as the command line calls it.
fn word(numerics: Numerics) -> &'static str {
    match numerics {
        Numerics::Exact => "exact",
        Numerics::Throughput => "throughput",
    }
}

impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Myzel {
                numerics,
                remote: 0,
                ..
            } => write!(f, "myzel, {}", word(*numerics)),
            Self::Myzel {
                numerics, remote, ..
            } => {
                write!(f, "myzel, {}, ring over {remote} remote", word(*numerics))
            }
            Self::LlamaServer { .. } => f.write_str("llama-server"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(subject: Subject, has: &[&str], has_not: &[&str]) {
        let line = subject.args("m.gguf", "1").join(" ");
        for text in has {
            assert!(line.contains(text), "{text} in {line}");
        }
        for text in has_not {
            assert!(!line.contains(text), "{text} in {line}");
        }
    }

    #[test]
    fn both_get_the_same_context_and_slots() {
        let ours = Subject::node(Numerics::Throughput, Some(2));
        check(
            ours,
            &[
                "--context 2048",
                "--sessions 4",
                "--threads 2",
                "throughput",
            ],
            &["--split"],
        );
        let theirs = Subject::LlamaServer { threads: Some(2) };
        check(
            theirs,
            &[
                "--ctx-size 8192",
                "--parallel 4",
                "--threads 2",
                "--threads-batch 2",
            ],
            &[],
        );
    }

    #[test]
    fn threads_are_named_only_when_they_are_fixed() {
        check(
            Subject::node(Numerics::Exact, None),
            &["exact"],
            &["--threads"],
        );
        check(Subject::LlamaServer { threads: None }, &[], &["--threads"]);
        assert_eq!(Subject::LlamaServer { threads: None }.threads(), "default");
    }

    #[test]
    fn a_ring_says_over_how_many() {
        let ring = Subject::Myzel {
            numerics: Numerics::Exact,
            threads: Some(1),
            remote: 2,
        };
        check(ring, &["--split 2"], &[]);
        assert_eq!(ring.to_string(), "myzel, exact, ring over 2 remote");
    }
}
