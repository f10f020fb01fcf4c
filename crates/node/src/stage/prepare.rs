//! Everything up to a stage that can serve: its file, its engine, the hop to the next one.

use super::hosted::Hosted;
use super::neighbour::{self, Outlet};
use super::refusal::{Refusal, refusal};
use super::told::Told;
use super::warm::{InUse, Warm};
use super::{EARLY_HOP_MAX, EARLY_HOP_POLL, Input, Needs};
use crate::content::ContentError;
use crate::home::EngineSettings;
use crate::memory::Reserved;
use crate::ring::form::contract;
use crate::sandbox;
use crate::scales::Scales;
use engine::{EngineError, Supervisor};
use proto::host::{KvType, Loaded, Part, Role};
use proto::ids::{Hash, NodeId};
use proto::ring::{Contract, HopHello, OpenRing, RefusalCode};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;
use store::models::Model;
use store::stages::StageRequest;

/// A stage's engine that has loaded, with the memory that it takes of what this node gives.
pub(super) struct Engine {
    /// What this node computes.
    pub(super) mine: Contract,
    pub(super) engine: Arc<Supervisor>,
    pub(super) memory: Option<Reserved>,
}

/// A stage that has loaded.
pub(super) struct Prepared {
    /// What this node computes.
    pub(super) mine: Contract,
    pub(super) engine: Arc<Supervisor>,
    /// To the next stage.
    pub(super) hop: Outlet,
    /// Goes back when the stage ends.
    pub(super) in_use: InUse,
}

impl Needs {
    /// Everything up to a stage that can serve.
    pub(super) async fn prepare(
        &self,
        coordinator: NodeId,
        open: &OpenRing,
    ) -> Result<Prepared, Refusal> {
        let Engine {
            mine,
            engine,
            memory,
        } = self.engine(coordinator, open, true).await?;
        let hop = self.call_successor(open).await?;
        Ok(Prepared {
            mine,
            hop,
            engine: engine.clone(),
            in_use: InUse::new(&self.warm, open, engine, memory),
        })
    }

    /// A stage's engine, loaded and compared; one that was kept, if there is one. Others that are kept make room where that is
    /// asked for.
    pub(super) async fn engine(
        &self,
        coordinator: NodeId,
        open: &OpenRing,
        makes_room: bool,
    ) -> Result<Engine, Refusal> {
        let (engine, memory, model) = match Warm::take(&self.warm, open) {
            Some((engine, memory)) => (engine, memory, open.contract.model),
            None => {
                let (model, file) = self.stage_file(coordinator, open).await?;
                let memory = self.reserve(open, &file, makes_room).await?;
                let engine = Arc::new(self.load(open, &model, &file));
                (engine, memory, model.blake3)
            }
        };
        let host = engine.ready().await?;
        self.check_sandbox(host.loaded())?;
        let (layers, numerics) = (open.contract.layers, open.contract.numerics);
        let mine = contract(model, layers, numerics, host.loaded());
        compare(&mine, open, host.loaded())?;
        Ok(Engine {
            mine,
            engine,
            memory,
        })
    }

    /// Takes the memory that a stage will need, of what this node gives.
    async fn reserve(
        &self,
        open: &OpenRing,
        file: &Path,
        makes_room: bool,
    ) -> Result<Option<Reserved>, Refusal> {
        let engine = self.settings(open);
        let scales = Scales {
            engine: &engine,
            models: &self.models,
            model: open.contract.model,
        };
        let slice = (Role::Middle, open.contract.layers);
        let file = async { Ok::<_, EngineError>(vec![file]) };
        match scales.weigh(&[slice], file).await {
            Ok(memory) => {
                let bytes = memory.total_bytes();
                let mut reserved = self.budget.reserve(bytes);
                if reserved.is_err() && makes_room {
                    self.hosted().stop_shadows(None);
                    self.closed(Hosted::is_shadow).await;
                    self.warm.clear();
                    reserved = self.budget.reserve(bytes);
                }
                Ok(Some(
                    reserved.map_err(|error| refusal(RefusalCode::NoRoom, error))?,
                ))
            }
            Err(error @ EngineError::Failed(_)) => Err(error.into()),
            // A file that processes die of is counted where it is loaded.
            Err(_) => Ok(None),
        }
    }

    /// The file of a stage: cut from the model, where that is here, else composed from blocks that other members have.
    async fn stage_file(
        &self,
        coordinator: NodeId,
        open: &OpenRing,
    ) -> Result<(Model, PathBuf), Refusal> {
        let (root, layers) = (open.contract.model, open.contract.layers);
        let (role, unusable) = (Role::Middle, |error| {
            refusal(RefusalCode::ModelUnusable, error)
        });
        if let Some(model) = self.find(root).await {
            let request = StageRequest {
                source: model.path.clone(),
                model: model.blake3,
                role,
                layers,
            };
            let file = self.files.get(request).await.map_err(unusable)?;
            return Ok((model, file));
        }
        let told = Told::new(self.links.clone(), coordinator, open.ring);
        let file = self.content.stage(root, role, layers, &told).await;
        let file = file.map_err(|error| missing(open, &error))?;
        let model = Model {
            path: file.clone(),
            blake3: root,
            name: open.model_name.clone(),
            bytes: 0,
            licence: None,
            sampling: None,
        };
        Ok((model, file))
    }

    /// The whole model, if it is here.
    async fn find(&self, root: Hash) -> Option<Model> {
        if let Some(own) = self.own.get().filter(|own| own.blake3 == root) {
            return Some(own.clone());
        }
        let models = self.models.clone();
        let found = tokio::task::spawn_blocking(move || models.find_by_hash(root));
        found.await.ok().flatten()
    }

    /// Strangers are served by an engine that is locked up, or by the owner's own decision.
    fn check_sandbox(&self, loaded: &Loaded) -> Result<(), Refusal> {
        match sandbox::hosting_refused(&loaded.sandbox, self.engine.allow_unsandboxed) {
            Some(why) => Err(refusal(RefusalCode::Unsandboxed, why)),
            None => Ok(()),
        }
    }

    fn load(&self, open: &OpenRing, model: &Model, file: &Path) -> Supervisor {
        let parts = vec![Part::of(Role::Middle, file)];
        self.settings(open).start(model, parts, 1)
    }

    /// The engine's settings for a stage.
    fn settings(&self, open: &OpenRing) -> EngineSettings {
        EngineSettings {
            numerics: open.contract.numerics,
            positions_max: open.positions_max,
            sessions_max: open.sessions_max,
            // A type that is not known here is found by comparing contracts.
            kv: KvType::named(&open.contract.kv_type).unwrap_or_default(),
            ..self.engine.clone()
        }
    }

    pub(super) async fn call_successor(&self, open: &OpenRing) -> Result<Outlet, Refusal> {
        if open.successor.id == self.net.id() {
            return self.join_own(open).await;
        }
        let membership = self.membership.clone();
        let hello = HopHello {
            ring: open.ring,
            from_stage: open.stage,
            membership,
        };
        let called = self.net.dial_hop(&open.successor, &hello).await;
        let hop = called.map_err(|error| refusal(RefusalCode::SuccessorLost, error))?;
        Ok(Outlet::Net(Box::new(hop)))
    }

    /// The next stage is hosted here as well; it may be known a little later.
    async fn join_own(&self, open: &OpenRing) -> Result<Outlet, Refusal> {
        let lost = || {
            let detail = "the next stage on this node is not there";
            refusal(RefusalCode::SuccessorLost, detail)
        };
        let deadline = Instant::now() + EARLY_HOP_MAX;
        let next = loop {
            let next = self.hosted().inputs(open.ring, open.stage + 1);
            match next {
                Some(next) => break next,
                None if Instant::now() < deadline => tokio::time::sleep(EARLY_HOP_POLL).await,
                None => return Err(lost()),
            }
        };
        let (outlet, inlet) = neighbour::here();
        let told = next.try_send(Input::Inlet(inlet));
        told.map(|()| outlet).map_err(|_| lost())
    }
}

fn missing(open: &OpenRing, error: &ContentError) -> Refusal {
    let (name, root) = (&open.model_name, open.contract.model);
    match error {
        ContentError::Nobody { .. } => {
            let detail = format!(
                "the model {name:?} (BLAKE3 {}) is neither on this node nor on one that it is linked to; fetch it \
                 there with: myzel model pull {name}",
                root.short()
            );
            refusal(RefusalCode::ModelMissing, detail)
        }
        error => refusal(RefusalCode::ModelUnusable, error),
    }
}

fn compare(mine: &Contract, open: &OpenRing, loaded: &Loaded) -> Result<(), Refusal> {
    if let Some(what) = mine.conflict(&open.contract) {
        let detail = format!("this node differs in: {what}; run the same version of Myzel on both");
        return Err(refusal(RefusalCode::ContractMismatch, detail));
    }
    if loaded.positions_max < open.positions_max {
        return Err(refusal(
            RefusalCode::NoRoom,
            "the context does not fit here",
        ));
    }
    if loaded.sessions_max < open.sessions_max {
        let detail = format!(
            "{} requests at once are asked for, and this node's memory for caches (--kv-memory) has room for {}",
            open.sessions_max, loaded.sessions_max
        );
        return Err(refusal(RefusalCode::NoRoom, detail));
    }
    Ok(())
}
