//! Stages of models that are not here whole: composed from blocks, of which those that lack are fetched.

use super::{Content, ContentError};
use net::blobs::Provider;
use proto::gguf::{Header, plan};
use proto::host::Role;
use proto::ids::Hash;
use proto::manifest::{BlockKind, Manifest};
use proto::model::LayerRange;
use std::path::PathBuf;
use store::blocks::ModelBlocks;
use store::models::Model;
use store::progress::{Progress, Silent};
use store::stages::{Hollow, StageRequest, Stages};

/// A model that is not here whole, as far as its header says.
#[derive(Debug)]
pub struct Outline {
    /// The model; its file is all holes behind the header, and there for as long as this.
    pub model: Model,
    /// What that says.
    pub header: Header,
    _hollow: Hollow,
}

/// Where stages of one model come from.
#[derive(Debug, Clone)]
pub enum Cuts {
    /// The whole model is here, and they are cut from it.
    Whole(Stages, Model),
    /// They are composed from blocks of it; what lacks comes from other members.
    Blocks(Content, Hash),
}

impl Cuts {
    /// The file of a stage.
    ///
    /// # Errors
    ///
    /// [`ContentError`].
    pub async fn get(&self, role: Role, layers: LayerRange) -> Result<PathBuf, ContentError> {
        match self {
            Self::Whole(files, model) => {
                let request = StageRequest {
                    source: model.path.clone(),
                    model: model.blake3,
                    role,
                    layers,
                };
                Ok(files.get(request).await?)
            }
            Self::Blocks(content, root) => content.stage(*root, role, layers, &Silent).await,
        }
    }
}

impl Content {
    /// A stage of a model, composed from blocks that are here or are fetched from other members.
    ///
    /// # Errors
    ///
    /// [`ContentError`].
    pub async fn stage(
        &self,
        root: Hash,
        role: Role,
        layers: LayerRange,
        progress: &dyn Progress,
    ) -> Result<PathBuf, ContentError> {
        let (manifest, providers) = self.known(root).await?;
        let source = self.header(&manifest, &providers).await?;
        let what = format!("layers {layers} of {}", manifest.name);
        let needed = source.needed(&plan(source.header(), role, layers)?);
        self.fetch(root, &what, &needed, &providers, progress)
            .await?;
        let files = &self.inner.files;
        Ok(files.get_from_blocks(source, role, layers).await?)
    }

    /// A model that other members have, as far as it can be planned and weighed with: no more than its header is fetched.
    ///
    /// # Errors
    ///
    /// [`ContentError`].
    pub async fn outline(&self, root: Hash) -> Result<Outline, ContentError> {
        let (manifest, providers) = self.known(root).await?;
        let source = self.header(&manifest, &providers).await?;
        let header = source.header().clone();
        let hollow = self.inner.files.hollow_model(source).await?;
        let model = Model {
            path: hollow.path().to_owned(),
            blake3: root,
            name: manifest.name,
            bytes: manifest.contents.bytes,
            licence: manifest.licence,
            sampling: None,
        };
        Ok(Outline {
            model,
            header,
            _hollow: hollow,
        })
    }

    /// Fetches what lacks of all that a coordinator computes at least: embedding, first and last layer, head.
    ///
    /// # Errors
    ///
    /// [`ContentError`].
    pub async fn ends(&self, root: Hash, progress: &dyn Progress) -> Result<(), ContentError> {
        let (manifest, providers) = self.known(root).await?;
        let source = self.header(&manifest, &providers).await?;
        let layers = source.header().layers();
        let ends = [(Role::Head, 0, 1), (Role::Tail, layers.max(1) - 1, layers)];
        let mut needed = Vec::new();
        for (role, first, end) in ends {
            let layers = LayerRange { first, end };
            needed.extend(source.needed(&plan(source.header(), role, layers)?));
        }
        needed.sort_by_key(|block| block.hash);
        needed.dedup();
        let what = format!("embedding, ends and head of {}", manifest.name);
        self.fetch(root, &what, &needed, &providers, progress).await
    }

    /// What most members say that a model consists of, and who has it. Where nobody answers, what was said before counts.
    async fn known(&self, root: Hash) -> Result<(Manifest, Vec<Provider>), ContentError> {
        match self.survey(root).await {
            Err(nobody @ ContentError::Nobody { .. }) => {
                let before = self.inner.blocks.manifest(root).ok_or(nobody)?;
                Ok(((*before).clone(), Vec::new()))
            }
            known => known,
        }
    }

    /// A model's header, fetched if it is not here.
    async fn header(
        &self,
        manifest: &Manifest,
        providers: &[Provider],
    ) -> Result<ModelBlocks, ContentError> {
        let contents = &manifest.contents;
        let what = format!("the header of {}", manifest.name);
        let header = Vec::from_iter(contents.block(BlockKind::Header).copied());
        self.fetch(contents.root, &what, &header, providers, &Silent)
            .await?;
        Ok(ModelBlocks::open(&self.inner.blocks, contents).await?)
    }
}
