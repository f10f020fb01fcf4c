//! The BitTorrent DHT: whereabouts left with strangers, as mutable items (BEP 44, <https://www.bittorrent.org/beps/bep_0044.html>).
//!
//! An item's key is the member's own, so nobody else can write it; its salt is a hash of the commons' id, so only who
//! knows both knows where to look. The nodes that keep it see the member's key and what it says; the commons they do
//! not see. Nothing is looked up but members that do not answer and introducers of tickets.

use super::{DhtConfig, Places, places::is_global};
use crate::limits::{
    DHT_ASK_PAUSE_MAX_MS, DHT_ASK_PAUSE_MIN_MS, DHT_ASKED_MAX, DHT_FIND_MS, DHT_LOOK_MS,
    DHT_LOOKUPS_MAX, DHT_RETELL_MS,
};
use crate::links::Mesh;
use futures::StreamExt;
use identity::keys::{Issuer, NodeKey};
use n0_mainline::{Dht as Mainline, MutableItem};
use proto::codec;
use proto::ids::{CommonsId, NodeId};
use proto::member::{Member, WHEREABOUTS_ADDRS_MAX, Whereabouts};
use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use tokio::sync::{OnceCell, Semaphore};

/// The DHT could not be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DhtError {
    /// No node to begin with is known.
    #[error(
        "none of the nodes to begin with ({names}) is known here; is there a way to the internet?"
    )]
    NoBootstrap {
        /// The nodes that were asked for.
        names: String,
    },
    /// No socket.
    #[error("cannot open a UDP socket for the DHT: {0}")]
    Socket(std::io::Error),
    /// Nobody took the item.
    #[error("nobody in the DHT took it: {0}")]
    NotKept(Box<dyn std::error::Error + Send + Sync>),
}

/// This node in the DHT. It is entered with the first question.
#[derive(Debug)]
pub(crate) struct Dht {
    config: DhtConfig,
    salt: [u8; 16],
    node: OnceCell<Mainline>,
    lookups: Semaphore,
    asked: Mutex<HashMap<NodeId, Asked>>,
}

/// When a member was asked for last, and how often.
#[derive(Debug, Clone, Copy)]
struct Asked {
    at: Instant,
    times: u32,
}

impl Asked {
    /// Who is not found is asked for half as often each time.
    fn pause(self) -> Duration {
        let doubled = DHT_ASK_PAUSE_MIN_MS << self.times.saturating_sub(1).min(16);
        Duration::from_millis(doubled.min(DHT_ASK_PAUSE_MAX_MS))
    }
}

/// What the DHT keeps of a member of this commons is found under this and the member's key.
fn salt(commons: CommonsId) -> [u8; 16] {
    let hash = blake3::derive_key("myzel dht salt v1", &commons.0);
    *hash.first_chunk().expect("a hash has 32 bytes")
}

/// What is signed: the item as BEP 44 writes it, in bencoding without the dictionary around it.
fn signed_bytes(salt: &[u8], seq: i64, value: &[u8]) -> Vec<u8> {
    let mut bytes = format!("4:salt{}:", salt.len()).into_bytes();
    bytes.extend(salt);
    bytes.extend(format!("3:seqi{seq}e1:v{}:", value.len()).into_bytes());
    bytes.extend(value);
    bytes
}

/// Grows from one item to the next, also over restarts.
fn next_seq() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |since| i64::try_from(since.as_millis()).unwrap_or(0))
}

impl Dht {
    pub(crate) fn new(config: DhtConfig, commons: CommonsId) -> Self {
        Self {
            config,
            salt: salt(commons),
            node: OnceCell::new(),
            lookups: Semaphore::new(DHT_LOOKUPS_MAX),
            asked: Mutex::default(),
        }
    }

    async fn node(&self) -> Result<&Mainline, DhtError> {
        let enter = async {
            let bootstrap = self.bootstrap().await?;
            // Port 0 is any free one: the usual one belongs to the user's own BitTorrent client.
            let mut builder = Mainline::builder();
            let builder = builder.bootstrap(&bootstrap).port(0);
            builder.build().map_err(DhtError::Socket)
        };
        self.node.get_or_try_init(|| enter).await
    }

    /// The addresses of the nodes to begin with. The crate would look names up while all else waits.
    async fn bootstrap(&self) -> Result<Vec<SocketAddr>, DhtError> {
        let mut addrs = Vec::new();
        for name in &self.config.bootstrap {
            match tokio::net::lookup_host(name).await {
                Ok(found) => addrs.extend(found.filter(SocketAddr::is_ipv4)),
                Err(error) => tracing::debug!(name, %error, "a node of the DHT"),
            }
        }
        if addrs.is_empty() {
            let names = self.config.bootstrap.join(", ");
            return Err(DhtError::NoBootstrap { names });
        }
        Ok(addrs)
    }

    /// Whether it is time to ask for a node again.
    pub(crate) fn is_due(&self, peer: NodeId) -> bool {
        let asked = self.asked.lock().unwrap_or_else(PoisonError::into_inner);
        asked
            .get(&peer)
            .is_none_or(|asked| asked.at.elapsed() >= asked.pause())
    }

    fn note_asked(&self, peer: NodeId) {
        let mut asked = self.asked.lock().unwrap_or_else(PoisonError::into_inner);
        if asked.len() >= DHT_ASKED_MAX {
            asked.clear();
        }
        let times = asked
            .get(&peer)
            .map_or(1, |before| before.times.saturating_add(1));
        let at = Instant::now();
        asked.insert(peer, Asked { at, times });
    }

    /// Where a member says that it is.
    pub(crate) async fn find(&self, peer: NodeId) -> Option<Places> {
        let _turn = self.lookups.acquire().await.ok()?;
        self.note_asked(peer);
        let wait = Duration::from_millis(DHT_FIND_MS);
        match tokio::time::timeout(wait, self.newest(peer)).await {
            Ok(Ok(found)) => found,
            Ok(Err(error)) => {
                tracing::debug!(peer = %peer.short(), %error, "not looked up in the DHT");
                None
            }
            Err(_) => None,
        }
    }

    async fn newest(&self, peer: NodeId) -> Result<Option<Places>, DhtError> {
        let node = self.node().await?;
        let answers = node
            .get_mutable(&peer.0, Some(self.salt.as_slice()), None)
            .await;
        let Ok(mut answers) = answers else {
            return Ok(None);
        };
        let mut newest: Option<MutableItem> = None;
        // The crate has checked the signatures.
        while let Some(item) = answers.next().await {
            if newest.as_ref().is_none_or(|old| old.seq() < item.seq()) {
                newest = Some(item);
            }
        }
        let at = newest.and_then(|item| codec::from_slice::<Whereabouts>(item.value()).ok());
        Ok(at.map(|at| Places::from(&at)).filter(|at| !at.is_empty()))
    }

    /// What of a member is told to the DHT.
    pub(crate) fn whereabouts(&self, member: &Member) -> Whereabouts {
        let public = self.config.public;
        let told = |addr: &SocketAddr| !public || is_global(*addr);
        let text = |addrs: Vec<SocketAddr>, max| -> Vec<String> {
            let addrs = addrs.into_iter().filter(told).take(max);
            addrs.map(|addr| addr.to_string()).collect()
        };
        let Places { direct, relays } = Places::from(member);
        let relays = text(relays, usize::MAX);
        Whereabouts {
            addrs: text(direct, WHEREABOUTS_ADDRS_MAX),
            relays: (!relays.is_empty()).then_some(relays),
        }
    }

    /// Leaves this node's whereabouts in the DHT, where they stay for about two hours.
    pub(crate) async fn tell(&self, key: &NodeKey, at: &Whereabouts) -> Result<(), DhtError> {
        let node = self.node().await?;
        let (value, seq) = (codec::to_vec(at), next_seq());
        let signature = key.sign(&signed_bytes(&self.salt, seq, &value));
        let id = key.id().0;
        let salt = Some(self.salt.as_slice());
        let item = MutableItem::new_signed_unchecked(id, signature, &value, seq, salt);
        node.put_mutable(item, None)
            .await
            .map(drop)
            .map_err(|error| DhtError::NotKept(error.into()))
    }
}

/// Keeps this node's whereabouts in the DHT, if that way is open. Ends with the node.
pub(crate) async fn keep_told(mesh: Arc<Mesh>) {
    let Some(dht) = mesh.core.ways.dht() else {
        return;
    };
    let mut told: Option<(Whereabouts, Instant)> = None;
    let mut look = tokio::time::interval(Duration::from_millis(DHT_LOOK_MS));
    loop {
        tokio::select! {
            () = mesh.core.stop.cancelled() => return,
            _ = look.tick() => {}
        }
        let at = dht.whereabouts(&mesh.this_member());
        let stands = told.as_ref().is_some_and(|(before, when)| {
            *before == at && when.elapsed() < Duration::from_millis(DHT_RETELL_MS)
        });
        if stands || Places::from(&at).is_empty() {
            continue;
        }
        let outcome = tokio::select! {
            () = mesh.core.stop.cancelled() => return,
            outcome = dht.tell(&mesh.core.key, &at) => outcome,
        };
        match outcome {
            Ok(()) => {
                tracing::debug!(addrs = at.addrs.len(), "whereabouts are in the DHT");
                told = Some((at, Instant::now()));
            }
            Err(error) => tracing::debug!(%error, "whereabouts are not in the DHT"),
        }
    }
}

#[cfg(test)]
mod tests;
