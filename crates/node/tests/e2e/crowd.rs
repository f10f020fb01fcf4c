//! A thousand callers at once: each is answered or told why not, and afterwards nothing is left of them.

use crate::support::http::greedy;
use crate::support::models::small;
use crate::support::node::Setup;
use crate::support::wait::eventually;
use futures::future::join_all;

// The commands below block their thread while connections close on another.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_callers_are_answered_or_refused_and_nobody_is_stuck() {
    let dir = tempfile::tempdir().unwrap();
    let node = Setup::new("crowded").model(&small(dir.path())).up().await;
    let client = node.client();
    let asks = (0..1_000).map(|n| client.try_ask(greedy(&format!("Call {n}."), 3)));
    let (mut answered, mut refused, mut closed) = (0, 0, 0);
    for answer in join_all(asks).await {
        match answer {
            Ok(Ok(_)) => answered += 1,
            Ok(Err(refusal)) => {
                assert_eq!((refusal.status, refusal.code.as_str()), (503, "overloaded"));
                refused += 1;
            }
            // More connections than the server takes notice of.
            Err(_) => closed += 1,
        }
    }
    assert!(
        answered >= 32 && refused > 0,
        "{answered} answered, {refused} refused, {closed} closed"
    );
    // Their idle connections go with the client; until then they count as open.
    drop(client);
    let setup = node.setup();
    eventually("the crowd's connections are closed", || async {
        let status = setup.run(&["status", "--json"]);
        status.status.success().then_some(())
    })
    .await;
    assert_eq!(node.status().model.sessions, 0, "no place is left taken");
    node.client().ask(greedy("And now?", 3)).await.unwrap();
}
