//! Whole engine-hosts, sealed as always, kept by a supervisor as in a node.

use crate::Test;
use crate::models::{aborts_at_load, aborts_in_a_step, small, splits};
use engine::{EngineError, Host, Launch, Patient, Supervisor, Ward};
use proto::host::{Answer, Draw, FailCode, LoadSpec, Output, Part, Role, Run, SandboxLevel};
use proto::ids::{Hash, SessionId};
use proto::model::{Numerics, Sampling};
use std::path::PathBuf;
use std::sync::Arc;

pub(crate) const TESTS: &[Test] = &[
    ("a_sealed_host_loads_and_computes", computes),
    ("a_sealed_host_loads_splits", loads_splits),
    ("memory_that_cannot_suffice_is_an_error", no_memory),
    ("memory_that_runs_out_is_an_error", little_memory),
    (
        "a_model_that_aborts_at_load_is_quarantined",
        quarantined_at_load,
    ),
    (
        "a_model_that_aborts_in_a_step_is_quarantined",
        quarantined_in_steps,
    ),
];

const MODEL: Hash = Hash([7; 32]);

pub(crate) fn spec(files: &[PathBuf]) -> LoadSpec {
    let files = files.iter().map(|file| file.display().to_string());
    let part = Part {
        role: Role::Whole,
        files: files.collect(),
    };
    LoadSpec {
        positions_max: 64,
        sessions_max: 2,
        step_rows_max: 16,
        threads: Some(2),
        ..LoadSpec::new(vec![part], Numerics::Exact)
    }
}

/// Runs a test in a runtime, with a directory and a ward of its own.
pub(crate) fn with_ward<F: Future<Output = ()>>(test: impl FnOnce(PathBuf, Arc<Ward>) -> F) {
    let dir = tempfile::tempdir().unwrap();
    let ward = Arc::new(Ward::new([], Box::new(|_, _| {})));
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    runtime.unwrap().block_on(test(dir.path().to_owned(), ward));
}

pub(crate) fn start(spec: LoadSpec, ward: &Arc<Ward>) -> Supervisor {
    let launch = Launch {
        program: std::env::current_exe().unwrap(),
        args: vec!["engine-host".to_owned()],
    };
    let patient = Patient {
        model: MODEL,
        name: "bent".to_owned(),
        ward: ward.clone(),
    };
    Supervisor::start(launch, spec, patient)
}

/// Draws eight tokens.
async fn ask(host: &Host) -> Result<usize, EngineError> {
    let sampling = Sampling {
        temperature: 0.0,
        top_k: 0,
        top_p: 1.0,
        seed: 0,
    };
    let draw = Draw {
        sampling,
        burst: 8,
        then_head: false,
    };
    let run = Run {
        session: SessionId([1; 16]),
        role: Role::Whole,
        position: 0,
        tokens: vec![1, 2, 3],
        output: Output::Token(draw),
        scope: None,
        adapters: Vec::new(),
        guesses: Vec::new(),
    };
    let mut answers = host.run(run, &[])?;
    let mut tokens = 0;
    while let Some(answer) = answers.next().await {
        assert!(matches!(answer?.0, Answer::Token(_)));
        tokens += 1;
    }
    Ok(tokens)
}

fn computes() {
    with_ward(|dir, ward| async move {
        let supervisor = start(spec(&[small(&dir)]), &ward);
        let host = supervisor.ready().await.unwrap();
        let sandbox = &host.loaded().sandbox;
        if cfg!(target_os = "linux") {
            assert_eq!(sandbox.level, SandboxLevel::Full, "{sandbox:?}");
        } else {
            assert_eq!(sandbox.level, SandboxLevel::ProcessOnly);
        }
        assert!(ask(&host).await.unwrap() > 0);
        assert!(host.stats().await.unwrap().resident_bytes > 1 << 20);
    });
}

fn loads_splits() {
    with_ward(|dir, ward| async move {
        let supervisor = start(spec(&splits(&dir)), &ward);
        let host = supervisor.ready().await.unwrap();
        assert!(ask(&host).await.unwrap() > 0);
        // The second file is what it takes: without it nothing loads.
        let error = start(spec(&splits(&dir)[..1]), &ward).ready().await;
        assert!(error.is_err());
    });
}

fn no_memory() {
    with_ward(|dir, ward| async move {
        let spec = LoadSpec {
            memory_bytes_max: Some(1 << 20),
            ..spec(&[small(&dir)])
        };
        match start(spec, &ward).ready().await {
            Err(EngineError::Failed(failed)) => {
                assert_eq!(failed.code, FailCode::NoRoom);
                assert!(
                    failed.detail.contains("1048576 bytes of memory"),
                    "{failed}"
                );
            }
            other => panic!("{other:?}"),
        }
        assert_eq!(ward.quarantined(), []);
    });
}

/// The files fit, the caches do not.
fn little_memory() {
    with_ward(|dir, ward| async move {
        let greedy = LoadSpec {
            memory_bytes_max: Some(400 << 20),
            // As long as this model can be stretched.
            positions_max: 1 << 17,
            rope_scale: Some(32.0),
            sessions_max: 16,
            ..spec(&[small(&dir)])
        };
        let error = start(greedy.clone(), &ward).ready().await.unwrap_err();
        let failed =
            matches!(&error, EngineError::Failed(failed) if failed.code == FailCode::NoRoom);
        assert!(failed, "{error}");
        // The same with less to hold fits.
        let modest = LoadSpec {
            positions_max: 64,
            sessions_max: 1,
            ..greedy
        };
        let supervisor = start(modest, &ward);
        assert!(ask(&supervisor.ready().await.unwrap()).await.unwrap() > 0);
    });
}

fn says_why(error: &EngineError) {
    let EngineError::Quarantined(why) = error else {
        panic!("{error:?}")
    };
    for part in [
        "bent",
        "3 engine processes died",
        "SIGABRT",
        "GGML_ASSERT",
        "myzel model release",
    ] {
        assert!(why.contains(part), "{part:?} is not in: {why}");
    }
}

/// Waits until the supervisor is in quarantine.
async fn until_quarantined(supervisor: &Supervisor) {
    let mut state = supervisor.watch();
    let quarantined = |state: &engine::State| matches!(state, engine::State::Quarantined(_));
    drop(state.wait_for(quarantined).await.unwrap());
}

fn quarantined_at_load() {
    with_ward(|dir, ward| async move {
        let path = aborts_at_load(&dir);
        let supervisor = start(spec(std::slice::from_ref(&path)), &ward);
        let error = supervisor.ready().await.unwrap_err();
        assert!(
            matches!(error, EngineError::Down(_)),
            "the first time: {error:?}"
        );
        assert!(error.to_string().contains("SIGABRT"), "{error}");
        until_quarantined(&supervisor).await;
        says_why(&supervisor.host().unwrap_err());
        // Another one does not even try.
        says_why(&start(spec(&[path]), &ward).ready().await.unwrap_err());
        assert_eq!(ward.quarantined()[0].1.times_s.len(), 3);

        // Released, and meanwhile mended, it works.
        std::fs::copy(small(&dir), dir.join("twice.gguf")).unwrap();
        assert!(ward.release(MODEL));
        let mut state = supervisor.watch();
        let up = |state: &engine::State| matches!(state, engine::State::Up(_));
        drop(state.wait_for(up).await.unwrap());
        assert!(ask(&supervisor.host().unwrap()).await.unwrap() > 0);
    });
}

fn quarantined_in_steps() {
    with_ward(|dir, ward| async move {
        let supervisor = start(spec(&[aborts_in_a_step(&dir)]), &ward);
        let mut state = supervisor.watch();
        for _ in 0..3 {
            assert_eq!(ward.quarantined(), []);
            let up = |state: &engine::State| matches!(state, engine::State::Up(_));
            drop(state.wait_for(up).await.unwrap());
            let host = supervisor.host().unwrap();
            let error = ask(&host).await.unwrap_err();
            assert!(matches!(error, EngineError::Died(_)), "{error:?}");
            assert!(error.to_string().contains("GGML_ASSERT"), "{error}");
            let gone = |state: &engine::State| !matches!(state, engine::State::Up(_));
            drop(state.wait_for(gone).await.unwrap());
        }
        until_quarantined(&supervisor).await;
        says_why(&supervisor.host().unwrap_err());
    });
}
