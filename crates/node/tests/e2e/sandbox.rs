//! What a node says about its engine's sandbox, and what it does without one.

use crate::support::http::greedy;
use crate::support::models::small;
use crate::support::node::{Setup, says};
use crate::support::wait::eventually;
use node::status::{Answers, SandboxStatus};
use proto::host::SandboxLevel;

#[tokio::test]
async fn a_node_says_that_its_engine_is_locked_up() {
    let dir = tempfile::tempdir().unwrap();
    let node = Setup::new("n").model(&small(dir.path())).up().await;
    let expected = SandboxStatus {
        level: Some(SandboxLevel::Full),
        missing: Vec::new(),
        allow_unsandboxed: false,
        hosting_refused: None,
    };
    assert_eq!(node.status().sandbox, expected);
    let text = node.setup().cli(&["status"]);
    assert!(text.lines().any(|line| line == "sandbox   full"), "{text}");
}

#[tokio::test]
async fn without_a_full_sandbox_others_are_served_only_by_the_owners_word() {
    let dir = tempfile::tempdir().unwrap();
    let model = small(dir.path());
    let a = Setup::new("a").model(&model).split(1).up().await;
    let open = |name| Setup::new(name).model(&model).without_landlock().join(&a);
    let b = open("b").up().await;
    let why = eventually("the coordinator says why there is no ring", || async {
        a.status()
            .ring
            .unwrap()
            .why
            .filter(|why| why.contains("locked up"))
    })
    .await;
    let reasons = ["Landlock", "--allow-unsandboxed"];
    says(&why, &[&b.id().short(), "\"b\""]);
    says(&why, &reasons);
    assert_eq!(a.status().answers, Answers::Home, "the coordinator goes on");
    let sandbox = b.status().sandbox;
    assert_eq!(sandbox.level, Some(SandboxLevel::Partial));
    says(&sandbox.hosting_refused.unwrap(), &reasons);
    says(
        &b.setup().cli(&["status"]),
        &["sandbox   partial", "missing: Landlock"],
    );
    // Its own work goes on.
    assert!(b.client().ask(greedy("hello", 5)).await.is_ok());

    let c = open("c").env("MYZEL_ALLOW_UNSANDBOXED", "1").up().await;
    let status = a.ring_up().await;
    assert_eq!(status.ring.unwrap().stages[0].node, c.id());
    let sandbox = c.status().sandbox;
    assert_eq!(
        (sandbox.level, sandbox.allow_unsandboxed),
        (Some(SandboxLevel::Partial), true)
    );
    assert_eq!(sandbox.hosting_refused, None);
    says(
        &c.setup().cli(&["status"]),
        &["its owner lets it serve others"],
    );
    assert!(a.client().ask(greedy("hello", 5)).await.is_ok());
}
