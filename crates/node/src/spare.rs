//! A spare range on disk: a node that computes layers of a model for others keeps further ones, where the fewest have them.

use crate::daemon::Node;
use proto::ad::Room;
use proto::ids::Hash;
use proto::model::LayerRange;
use std::sync::Arc;
use std::time::Duration;
use swarm::members::Ask;
use swarm::plan::spare;
use tokio_util::sync::CancellationToken;

/// The shortest pause between two looks; a random part of it comes on top, so that not all fetch the same at once.
const LOOK_MIN: Duration = Duration::from_secs(30);

/// Looks, and fetches one range after the other, until the node ends.
pub async fn run(node: Arc<Node>, stop: CancellationToken) {
    loop {
        let pause = LOOK_MIN + LOOK_MIN.mul_f64(rand::random());
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(pause) => {}
        }
        tokio::select! {
            () = stop.cancelled() => return,
            () = look(&node) => {}
        }
    }
}

async fn look(node: &Node) {
    for hosted in node.stages.engines() {
        let (root, layers) = (hosted.model, hosted.layers);
        let Some(range) = weakest(node, root, layers).await else {
            continue;
        };
        match node.content.keep_layers(root, range).await {
            Ok(()) => tracing::info!(model = %root.short(), %range, "a spare range is on disk"),
            Err(error) => tracing::debug!(%error, %range, "no spare range was fetched"),
        }
    }
}

/// The layers that are worth keeping, if this node has only parts of the model.
async fn weakest(node: &Node, root: Hash, length: u32) -> Option<LayerRange> {
    let content = node.content.clone();
    let part = tokio::task::spawn_blocking(move || content.part(root));
    let (layers, mine) = part.await.ok().flatten()?;
    let ask = Ask {
        room: Room::Square,
        model: root,
        layer_bytes: 0,
        build: None,
    };
    let seen = node.roster.view(&ask);
    let others: Vec<Vec<LayerRange>> = seen.into_iter().map(|seen| seen.on_disk).collect();
    spare(layers, &others, &mine, length)
}
