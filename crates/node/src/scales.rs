//! What engine-hosts take in memory. The engine itself counts it, in a process of its own; what it said is kept with the
//! model, so that it is asked once.

use crate::home::EngineSettings;
use engine::EngineError;
use engine_host::llama::BUILD;
use proto::codec;
use proto::gguf::CUT_FORMAT;
use proto::host::{Call, Memory, Part, Role, Task};
use proto::ids::Hash;
use proto::model::LayerRange;
use std::future::Future;
use std::path::Path;
use std::thread::available_parallelism;
use store::models::Models;

/// A part of a model, wherever its file is.
pub type Slice = (Role, LayerRange);

/// Weighs parts of one model.
#[derive(Debug, Clone, Copy)]
pub struct Scales<'a> {
    /// How the engine-host will be set up.
    pub engine: &'a EngineSettings,
    /// Where what was counted is kept.
    pub models: &'a Models,
    /// The model's root.
    pub model: Hash,
}

impl Scales<'_> {
    /// The memory of an engine-host with these parts loaded. Their `files`, one a part, are asked for only when they have
    /// to be looked at.
    ///
    /// # Errors
    ///
    /// What `files` says, or the engine's [`EngineError`]; neither is kept.
    pub async fn weigh<F, E>(
        &self,
        slices: &[Slice],
        files: impl Future<Output = Result<Vec<F>, E>>,
    ) -> Result<Memory, E>
    where
        F: AsRef<Path>,
        E: From<EngineError>,
    {
        let key = self.key(slices);
        if let Some(known) = self.models.memory(self.model, key).await {
            return Ok(known);
        }
        let files = files.await?;
        let parts = slices.iter().zip(&files);
        let parts = parts.map(|((role, _), file)| Part::of(*role, file.as_ref()));
        let spec = self.engine.load(parts.collect(), 1);
        let counted = engine::estimate(&self.engine.launch, spec).await?;
        if let Err(error) = self.models.keep_memory(self.model, key, counted).await {
            tracing::warn!(%error, "the memory that a model takes is not remembered");
        }
        Ok(counted)
    }

    /// The hash of all that the memory depends on beside the model: the parts, how they are cut and run, the build, and
    /// the cores, as each thread has memory of its own.
    fn key(&self, slices: &[Slice]) -> Hash {
        let named = |(role, layers): &Slice| Part {
            role: *role,
            files: vec![format!("{layers}, cut {CUT_FORMAT}")],
        };
        let spec = self.engine.load(slices.iter().map(named).collect(), 1);
        let call = Call {
            id: 0,
            task: Task::Estimate(spec),
        };
        let cores = available_parallelism().map_or(1, usize::from);
        let version = env!("CARGO_PKG_VERSION");
        let ground = format!("{version}\0{BUILD}\0{cores}\0");
        Hash::of(&[ground.as_bytes(), &codec::to_vec(&call)].concat())
    }
}

#[cfg(test)]
mod tests;
