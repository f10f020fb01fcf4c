//! What is measured, and with which flags.

use std::fmt;

use proto::model::Numerics;

/// Positions of each request's context.
const CONTEXT: u32 = 2_048;
/// Requests computed at once where they are asked one at a time.
const SLOTS: u32 = 4;

/// Who answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// Ours.
    Myzel {
        /// The numerics mode.
        numerics: Numerics,
        /// Remote stages; 0 is the whole model in one node.
        remote: u32,
    },
    /// The peer.
    Llama {
        /// How it keeps the contexts of several requests.
        cache: Cache,
        /// Its workers (`rpc-server`) that hold the layers; 0 is the whole model in one process.
        workers: u32,
        /// Whether it may use flash attention, as it does unless told otherwise.
        flash: bool,
    },
}

/// How llama-server keeps the contexts of several requests.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Cache {
    /// Each in a part of its own.
    Parted,
    /// All in one, of the same total size.
    Unified,
}

/// A server, or a ring of servers, in one setting.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Subject {
    /// Who answers.
    pub(super) kind: Kind,
    /// Threads of each process; `None` leaves it to the program.
    pub(super) threads: Option<u32>,
    /// Requests computed at once.
    pub(super) slots: u32,
}

impl Subject {
    /// A single node of ours.
    pub(super) fn node(numerics: Numerics, threads: Option<u32>) -> Self {
        Self::ring(numerics, threads, 0)
    }

    /// A ring of ours over `remote` other nodes.
    pub(super) fn ring(numerics: Numerics, threads: Option<u32>, remote: u32) -> Self {
        Self::of(Kind::Myzel { numerics, remote }, threads)
    }

    /// The peer, in one process.
    pub(super) fn llama_server(threads: Option<u32>) -> Self {
        Self::llama_rpc(Cache::Parted, threads, 0)
    }

    /// The peer, its layers with `workers` other processes.
    pub(super) fn llama_rpc(cache: Cache, threads: Option<u32>, workers: u32) -> Self {
        Self::llama(cache, threads, workers, true)
    }

    /// The peer, in one process, without flash attention.
    pub(super) fn llama_plain(threads: Option<u32>) -> Self {
        Self::llama(Cache::Parted, threads, 0, false)
    }

    fn llama(cache: Cache, threads: Option<u32>, workers: u32, flash: bool) -> Self {
        let kind = Kind::Llama {
            cache,
            workers,
            flash,
        };
        Self::of(kind, threads)
    }

    fn of(kind: Kind, threads: Option<u32>) -> Self {
        Self {
            kind,
            threads,
            slots: SLOTS,
        }
    }

    /// The same, with room for so many requests at once.
    pub(super) fn with_slots(self, slots: u32) -> Self {
        Self { slots, ..self }
    }

    /// How many other processes hold layers: remote stages of ours, workers of the peer.
    pub(super) fn others(&self) -> u32 {
        match self.kind {
            Kind::Myzel { remote, .. } => remote,
            Kind::Llama { workers, .. } => workers,
        }
    }

    /// Whether it is ours.
    pub(super) fn is_ours(&self) -> bool {
        matches!(self.kind, Kind::Myzel { .. })
    }

    /// The peer's cache.
    pub(super) fn cache(&self) -> Option<Cache> {
        match self.kind {
            Kind::Myzel { .. } => None,
            Kind::Llama { cache, .. } => Some(cache),
        }
    }

    /// Its threads, in words.
    pub(super) fn threads(&self) -> String {
        self.threads
            .map_or_else(|| "default".to_owned(), |threads| threads.to_string())
    }

    /// The program that is started.
    pub(super) fn program(&self) -> &'static str {
        match self.kind {
            Kind::Myzel { .. } => "myzel",
            Kind::Llama { .. } => "llama-server",
        }
    }

    /// The arguments that start it, with the model's file, the port to listen on and the workers' addresses
    /// (nothing where there are none).
    pub(super) fn args(&self, model: &str, port: &str, workers: &str) -> Vec<String> {
        let mut args = Args::default();
        match self.kind {
            Kind::Myzel { numerics, remote } => {
                args.words(&format!(
                    "up --api 127.0.0.1:{port} --listen 127.0.0.1:0 --context {CONTEXT} --sessions {} --numerics {}",
                    self.slots,
                    word(numerics)
                ));
                args.option("--threads", self.threads);
                args.option("--split", Some(remote).filter(|remote| *remote > 0));
            }
            Kind::Llama {
                cache,
                workers: count,
                flash,
            } => {
                args.words(&format!(
                    "--host 127.0.0.1 --port {port} --ctx-size {} --parallel {} {} --cache-ram 0 --no-webui --offline",
                    CONTEXT * self.slots,
                    self.slots,
                    cache.flag()
                ));
                args.option("--threads", self.threads);
                args.option("--threads-batch", self.threads);
                args.option("--rpc", Some(workers).filter(|_| count > 0));
                args.option("--gpu-layers", Some(99).filter(|_| count > 0));
                args.option("--flash-attn", Some("off").filter(|_| !flash));
            }
        }
        // By itself: a path may have spaces.
        args.option("--model", Some(model));
        args.0
    }

    /// The arguments of one of the peer's workers.
    pub(super) fn worker_args(&self, port: &str) -> Vec<String> {
        let mut args = Args::default();
        args.words(&format!("--host 127.0.0.1 --port {port}"));
        args.option("--threads", self.threads);
        args.0
    }
}

/// A command line that grows.
#[derive(Debug, Default)]
struct Args(Vec<String>);

impl Args {
    fn words(&mut self, line: &str) {
        self.0.extend(line.split_whitespace().map(str::to_owned));
    }

    fn option(&mut self, name: &str, value: Option<impl ToString>) {
        if let Some(value) = value {
            self.0.extend([name.to_owned(), value.to_string()]);
        }
    }
}

impl Cache {
    /// The flag that asks for it.
    pub(super) fn flag(self) -> &'static str {
        match self {
            Self::Parted => "--no-kv-unified",
            Self::Unified => "--kv-unified",
        }
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
        match self.kind {
            Kind::Myzel { numerics, remote } => {
                write!(f, "myzel, {}", word(numerics))?;
                if remote > 0 {
                    write!(f, ", ring over {remote} remote")?;
                }
                Ok(())
            }
            Kind::Llama { flash: false, .. } => f.write_str("llama-server, no flash attention"),
            Kind::Llama { workers: 0, .. } => f.write_str("llama-server"),
            Kind::Llama { workers: 1, .. } => f.write_str("llama-server, RPC, 1 worker"),
            Kind::Llama { workers, .. } => write!(f, "llama-server, RPC, {workers} workers"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(subject: Subject, has: &[&str], has_not: &[&str]) {
        let line = subject.args("m.gguf", "1", "w:1").join(" ");
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
        check(ours.with_slots(16), &["--sessions 16"], &[]);
        let theirs = Subject::llama_server(Some(2));
        check(
            theirs,
            &[
                "--ctx-size 8192",
                "--parallel 4",
                "--no-kv-unified",
                "--threads 2",
                "--threads-batch 2",
            ],
            &["--rpc", "--gpu-layers"],
        );
        check(
            theirs.with_slots(16),
            &["--ctx-size 32768", "--parallel 16"],
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
        check(Subject::llama_server(None), &[], &["--threads"]);
        assert_eq!(Subject::llama_server(None).threads(), "default");
    }

    #[test]
    fn a_ring_says_over_how_many() {
        let ring = Subject::ring(Numerics::Exact, Some(1), 2);
        check(ring, &["--split 2"], &[]);
        assert_eq!(ring.to_string(), "myzel, exact, ring over 2 remote");
    }

    #[test]
    fn workers_hold_all_layers_and_have_the_same_threads() {
        let rpc = Subject::llama_rpc(Cache::Unified, Some(2), 2);
        check(
            rpc,
            &[
                "--rpc w:1",
                "--gpu-layers 99",
                " --kv-unified",
                "--threads 2",
            ],
            &["--no-kv-unified"],
        );
        assert_eq!(
            rpc.worker_args("7").join(" "),
            "--host 127.0.0.1 --port 7 --threads 2"
        );
        assert_eq!(rpc.to_string(), "llama-server, RPC, 2 workers");
    }
}
