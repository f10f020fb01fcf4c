//! A whole model out of its blocks.

use super::pull::record_of;
use super::{Models, PullError, Pulled};
use crate::blocking::{Stop, blocking};
use crate::blocks::ModelBlocks;
use crate::durable::FileError;
use crate::intake::{CHUNK_BYTES, Digests, Intake, WriteError};
use crate::progress::{Meter, Progress, Span};
use crate::reference::check_name;
use crate::staging::MODEL_PART;
use proto::manifest::Manifest;
use std::path::Path;
use std::sync::Arc;

impl Models {
    /// Puts a model's file together from its blocks, which are all here, and takes it into the store once it is what its
    /// root says. The blocks are then served from that file, and their copies go.
    ///
    /// # Errors
    ///
    /// [`PullError`]; [`PullError::FalseManifest`] when every block is as the manifest says and the file is not the model.
    pub async fn adopt(
        &self,
        source: ModelBlocks,
        manifest: &Manifest,
        progress: Arc<dyn Progress>,
    ) -> Result<Pulled, PullError> {
        let (name, contents) = (manifest.name.clone(), source.contents().clone());
        check_name(&name).map_err(|why| PullError::BadName {
            name: name.clone(),
            why,
        })?;
        self.refuse_taken(&name, |record| record.blake3 == contents.root)?;
        let meter = Meter::new(progress);
        meter.set_total(contents.bytes);
        let staging = self.claim(contents.root, &name)?;
        let (part, work) = (staging.path(MODEL_PART), Arc::clone(&meter));
        let phase = format!("putting {name} together");
        let (path, source, digests) = blocking(move |stop| {
            let span = work.span(&phase, 0..1000, source.contents().bytes);
            let digests = assemble(&source, &part, &span, stop)?;
            Ok::<_, PullError>((part, source, digests))
        })
        .await?;
        if digests.blake3 != contents.root {
            staging.discard()?;
            return Err(PullError::FalseManifest {
                name,
                maker: manifest.maker,
            });
        }
        let origin = format!("peers, after the manifest of {}", manifest.maker);
        let record = record_of(name, manifest.licence.clone(), origin, &digests);
        let pulled = self.admit(staging, path, record, &meter).await?;
        let file = pulled.model.path.clone();
        blocking(move |_| source.blocks().offer_whole(&contents, &file)).await?;
        Ok(pulled)
    }
}

/// Writes the whole file, and hashes it.
fn assemble(
    source: &ModelBlocks,
    part: &Path,
    span: &Span,
    stop: &Stop,
) -> Result<Digests, PullError> {
    let bytes = source.contents().bytes;
    let mut intake = Intake::begin(part, bytes)?;
    let mut buffer = vec![0; CHUNK_BYTES];
    while intake.bytes() < bytes {
        if stop.asked() {
            return Err(WriteError::Stopped.into());
        }
        let left = usize::try_from(bytes - intake.bytes()).unwrap_or(CHUNK_BYTES);
        let chunk = &mut buffer[..left.min(CHUNK_BYTES)];
        let read = source.read_exact_at(chunk, intake.bytes())?;
        read.map_err(FileError::of("read the blocks for", part))?;
        intake.write(chunk)?;
        span.at(intake.bytes());
    }
    Ok(intake.finish()?)
}
