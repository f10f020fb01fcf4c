//! The model that a node runs: on its disk, from other members, or from elsewhere.

use crate::cli::progress::{Bar, say};
use crate::config::{STARTER, Settings};
use crate::content::{Content, ContentError, Outline};
use crate::data::Data;
use crate::home::EngineSettings;
use crate::memory::Budget;
use crate::placement::LAYERS_MIN;
use crate::scales::Scales;
use anyhow::bail;
use engine::EngineError;
use proto::gguf::cuttable;
use proto::host::Role;
use proto::ids::Hash;
use proto::model::LayerRange;
use std::sync::Arc;
use store::models::{Model, Models};
use store::reference::Reference;

/// The model that a node runs.
pub(super) struct Found {
    pub(super) model: Model,
    /// Where the model is not here whole, since this node will never compute all of it: what keeps its file.
    pub(super) outline: Option<Outline>,
}

impl From<Model> for Found {
    fn from(model: Model) -> Self {
        Self {
            model,
            outline: None,
        }
    }
}

/// The model that was asked for, unless it is quarantined.
///
/// # Errors
///
/// When it cannot be had from anywhere, with what was tried.
pub(super) async fn find(
    (data, content): (&Data, &Content),
    settings: &Settings,
    (engine, budget): (&EngineSettings, &Budget),
) -> anyhow::Result<Found> {
    let seeker = Seeker {
        data,
        content,
        engine,
        budget,
        bar: Bar::new(),
    };
    let name = settings.model.as_deref().unwrap_or(STARTER);
    let found = seeker.seek(name).await?;
    match engine.ward.why(found.model.blake3) {
        Some(why) => bail!(why),
        None => Ok(found),
    }
}

/// Looks for a model.
struct Seeker<'a> {
    data: &'a Data,
    content: &'a Content,
    engine: &'a EngineSettings,
    budget: &'a Budget,
    bar: Arc<Bar>,
}

impl Seeker<'_> {
    /// A model that is not here is fetched, from other members first.
    async fn seek(&self, name: &str) -> anyhow::Result<Found> {
        let wanted: Reference = name.parse()?;
        let models = &self.data.models;
        if matches!(wanted, Reference::Path(_)) || models.show(&wanted).is_ok() {
            let model = models.resolve(&wanted, self.bar.clone()).await?;
            return Ok(model.into());
        }
        say(&format!("fetching {name}: it is not on this machine yet …"));
        if let Some(root) = root_of(models, &wanted)
            && self.content.may_have(root)
        {
            match self.fetch(root).await {
                Ok(found) => {
                    self.bar.finish();
                    return Ok(found);
                }
                Err(error) => say(&format!("not from other nodes ({error}); from elsewhere …")),
            }
        }
        let pulled = models.pull(&wanted, None, self.bar.clone()).await?;
        self.bar.finish();
        Ok(pulled.model.into())
    }

    /// All of a model that this node can compute alone; of a larger one only what it needs to have others compute it.
    async fn fetch(&self, root: Hash) -> Result<Found, ContentError> {
        self.content.first_links(root).await;
        let outline = self.content.outline(root).await?;
        if self.fits(&outline).await {
            let whole = self.content.whole(root, self.bar.clone()).await?;
            return Ok(whole.into());
        }
        say(&format!(
            "{} is more than this node can compute alone; it fetches its own part …",
            outline.model.name
        ));
        self.content.ends(root, &*self.bar).await?;
        Ok(Found {
            model: outline.model.clone(),
            outline: Some(outline),
        })
    }

    /// Whether a node like this runs a model whole: it has the memory, or there is no other way.
    async fn fits(&self, outline: &Outline) -> bool {
        if cuttable(&outline.header).is_err() || outline.header.layers() < LAYERS_MIN {
            return true;
        }
        let scales = Scales {
            engine: self.engine,
            models: &self.data.models,
            model: outline.model.blake3,
        };
        let end = outline.header.layers();
        let whole = (Role::Whole, LayerRange { first: 0, end });
        let file = async { Ok::<_, EngineError>(vec![&outline.model.path]) };
        match scales.weigh(&[whole], file).await {
            Ok(memory) => memory.total_bytes() <= self.budget.free_bytes(),
            // Loading says better what is wrong.
            Err(_) => true,
        }
    }
}

/// The root of a model, where the catalogue knows it.
fn root_of(models: &Models, wanted: &Reference) -> Option<Hash> {
    match wanted {
        Reference::Hash(root) => Some(*root),
        Reference::Name(name) => {
            let entries = models.catalogue().model.iter();
            let entry = entries.clone().find(|entry| entry.name == *name);
            entry.map(|entry| entry.blake3)
        }
        Reference::Hub(_) | Reference::Path(_) => None,
    }
}
