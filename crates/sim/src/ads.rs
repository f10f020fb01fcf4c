//! Keys, proofs of membership, and every ad of a run. Each is signed and checked once: checking is dear, and nothing in
//! it depends on who checks.

use bytes::Bytes;
use identity::{CheckedAd, CommonsKey, NodeKey, check_ad, extend, found, sign_ad};
use proto::ad::Ad;
use proto::codec;
use proto::ids::{CommonsId, Hash, NodeId};
use proto::member::Membership;
use std::collections::HashMap;

/// When all worlds begin, in seconds since 1970 UTC.
pub const DAWN_S: u64 = 1_800_000_000;

/// An ad of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct AdRef(u32);

/// All ads of a run.
#[derive(Debug)]
pub struct Ads {
    commons: CommonsKey,
    all: Vec<(CheckedAd, Bytes)>,
    /// Asked by hash, never gone through: its order is by chance.
    numbers: HashMap<Hash, AdRef>,
}

impl Ads {
    /// A commons in which nothing was said yet.
    #[must_use]
    pub fn new(seed: [u8; 32]) -> Self {
        Self {
            commons: CommonsKey::from_bytes(seed),
            all: Vec::new(),
            numbers: HashMap::new(),
        }
    }

    /// The commons.
    #[must_use]
    pub fn commons(&self) -> CommonsId {
        self.commons.id()
    }

    /// The founder's membership.
    #[must_use]
    pub fn found(&self, founder: NodeId) -> Membership {
        found(&self.commons, founder, DAWN_S)
    }

    /// The membership of whom a member lets in.
    ///
    /// # Panics
    ///
    /// When the chain is too long: our own bug.
    #[must_use]
    pub fn let_in(&self, mine: &Membership, key: &NodeKey, node: NodeId) -> Membership {
        extend(mine, key, self.commons(), node, DAWN_S).expect("worlds have short chains")
    }

    /// Signs an ad.
    ///
    /// # Panics
    ///
    /// When no node would take it for genuine: our own bug.
    pub fn sign(&mut self, key: &NodeKey, ad: &Ad) -> AdRef {
        let signed = sign_ad(key, ad).expect("ads of a world are within bounds");
        let mut bytes = codec::to_vec(&signed);
        // The number behind it tells the receiver which one it is, and makes it 4 bytes longer than it would be.
        let number = u32::try_from(self.all.len()).expect("fewer ads than that");
        bytes.extend(number.to_be_bytes());
        let checked = check_ad(signed, self.commons()).expect("ads of a world are genuine");
        self.numbers.insert(checked.hash(), AdRef(number));
        self.all.push((checked, Bytes::from(bytes)));
        AdRef(number)
    }

    /// An ad.
    #[must_use]
    pub fn get(&self, ad: AdRef) -> &CheckedAd {
        &self.all[ad.0 as usize].0
    }

    /// Which ad it is.
    #[must_use]
    pub fn find(&self, ad: &CheckedAd) -> Option<AdRef> {
        self.numbers.get(&ad.hash()).copied()
    }

    /// An ad as gossip carries it.
    #[must_use]
    pub fn bytes(&self, ad: AdRef) -> Bytes {
        self.all[ad.0 as usize].1.clone()
    }

    /// Which ad gossip brought.
    #[must_use]
    pub fn read(&self, bytes: &[u8]) -> Option<AdRef> {
        let number = u32::from_be_bytes(*bytes.last_chunk()?);
        self.all.get(number as usize).map(|_| AdRef(number))
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.all.len()
    }

    /// Whether nothing was said yet.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.all.is_empty()
    }
}
