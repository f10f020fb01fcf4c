//! The page that a run writes: figures in, Markdown out.

mod bars;
mod table;

use std::fmt::Write;

use super::ANSWER_TOKENS;
use super::llama_server::{self, LlamaServer};
use super::machine::Machine;
use super::memory::Memory;
use super::ours::Ours;
use super::phases::All;
use super::rounds::Figures;
use super::subject::Subject;
use table::Table;

/// A machine this busy with other things disturbs what is measured on it.
const BUSY_MAX: f64 = 0.05;
/// Bytes of a MiB.
const MIB: f64 = (1u64 << 20) as f64;

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

/// The whole page.
pub(super) fn page(facts: &Facts<'_>) -> String {
    let All {
        single,
        memory,
        rings,
        beside,
        ..
    } = facts.figures;
    let mut bars = bars::single(single);
    bars.extend(rings.iter().flat_map(|group| bars::rings(group)));
    bars.extend(bars::memory(single, memory));
    [
        opening(facts),
        section("Against the bars", BARS, &bars::table(&bars)),
        section("Single nodes", SINGLE, &figures(single)),
        section("Memory", MEMORY, &memory_table(memory)),
        section("Rings on loopback", RINGS, &figures(&rings.concat())),
        section(
            "Threads as each chooses, alone",
            CHOSEN,
            &figures(&beside[0]),
        ),
        section(
            "Threads as each chooses, beside a core kept busy",
            BESIDE,
            &figures(&beside[1]),
        ),
        method(facts),
        versions(facts),
    ]
    .join("\n")
}

const BARS: &str = "\
A ratio is taken round by round between answers of the same round; it is the median of these, with the least and \
the greatest in parentheses. Single nodes and memory are compared at the number of threads that is best for each. \
A bar is met when the median meets it.";
const SINGLE: &str = "Tokens a second. The first token's time is that of the short prompt.";
const MEMORY: &str = "\
Of all processes of a server, after the same requests, each alone on the machine. The proportional set (PSS) \
counts a page that two processes share once; the resident set (RSS) counts it twice.";
const RINGS: &str = "\
All processes on this machine, so that a ring shares the cores which a single node has for itself; exact mode.";
const CHOSEN: &str = "Neither is told a number of threads.";
const BESIDE: &str =
    "The same, while a program in an endless loop keeps one core busy. For information.";

fn section(title: &str, text: &str, table: &str) -> String {
    format!("## {title}\n\n{text}\n\n{table}")
}

fn opening(facts: &Facts<'_>) -> String {
    let Machine {
        date,
        cpu,
        cores,
        memory_bytes,
        kernel,
        system,
        revision,
        busy,
        ..
    } = facts.machine;
    let mut text = format!(
        "# Benchmarks\n\nWritten by `{}`; do not edit by hand.\n\n\
         {date}, revision {revision}. {cpu}, {cores} cores, {:.1} GiB of memory, {system}, Linux {kernel}. \
         {} rounds.\n",
        facts.command,
        *memory_bytes as f64 / MIB / 1024.0,
        facts.rounds,
    );
    if *busy > BUSY_MAX {
        // Writing into a string cannot fail.
        let _ = write!(
            text,
            "\n**Preliminary:** other programs used {:.0} % of the machine just before the run.\n",
            busy * 100.0
        );
    }
    text
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

fn method(facts: &Facts<'_>) -> String {
    let all = facts.figures;
    let (short, long) = all
        .single
        .first()
        .map_or((0, 0), |figures| figures.prompt_tokens);
    let mut text = format!(
        "## How it was measured\n\n\
         - Over HTTP, streamed, one request at a time, one client for all; temperature 0. The same system and user \
         text for all; they came to the same number of tokens everywhere.\n\
         - Decode: tokens between the first and the last of an answer of {ANSWER_TOKENS} tokens to a prompt of \
         {short}, by the time between these two.\n\
         - Prefill: a prompt of about {long} tokens, new in every round, by the time to the first token of the answer.\n\
         - In each round every server is asked both, in turn, beginning with another one each time. One round before \
         the first is not counted.\n\
         - A ring is asked only while `myzel status` says that it answers.\n\n\
         Arguments, without repetitions for other threads:\n\n```text\n"
    );
    let mut seen = Vec::new();
    for one in all.single.iter().chain(all.rings.iter().flatten()) {
        let program = match one.subject {
            Subject::Myzel { .. } => "myzel",
            Subject::LlamaServer { .. } => "llama-server",
        };
        if !seen.contains(&one.subject.to_string()) {
            seen.push(one.subject.to_string());
            // Writing into a string cannot fail.
            let _ = writeln!(
                text,
                "{program} {}",
                one.subject.args("MODEL", "PORT").join(" ")
            );
        }
    }
    text.push_str("```\n\nFurther nodes of a ring have the same arguments with `--join TICKET` for `--split`.\n");
    text
}

fn versions(facts: &Facts<'_>) -> String {
    let Facts {
        peer,
        ours,
        machine,
        figures,
        ..
    } = facts;
    let options: Vec<&str> = llama_server::OPTIONS.into_iter().collect();
    format!(
        "## What was measured\n\n\
         - Model: SmolLM2-135M-Instruct, Q4_1, the starter model of the catalogue.\n\
         - {}, its engine: {}; CPU: `{}`\n\
         - llama-server, built from the llama.cpp tree in {} {} of PyPI: {}; CPU: `{}`\n\
         - Its options: `{}`, with `{}` for C and C++\n\
         - Compiler of both: {}\n",
        ours.version,
        ours.loaded.build,
        ours.loaded.cpu_class,
        llama_server::PACKAGE,
        llama_server::VERSION,
        peer.version,
        figures.peer_features,
        options.join(" "),
        peer.flags,
        machine.compiler,
    )
}

#[cfg(test)]
mod tests {
    use super::super::stats::Series;
    use super::*;
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

    fn all() -> All {
        let node = |numerics| Subject::node(numerics, Some(2));
        let peer = Subject::LlamaServer { threads: Some(2) };
        let (numerics, threads) = (Numerics::Exact, Some(2));
        let ring = |remote| Subject::Myzel {
            numerics,
            threads,
            remote,
        };
        let sized = |bytes: u64| Memory {
            resident: bytes << 20,
            proportional: bytes << 20,
        };
        let chosen = [
            figures(Subject::node(Numerics::Throughput, None), 100.0),
            figures(Subject::LlamaServer { threads: None }, 100.0),
        ];
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
            beside: [chosen.to_vec(), chosen.to_vec()],
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
        };
        let loaded = Loaded {
            build: "an engine".into(),
            cpu_class: "x86_64 AVX2".into(),
            architecture: "llama".into(),
            kv_type: "f16".into(),
            embedding_length: 1,
            vocabulary: 1,
            positions_max: 1,
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
            "0.96 (0.96–0.96) | ≥ 0.95 | met",
            "0.78 (0.78–0.78) | ≥ 0.9  | **missed**",
            "1.10 (1.10–1.10) | ≤ 1.15 | met",
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
    fn no_path_of_the_machine_is_on_the_page() {
        assert!(!page_of(&all(), 0.0).contains("/secret"));
    }

    #[test]
    fn a_busy_machine_is_named() {
        assert!(!page_of(&all(), 0.02).contains("Preliminary"));
        assert!(page_of(&all(), 0.5).contains("other programs used 50 %"));
    }
}
