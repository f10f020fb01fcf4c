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
        guesses_max: 8,
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
