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
mod tests {
    use super::*;
    use engine::{Launch, Ward};
    use proto::host::KvType;
    use proto::model::{Catalogue, Numerics};
    use std::path::PathBuf;
    use std::sync::Arc;
    use store::models::ModelsConfig;
    use store::sources::{Hub, Pip};

    const MODEL: Hash = Hash([1; 32]);
    const LAYERS: LayerRange = LayerRange { first: 1, end: 3 };

    /// An engine that cannot be started: whoever asks it is found out.
    fn engine() -> EngineSettings {
        EngineSettings {
            launch: Launch {
                program: PathBuf::from("/nowhere/myzel"),
                args: Vec::new(),
            },
            numerics: Numerics::Exact,
            positions_max: 512,
            sessions_max: 2,
            kv: KvType::F16,
            rope_scale: None,
            kv_bytes_max: None,
            threads: Some(1),
            allow_unsandboxed: false,
            ward: Arc::new(Ward::new([], Box::new(|_, _| {}))),
        }
    }

    fn models(dir: &Path) -> Models {
        let config = ModelsConfig {
            dir: dir.to_owned(),
            shared: Vec::new(),
            catalogue: Catalogue { model: Vec::new() },
            pip: Pip::default(),
            hub: Hub::from_env(),
            state: None,
        };
        Models::open(config).unwrap()
    }

    async fn weigh(scales: &Scales<'_>, slice: Slice) -> Result<Memory, EngineError> {
        let files = async { Ok(vec![PathBuf::from("stage.gguf")]) };
        scales.weigh(&[slice], files).await
    }

    #[tokio::test]
    async fn what_was_counted_before_starts_no_engine_and_anything_else_does() {
        let dir = tempfile::tempdir().unwrap();
        let (models, engine) = (models(dir.path()), engine());
        let scales = Scales {
            engine: &engine,
            models: &models,
            model: MODEL,
        };
        let slice = (Role::Middle, LAYERS);
        weigh(&scales, slice).await.unwrap_err();
        let counted = Memory {
            weights_bytes: 5,
            ..Memory::default()
        };
        let key = scales.key(&[slice]);
        models.keep_memory(MODEL, key, counted).await.unwrap();
        assert_eq!(weigh(&scales, slice).await.unwrap(), counted);

        let longer = LayerRange { end: 4, ..LAYERS };
        weigh(&scales, (Role::Middle, longer)).await.unwrap_err();
        weigh(&scales, (Role::Tail, LAYERS)).await.unwrap_err();
        let other = Hash([2; 32]);
        let of_other = Scales {
            model: other,
            ..scales
        };
        weigh(&of_other, slice).await.unwrap_err();
        let changes: [fn(&mut EngineSettings); 6] = [
            |engine| engine.positions_max = 1024,
            |engine| engine.sessions_max = 3,
            |engine| engine.kv = KvType::Q8_0,
            |engine| engine.numerics = Numerics::Throughput,
            |engine| engine.threads = Some(2),
            |engine| engine.kv_bytes_max = Some(1),
        ];
        for change in changes {
            let mut changed = engine.clone();
            change(&mut changed);
            let engine = &changed;
            weigh(&Scales { engine, ..scales }, slice)
                .await
                .unwrap_err();
        }
    }
}
