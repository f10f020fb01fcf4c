//! How long a hop takes: ping-pong of one decode row, and one-way prefill chunks, between two endpoints in one process.
//!
//! ```sh
//! cargo run --release -p net --example hop_latency [-- ROUNDS]
//! ```
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a measurement, not a product"
)]

use bytes::Bytes;
use identity::{CommonsKey, NodeKey, found};
use net::{Congestion, Doorkeeper, HopReceiver, HopSender, Net, NetConfig, Standing, Started};
use proto::ids::{RingId, SessionId};
use proto::member::Member;
use proto::ring::{HopBody, HopHello, Rows, RowsKind};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// One row of SmolLM2-135M: 576 f32 values.
const ROW_BYTES: usize = 576 * 4;
/// One prefill chunk of it: 256 rows.
const CHUNK_BYTES: usize = 256 * ROW_BYTES;
const CHUNKS: u32 = 200;

struct Node {
    net: Net,
    started: Started,
    hello: HopHello,
}

async fn node(n: u8, congestion: Congestion) -> Node {
    let (key, commons) = (
        NodeKey::from_bytes([n; 32]),
        CommonsKey::from_bytes([1; 32]),
    );
    let membership = found(&commons, key.id(), 0);
    let config = NetConfig {
        congestion,
        ..NetConfig::new(key.clone())
    };
    let net = Net::bind(config).await.unwrap();
    let policy = Doorkeeper::new(key, commons.id(), membership.clone(), |_, _| false);
    let standing = Standing {
        commons: commons.id(),
        membership: membership.clone(),
        name: String::new(),
        incarnation: 0,
        known: Vec::new(),
    };
    let started = net.start(standing, Arc::new(policy));
    Node {
        net,
        started,
        hello: HopHello {
            ring: RingId([0; 16]),
            from_stage: 0,
            membership,
        },
    }
}

async fn hop(from: &Node, to: Member, incoming: &mut Node) -> (HopSender, HopReceiver) {
    let (sender, receiver) = tokio::join!(from.net.dial_hop(&to, &from.hello), async {
        incoming
            .started
            .hops
            .recv()
            .await
            .unwrap()
            .accept()
            .await
            .unwrap()
    });
    (sender.unwrap(), receiver)
}

fn rows(position: u32) -> HopBody {
    HopBody::Rows(Rows {
        session: SessionId([0; 16]),
        epoch: 0,
        position,
        rows: 1,
        chunk: 0,
        stage: 0,
        kind: RowsKind::Decode,
    })
}

async fn measure(congestion: Congestion, rounds: u32) {
    let (mut a, mut b) = (node(2, congestion).await, node(3, congestion).await);
    let (to_a, to_b) = (a.started.links.this_member(), b.started.links.this_member());
    let (mut a_out, mut b_in) = hop(&a, to_b, &mut b).await;
    let (mut b_out, mut a_in) = hop(&b, to_a, &mut a).await;
    // Path MTU discovery and the second path are behind us then.
    tokio::time::sleep(Duration::from_secs(1)).await;

    let echo = tokio::spawn(async move {
        while let Ok((body, payload)) = b_in.recv().await {
            if payload.len() == ROW_BYTES || payload.is_empty() {
                b_out.send(body, payload).await.unwrap();
            }
        }
    });
    let row = Bytes::from(vec![7; ROW_BYTES]);
    let mut laps = Vec::new();
    for position in 0..rounds {
        let began = Instant::now();
        a_out.send(rows(position), row.clone()).await.unwrap();
        a_in.recv().await.unwrap();
        laps.push(began.elapsed() / 2);
        // A stage computes between two tokens.
        if position % 2 == 1 {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }
    let (warm, idle): (Vec<_>, Vec<_>) = laps
        .iter()
        .skip(rounds as usize / 10)
        .enumerate()
        .partition(|(at, _)| at % 2 == 1);
    report(
        congestion,
        "one way, right after the last",
        warm.into_iter().map(|l| *l.1).collect(),
    );
    report(
        congestion,
        "one way, after 2 ms of rest",
        idle.into_iter().map(|l| *l.1).collect(),
    );

    let chunk = Bytes::from(vec![7; CHUNK_BYTES]);
    let began = Instant::now();
    for position in 0..CHUNKS {
        a_out.send(rows(position), chunk.clone()).await.unwrap();
    }
    a_out.send(rows(0), Bytes::new()).await.unwrap();
    a_in.recv().await.unwrap();
    let rate = f64::from(CHUNKS) * CHUNK_BYTES as f64 / began.elapsed().as_secs_f64() / 1e6;
    println!("{congestion:?}: chunks of {CHUNK_BYTES} bytes: {rate:.0} MB/s");
    drop(a_out);
    echo.await.unwrap();
    tokio::join!(a.net.close(), b.net.close());
}

fn report(congestion: Congestion, what: &str, mut laps: Vec<Duration>) {
    laps.sort();
    let at = |share: f64| laps[((laps.len() - 1) as f64 * share) as usize].as_micros();
    let (p50, p90, p99) = (at(0.5), at(0.9), at(0.99));
    println!("{congestion:?}: {ROW_BYTES} bytes {what}: p50 {p50} µs, p90 {p90} µs, p99 {p99} µs");
}

#[tokio::main]
async fn main() {
    let rounds = std::env::args()
        .nth(1)
        .map_or(4000, |text| text.parse().unwrap());
    for congestion in [
        Congestion::Cubic,
        Congestion::Bbr3,
        Congestion::Cubic,
        Congestion::Bbr3,
    ] {
        measure(congestion, rounds).await;
    }
}
