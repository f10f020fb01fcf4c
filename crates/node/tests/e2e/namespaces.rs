//! Three machines that share nothing but a switch: no way out, no name service, no relay.

use crate::support::models::STARTER_EMBEDDING;
use crate::support::netns::Machines;
use crate::support::node::{Node, Setup};
use crate::support::wait::{PATIENCE, settles};
use std::io::Read;
use std::process::Stdio;

/// Asked with the command line, since the endpoint is inside the namespace.
const QUESTIONS: [&[&str]; 2] = [
    &[
        "ask",
        "--temperature",
        "0",
        "--max-tokens",
        "24",
        "Name three rivers.",
    ],
    &[
        "ask",
        "--temperature",
        "1",
        "--seed",
        "5",
        "--max-tokens",
        "24",
        "Write a line of a poem.",
    ],
];

/// Long enough to lose somebody in the middle.
const LONG_QUESTION: [&str; 6] = [
    "ask",
    "--temperature",
    "0",
    "--max-tokens",
    "150",
    "Tell a very long story about a river.",
];

fn answers(node: &Setup) -> Vec<String> {
    QUESTIONS
        .iter()
        .map(|question| node.cli(question))
        .collect()
}

/// Tokens that went round the ring so far: those of prompts and those of answers.
fn tokens(node: &Node) -> u64 {
    let rates = node.status().rates;
    rates.prompt_tokens + rates.tokens
}

#[tokio::test]
async fn three_machines_behind_a_switch_answer_as_one_and_outlive_a_pulled_plug() {
    let alone = Setup::new("alone").exact().up().await;
    let expected = answers(alone.setup());
    drop(alone);

    let machines = Machines::new(3);
    for n in 1..=3 {
        let routes = machines.routes(n);
        assert_eq!(
            routes.lines().count(),
            1,
            "only the switch can be reached: {routes}"
        );
        assert!(routes.starts_with("10.77.0.0/24 dev eth0"), "{routes}");
    }
    let on = |n: usize, name: &str| Setup::new(name).inside(machines.name(n));
    let a = on(1, "a").split(2).up().await;
    let (b, c) = (
        on(2, "b").join(&a).up().await,
        on(3, "c").join(&a).up().await,
    );
    let status = a.ring_up().await;
    assert_eq!(status.ring.unwrap().stages.len(), 2);

    let count = || [1, 2, 3].map(|n| machines.received_bytes(n));
    let (before, tokens_before) = (count(), tokens(&a));
    assert_eq!(answers(a.setup()), expected);
    let least = (tokens(&a) - tokens_before) * STARTER_EMBEDDING * 4;
    for (after, before) in count().into_iter().zip(before) {
        assert!(
            after - before >= least,
            "every row came over the wire: {before} to {after}, {least}"
        );
    }
    assert!(least > 48 * STARTER_EMBEDDING * 4, "{least}");

    pull_the_plug(&machines, &a, &b).await;
    machines.plug(2, "up");
    a.ring_up().await;
    assert_eq!(answers(a.setup()), expected, "the ring came back by itself");
    drop((a, b, c));
}

/// Cuts machine 2, on which `b` runs, off in the middle of an answer of `a`, which goes on without it.
async fn pull_the_plug(machines: &Machines, a: &Node, b: &Node) {
    let expected = a.setup().cli(&LONG_QUESTION);
    let mut ask = a.setup().command(&LONG_QUESTION);
    let mut ask = ask
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut begun = [0; 8];
    ask.stdout.as_mut().unwrap().read_exact(&mut begun).unwrap();
    assert!(
        ask.try_wait().unwrap().is_none(),
        "the answer was over before the plug was pulled"
    );
    machines.plug(2, "down");
    // The pipe holds the rest of the answer, so the process need not be read from.
    assert!(
        settles(PATIENCE, || ask.try_wait().unwrap().is_some()),
        "the answer never ends"
    );
    let output = ask.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let all = [&begun[..], &output.stdout].concat();
    assert_eq!(String::from_utf8(all).unwrap(), expected);
    let stages = a.status().ring.unwrap().stages;
    // The one that is left has both stages: it stood by for the other's.
    let elsewhere = stages.iter().all(|stage| stage.node != b.id());
    assert!(elsewhere && !stages.is_empty(), "{stages:?}");
}
