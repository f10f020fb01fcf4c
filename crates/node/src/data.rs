//! What a node has on disk, opened.

use anyhow::Context;
use identity::NodeKey;
use proto::model::Catalogue;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use store::data_dir::{DataDir, DirLock};
use store::journal::{JournalError, Journals, Limits};
use store::keys::Secret;
use store::models::{Models, ModelsConfig};
use store::sources::{Hub, Pip};
use store::state::State;

/// A data directory that this process alone uses.
#[derive(Debug)]
pub struct Data {
    /// The directory.
    pub dir: DataDir,
    /// Keys, tickets, members.
    pub state: Arc<State>,
    /// Models.
    pub models: Models,
    /// The node's key.
    pub key: NodeKey,
    /// What the journals of streams are sealed by.
    secret: Secret,
    _lock: DirLock,
}

/// 32 random bytes of the system.
#[must_use]
pub fn random<const N: usize>() -> [u8; N] {
    rand::random()
}

impl Data {
    /// Opens `root` for a running node.
    ///
    /// # Errors
    ///
    /// When another node has the directory, or something in it cannot be used.
    pub fn open(root: &Path, catalogue: Option<&Path>) -> anyhow::Result<Self> {
        let dir = DataDir::open(root)?;
        let lock = dir.lock()?;
        let secret = store::keys::load_or_create(&dir.node_key(), random)?;
        let key = NodeKey::from_bytes(secret.0);
        let state = Arc::new(State::open(&dir.state())?);
        let models = models(&dir, catalogue, Some(state.clone()))?;
        Ok(Self {
            dir,
            state,
            models,
            key,
            secret,
            _lock: lock,
        })
    }

    /// The journals of streamed answers.
    ///
    /// # Errors
    ///
    /// When their directory cannot be used.
    pub fn journals(&self) -> Result<Journals, JournalError> {
        Journals::open(&self.dir.streams(), &self.secret, Limits::default())
    }
}

/// The model store of a data directory; also without the lock, for `myzel model`.
///
/// # Errors
///
/// When the catalogue or the directory cannot be used.
pub fn models(
    dir: &DataDir,
    catalogue: Option<&Path>,
    state: Option<Arc<State>>,
) -> anyhow::Result<Models> {
    let catalogue: Catalogue = store::catalogue::load(catalogue)?;
    let own = dir.models();
    // Nodes of one user share what is in the user's own store; without a home there is nothing to share.
    let shared: Vec<PathBuf> = crate::config::user_data_dir()
        .into_iter()
        .map(|user| user.join("models"))
        .filter(|shared| *shared != own && shared.is_dir())
        .collect();
    let config = ModelsConfig {
        dir: own,
        shared,
        catalogue,
        pip: Pip::default(),
        hub: Hub::from_env(),
        state,
    };
    Models::open(config).context("cannot open the model store")
}
