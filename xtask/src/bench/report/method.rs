//! How it was measured, and what: the page's last sections.

use std::fmt::Write;

use super::super::ANSWER_TOKENS;
use super::super::llama_rpc;
use super::super::llama_server;
use super::super::many::Burst;
use super::super::phases::All;
use super::super::subject::Subject;
use super::Facts;

/// What was asked, in which order, and with which arguments.
pub(super) fn method(facts: &Facts<'_>) -> String {
    let all = facts.figures;
    let mut text = "## How it was measured\n\n\
         - Over HTTP, streamed, one client for all; temperature 0. The same system and user text for all; they came \
         to the same number of tokens everywhere.\n\
         - In each round every server is asked, in turn, beginning with another one each time. One round before the \
         first is not counted.\n\
         - A ring of ours is asked only while `myzel status` says that it answers.\n"
        .to_owned();
    for line in [one_by_one(all), at_once(all), caches(&all.trial)] {
        text.extend(line.map(|line| format!("- {line}\n")));
    }
    text.push_str(
        "\nArguments, without repetitions for other numbers of threads and streams:\n\n```text\n",
    );
    let subjects = subjects(all);
    for line in commands(&subjects) {
        // Writing into a string cannot fail.
        let _ = writeln!(text, "{line}");
    }
    text.push_str("```\n");
    if subjects.iter().any(|one| one.is_ours() && one.others() > 0) {
        text.push_str(
            "\nFurther nodes of a ring have the same arguments with `--join TICKET` for `--split`.\n",
        );
    }
    text
}

fn one_by_one(all: &All) -> Option<String> {
    let groups = [&all.single].into_iter().chain(&all.rings);
    let first = groups.chain(&all.beside).flatten().next()?;
    let (short, long) = first.prompt_tokens;
    Some(format!(
        "One at a time: decode is tokens between the first and the last of an answer of {ANSWER_TOKENS} tokens to a \
         prompt of {short}, by the time between these two; prefill is a prompt of about {long} tokens, new in every \
         round, by the time to the first token of the answer."
    ))
}

fn at_once(all: &All) -> Option<String> {
    let burst = all.streams.iter().chain(&all.rpc).flatten().next_back()?;
    let (least, most) = burst.prompt_tokens;
    Some(format!(
        "Many at once: prompts of {least} to {most} tokens, another one for each stream and round, answers of at most \
         {ANSWER_TOKENS} tokens. llama-server is told not to reuse prompts."
    ))
}

fn caches(trial: &[Burst]) -> Option<String> {
    let subject = trial.first()?.subject;
    let tried: Vec<String> = trial
        .iter()
        .filter_map(|one| Some((one.subject.cache()?, &one.total)))
        .map(|(cache, total)| format!("`{}` {total:.1}", cache.flag()))
        .collect();
    Some(format!(
        "Both caches of llama-server were tried first, with {} at once and {} threads, tokens/s in all: {}. Many at once \
         were measured with the faster.",
        subject.slots,
        subject.threads(),
        tried.join(", ")
    ))
}

fn subjects(all: &All) -> Vec<Subject> {
    let one_by_one = [&all.single].into_iter().chain(&all.rings);
    let one_by_one = one_by_one.chain(&all.beside).flatten();
    let at_once = all.streams.iter().chain(&all.rpc).flatten();
    let compared = all.agreement.iter().flat_map(|one| [one.ours, one.theirs]);
    one_by_one
        .map(|figures| figures.subject)
        .chain(at_once.map(|burst| burst.subject))
        .chain(compared)
        .collect()
}

/// A line for each kind of server, and one for its workers.
fn commands(subjects: &[Subject]) -> Vec<String> {
    let (mut seen, mut lines) = (Vec::new(), Vec::new());
    for subject in subjects {
        if seen.contains(&subject.kind) {
            continue;
        }
        seen.push(subject.kind);
        let args = subject.args("MODEL", "PORT", "WORKERS").join(" ");
        lines.push(format!("{} {args}", subject.program()));
        if !subject.is_ours() && subject.others() > 0 {
            let args = subject.worker_args("PORT").join(" ");
            lines.push(format!("{} {args}", llama_rpc::WORKER));
        }
    }
    lines.dedup();
    lines
}

/// The versions and builds of everything.
pub(super) fn versions(facts: &Facts<'_>) -> String {
    let Facts {
        peer,
        ours,
        machine,
        figures,
        ..
    } = facts;
    let mut text = format!(
        "## What was measured\n\n\
         - Model: SmolLM2-135M-Instruct, Q4_1, the starter model of the catalogue.\n\
         - {}, its engine: {}; CPU: `{}`\n\
         - llama-server, built from the llama.cpp tree in {} {} of PyPI: {}; CPU: `{}`\n\
         - Its options: `{}`, with `{}` for C and C++\n",
        ours.version,
        ours.loaded.build,
        ours.loaded.cpu_class,
        llama_server::PACKAGE,
        llama_server::VERSION,
        peer.version,
        figures.peer_features,
        llama_server::OPTIONS.join(" "),
        peer.flags,
    );
    if !figures.rpc.is_empty() {
        // Writing into a string cannot fail.
        let _ = writeln!(
            text,
            "- With workers: ggml and `{}` of the same tree, built with `{}` besides; all else is the same files.",
            llama_rpc::WORKER,
            llama_rpc::OPTION
        );
    }
    // Writing into a string cannot fail.
    let _ = writeln!(text, "- Compiler of both: {}", machine.compiler);
    text
}
