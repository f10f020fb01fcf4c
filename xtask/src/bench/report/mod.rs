//! The page that a run writes: figures in, Markdown out.

mod bars;
mod beyond;
mod method;

use super::llama_server::LlamaServer;
use super::many::Burst;
use super::ours::Ours;
use super::phases::All;
use super::rounds::Figures;
use super::subject::Subject;
use crate::rig::MIB;
use crate::rig::machine::Machine;
use crate::rig::memory::Memory;
use crate::rig::table::Table;

/// Everything that the page says.
#[derive(Debug, Clone, Copy)]
pub(super) struct Facts<'a> {
    /// The command that was given.
    pub(super) command: &'a str,
    /// How often each server was asked.
    pub(super) rounds: usize,
    /// Where.
    pub(super) machine: &'a Machine,
    /// The peer.
    pub(super) peer: &'a LlamaServer,
    /// The product.
    pub(super) ours: &'a Ours,
    /// What was measured.
    pub(super) figures: &'a All,
}

/// The whole page. A phase that was not run has no section.
pub(super) fn page(facts: &Facts<'_>) -> String {
    let all = facts.figures;
    let mut parts = vec![facts.machine.opening(
        "Benchmarks",
        facts.command,
        &format!("{} rounds", facts.rounds),
    )];
    let bars = all_bars(all);
    let mut add = |is: bool, title: &str, text: &str, table: String| {
        if is {
            parts.push(section(title, text, &table));
        }
    };
    add(
        !bars.is_empty(),
        "Against the bars",
        BARS,
        bars::table(&bars),
    );
    let had_single = !all.single.is_empty();
    add(had_single, "Single nodes", SINGLE, figures(&all.single));
    add(had_single, "Memory", MEMORY, memory_table(&all.memory));
    let had_streams = !all.streams.is_empty();
    add(had_streams, "Many at once", STREAMS, bursts(&all.streams));
    let (rings, rpc) = (all.rings.concat(), &all.rpc);
    add(
        !rings.is_empty(),
        "Rings on loopback",
        RINGS,
        figures(&rings),
    );
    add(
        !rpc.is_empty(),
        "Rings beside llama.cpp's RPC",
        RPC,
        bursts(rpc),
    );
    let [alone, busy] = &all.beside;
    let (chosen, beside) = ("Threads as each chooses, alone", BUSY_TITLE);
    add(!alone.is_empty(), chosen, CHOSEN, figures(alone));
    add(!busy.is_empty(), beside, BESIDE, figures(busy));
    let agreement = beyond::agreement(&all.agreement);
    add(
        !all.agreement.is_empty(),
        "The same answers",
        beyond::AGREEMENT,
        agreement,
    );
    if let Some(overhead) = &all.overhead {
        add(
            true,
            "What HTTP adds",
            beyond::OVERHEAD,
            beyond::overhead(overhead),
        );
    }
    parts.extend([method::method(facts), method::versions(facts)]);
    parts.join("\n")
}

fn all_bars(all: &All) -> Vec<bars::Bar> {
    let mut found = bars::single(&all.single);
    found.extend(bars::memory(&all.single, &all.memory));
    found.extend(all.streams.iter().flat_map(|group| bars::streams(group)));
    found.extend(all.rings.iter().flat_map(|group| bars::rings(group)));
    found.extend(all.rpc.iter().flat_map(|group| bars::rpc(group)));
    found.extend(bars::beside(&all.beside[1]));
    found
}

const BARS: &str = "\
A ratio is taken round by round between answers of the same round; it is the median of these, with the least and \
the greatest in parentheses. Single nodes and memory are compared at the number of threads that is best for each; rings \
beside RPC at as many threads a process, where the bar is, and at the best for each. A bar is met when the median meets it.";
const SINGLE: &str = "Tokens a second. The first token's time is that of the short prompt.";
const MEMORY: &str = "\
Of all processes of a server, after the same requests, each alone on the machine. The proportional set (PSS) \
counts a page that two processes share once; the resident set (RSS) counts it twice.";
const STREAMS: &str = "\
As many connections as are said, each asked one question of its own; every server has as many slots, of the same \
context. Total: tokens of all answers by the time from the first request to the last token. First token: the median \
over the streams of a round. Answered: tokens that came of those that were asked for.";
const RINGS: &str = "\
All processes on this machine, so that a ring shares the cores which a single node has for itself; exact mode.";
const RPC: &str = "\
As above; all processes on this machine. Ours in exact mode, the default of rings; llama-server with as many RPC \
workers as we have remote stages, which hold all layers. The threads are those of every process.";
const CHOSEN: &str = "Neither is told a number of threads.";
const BUSY_TITLE: &str = "Threads as each chooses, beside a core kept busy";
const BESIDE: &str = "The same, while a program in an endless loop keeps one core busy.";

fn section(title: &str, text: &str, table: &str) -> String {
    format!("## {title}\n\n{text}\n\n{table}")
}

fn figures(figures: &[Figures]) -> String {
    let mut table = Table::new(&["server", "threads", "decode", "prefill", "first token, ms"]);
    for Figures {
        subject,
        decode,
        prefill,
        first_ms,
        ..
    } in figures
    {
        table.row([
            subject.to_string(),
            subject.threads(),
            decode.to_string(),
            format!("{prefill:.0}"),
            format!("{first_ms:.0}"),
        ]);
    }
    table.to_string()
}

fn memory_table(memory: &[(Subject, Memory)]) -> String {
    let mut table = Table::new(&["server", "threads", "PSS, MiB", "RSS, MiB"]);
    for (
        subject,
        Memory {
            resident,
            proportional,
        },
    ) in memory
    {
        let mib = |bytes: u64| format!("{:.0}", bytes as f64 / MIB);
        table.row([
            subject.to_string(),
            subject.threads(),
            mib(*proportional),
            mib(*resident),
        ]);
    }
    table.to_string()
}

fn bursts(groups: &[Vec<Burst>]) -> String {
    let mut table = Table::new(&[
        "server",
        "at once",
        "threads",
        "total",
        "first token, ms",
        "answered",
    ]);
    for Burst {
        subject,
        total,
        first_ms,
        answered,
        ..
    } in groups.iter().flatten()
    {
        table.row([
            subject.to_string(),
            subject.slots.to_string(),
            subject.threads(),
            total.to_string(),
            format!("{first_ms:.0}"),
            format!("{:.0} %", answered * 100.0),
        ]);
    }
    table.to_string()
}

#[cfg(test)]
mod tests {
    use super::super::subject::Cache;
    use super::*;
    use crate::rig::stats::Series;
    use proto::host::Loaded;
    use proto::model::Numerics;

    fn figures(subject: Subject, decode: f64) -> Figures {
        let series = |value: f64| Series::new(vec![value; 3]);
        let (prefill, first_ms) = (series(decode * 8.0), series(50.0));
        Figures {
            subject,
            decode: series(decode),
            prefill,
            first_ms,
            prompt_tokens: (36, 1_100),
        }
    }

    fn burst(subject: Subject, total: f64) -> Burst {
        Burst {
            subject: subject.with_slots(8),
            total: Series::new(vec![total; 3]),
            first_ms: Series::new(vec![250.0; 3]),
            answered: 0.985,
            prompt_tokens: (70, 75),
        }
    }

    fn all() -> All {
        let node = |numerics| Subject::node(numerics, Some(2));
        let peer = Subject::llama_server(Some(2));
        let (numerics, threads) = (Numerics::Exact, Some(2));
        let ring = |remote| Subject::ring(numerics, threads, remote);
        let rpc = |cache, workers| Subject::llama_rpc(cache, threads, workers);
        let sized = |bytes: u64| Memory {
            resident: bytes << 20,
            proportional: bytes << 20,
        };
        let chosen = |ours| {
            vec![
                figures(Subject::node(Numerics::Throughput, None), ours),
                figures(Subject::llama_server(None), 100.0),
            ]
        };
        All {
            peer_features: "CPU : AVX2 = 1 | OPENMP = 1".to_owned(),
            single: vec![
                figures(node(Numerics::Throughput), 96.0),
                figures(peer, 100.0),
                figures(node(numerics), 90.0),
            ],
            memory: vec![(node(Numerics::Throughput), sized(110)), (peer, sized(100))],
            rings: vec![vec![
                figures(ring(0), 90.0),
                figures(ring(1), 70.0),
                figures(ring(2), 60.0),
            ]],
            beside: [chosen(100.0), chosen(210.0)],
            trial: vec![
                burst(rpc(Cache::Parted, 0), 301.0),
                burst(rpc(Cache::Unified, 0), 305.0),
            ],
            streams: vec![vec![
                burst(node(Numerics::Throughput), 333.0),
                burst(rpc(Cache::Unified, 0), 300.0),
            ]],
            rpc: vec![vec![
                burst(ring(1), 120.0),
                burst(rpc(Cache::Unified, 1), 100.0),
            ]],
            agreement: Vec::new(),
            overhead: None,
        }
    }

    fn page_of(figures: &All, busy: f64) -> String {
        let machine = Machine {
            date: "2026-01-02".into(),
            cpu: "A CPU".into(),
            cores: 2,
            memory_bytes: 8 << 30,
            kernel: "6.1".into(),
            system: "A system".into(),
            compiler: "cc 12".into(),
            revision: "abc".into(),
            busy,
        };
        let peer = LlamaServer {
            program: "/secret/place/llama-server".into(),
            version: "version: 1".into(),
            flags: "-x",
            rpc: None,
        };
        let loaded = Loaded {
            build: "an engine".into(),
            cpu_class: "x86_64 AVX2".into(),
            architecture: "llama".into(),
            kv_type: "f16".into(),
            embedding_length: 1,
            vocabulary: 1,
            positions_max: 1,
            sessions_max: 1,
            positions_trained: 1,
            flash_attention: true,
            sandbox: proto::host::Sandbox::default(),
        };
        let ours = Ours {
            myzel: "/secret/place/myzel".into(),
            model: "/secret/place/m.gguf".into(),
            version: "myzel 1".into(),
            loaded,
        };
        page(&Facts {
            command: "cargo xtask bench",
            rounds: 3,
            machine: &machine,
            peer: &peer,
            ours: &ours,
            figures,
        })
    }

    #[test]
    fn the_page_says_what_was_found_where_and_how() {
        let page = page_of(&all(), 0.0);
        for text in [
            "`cargo xtask bench`",
            "A CPU, 2 cores, 8.0 GiB",
            "0.96 (0.96–0.96) | ≥ 1   | **missed**",
            "0.78 (0.78–0.78) | ≥ 0.9 | **missed**",
            "1.10 (1.10–1.10) | ≤ 1.1 | met",
            "1.11 (1.11–1.11) | ≥ 1   | met",
            "1.20 (1.20–1.20) | ≥ 1.5 | **missed**",
            "2.10 (2.10–2.10) | ≥ 2   | met",
            "| 8       | 2       | 333.0 (333.0–333.0) | 250 (250–250)   | 98 %     |",
            "`--no-kv-unified` 301.0 (301.0–301.0), `--kv-unified` 305.0 (305.0–305.0)",
            "ggml-rpc-server --host 127.0.0.1 --port PORT --threads 2",
            "--rpc WORKERS --gpu-layers 99",
            "myzel up --api 127.0.0.1:PORT",
            "llama-server --host 127.0.0.1 --port PORT",
            "x86_64 AVX2",
            "CPU : AVX2 = 1 | OPENMP = 1",
            "an answer of 128 tokens to a prompt of 36",
        ] {
            assert!(page.contains(text), "{text:?} is not in\n{page}");
        }
    }

    #[test]
    fn a_part_of_a_run_has_only_its_sections() {
        let part = All {
            rpc: all().rpc,
            ..All::default()
        };
        let page = page_of(&part, 0.0);
        assert!(page.contains("## Rings beside llama.cpp's RPC"), "{page}");
        for title in [
            "## Single nodes",
            "## Memory",
            "## Many at once",
            "## Rings on loopback",
            "## Threads as each",
        ] {
            assert!(!page.contains(title), "{title} is in\n{page}");
        }
    }

    #[test]
    fn no_path_of_the_machine_is_on_the_page() {
        assert!(!page_of(&all(), 0.0).contains("/secret"));
    }

    #[test]
    fn a_busy_machine_is_named() {
        assert!(!page_of(&all(), 0.02).contains("Preliminary"));
        assert!(page_of(&all(), 0.5).contains("other programs used 50 %"));
    }
}
