//! A node that coordinates a model which it could not hold, and of which it has no more than its own part.

use crate::planned::{LAYERS, heavy, kib, needs, setup, small_bytes, stays_within};
use crate::support::http::greedy;
use crate::support::models::small;
use crate::support::node::{Node, says};
use node::status::Answers;
use proto::ids::Hash;
use std::path::Path;

/// Bytes of the files in a directory and all below, of which the holes do not count.
fn taken_bytes(dir: &Path) -> u64 {
    use std::os::unix::fs::MetadataExt;
    let entries = std::fs::read_dir(dir).unwrap().flatten();
    let taken = |path: &Path| match path.is_dir() {
        true => taken_bytes(path),
        false => std::fs::metadata(path).map_or(0, |data| data.blocks() * 512),
    };
    entries.map(|entry| taken(&entry.path())).sum()
}

/// Waits until a node hands its model on; returns its root.
async fn handed_on(node: &Node) -> Hash {
    let status = node.status_when("the model is handed on", |status| {
        status.handed_on.contains(&status.model.blake3)
    });
    status.await.model.blake3
}

#[tokio::test]
async fn a_weak_node_fetches_its_own_part_of_a_large_model_and_has_others_compute_the_rest() {
    let dir = tempfile::tempdir().unwrap();
    let (heavy, nonsense) = (heavy(dir.path()), small(dir.path()));
    let whole_bytes = std::fs::metadata(&heavy).unwrap().len();
    let (needs, expected) = needs(&heavy).await;
    let own = small_bytes(&setup("d").model(&nonsense)).await;
    // Three layers beside the ends, and five on each of the others, as in `planned`.
    let home = needs.engine_bytes + needs.ends_bytes + needs.layer_bytes * 7 / 2;
    let other = own + needs.engine_bytes + needs.layer_bytes * 11 / 2;
    let p = setup("p").model(&heavy).exact().arg("--serve", "alone");
    let p = p.up().await;
    let root = handed_on(&p).await;
    let others = ["b", "c"].map(|name| setup(name).model(&nonsense).arg("--memory", &kib(other)));
    let [b, c] = others.map(|setup| setup.join(&p));
    let (b, c) = (b.up().await, c.up().await);
    let weak = setup("w").arg("--model", &root.to_string());
    let weak = weak.arg("--memory", &kib(home)).join(&p);
    let data = weak.dir().to_owned();
    let w = weak.up().await;
    says(&w.said(), &["more than this node can compute alone"]);
    let ring = w.ring_up().await.ring.unwrap();
    let here = ring.head.unwrap().len() + ring.tail.unwrap().len();
    assert!(ring.planned && (2..=3).contains(&here), "{ring:?}");
    let answer = w.client().ask(greedy("abc", 24)).await.unwrap();
    assert_eq!(answer.text, expected);
    stays_within(&w, home);

    // What came, and what is on its disk, is its part: blocks, and the stages that they were put together to.
    let status = w.status();
    let fetched: u64 = status.fetches.iter().map(|fetch| fetch.bytes).sum();
    let (part, most) = (
        whole_bytes * u64::from(here) / u64::from(LAYERS),
        whole_bytes / 2,
    );
    assert!(
        part / 2 < fetched && fetched < most,
        "{fetched} of {whole_bytes}"
    );
    let taken = taken_bytes(&data);
    assert!(taken < 2 * most + (1 << 20), "{taken} of {whole_bytes}");

    // It starts again, though nobody is left who has all of it.
    let setup = w.setup().clone();
    drop((w, p));
    let w = setup.up().await;
    let status = w.status();
    assert_eq!((status.model.blake3, status.answers), (root, Answers::Ring));
    assert!(
        status.fetches.is_empty(),
        "nothing lacks: {:?}",
        status.fetches
    );
    let answer = w.client().ask(greedy("abc", 24)).await.unwrap();
    assert_eq!(answer.text, expected);
    drop((b, c));
}
