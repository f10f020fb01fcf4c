//! Forming a ring: everybody loads, then the hops are connected.

use super::laps::Laps;
use super::place::{Layout, Placing};
use super::{News, Ring, StageHost, Work, engine_down, read_frames};
use engine::Supervisor;
use net::{HopReceiver, HopSender};
use proto::host::{Loaded, Part, Role};
use proto::ids::{NodeId, RingId};
use proto::member::Member;
use proto::model::{LayerRange, WireType};
use proto::ring::{CHUNK_ROWS, Contract, HopHello, LinkBody, OpenRing, RefusalCode, RingReady};
use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use store::stages::StageRequest;
use swarm::split::Split;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// How long stages have to load.
const LOAD_MAX: Duration = Duration::from_secs(120);

/// How long stages have to say that they load.
const FIRST_WORD_MAX: Duration = Duration::from_secs(10);

/// A ring that was not formed.
#[derive(Debug, thiserror::Error)]
#[error("no ring was formed: {why}")]
pub(super) struct FormError {
    pub(super) why: String,
    /// Who refused or was lost.
    pub(super) node: Option<NodeId>,
}

fn fault(why: impl Into<String>, node: Option<NodeId>) -> FormError {
    FormError {
        why: why.into(),
        node,
    }
}

/// What a stage is to compute, given what the engine here says of itself.
pub(crate) fn contract(
    model: proto::ids::Hash,
    layers: LayerRange,
    numerics: proto::model::Numerics,
    loaded: &Loaded,
) -> Contract {
    Contract {
        model,
        layers,
        build: loaded.build.clone(),
        cpu_class: loaded.cpu_class.clone(),
        kv_type: loaded.kv_type.clone(),
        flash_attention: loaded.flash_attention,
        chunk_rows: CHUNK_ROWS,
        numerics,
        wire: WireType::F32,
    }
}

impl Work {
    /// Forms a ring as laid out.
    pub(super) async fn form(
        &mut self,
        id: RingId,
        layout: Layout,
    ) -> Result<Arc<Ring>, FormError> {
        let engine = self.ends(&layout.split).await?;
        let host = engine
            .ready()
            .await
            .map_err(|error| fault(engine_down(&error), None))?;
        let deadline = Instant::now() + LOAD_MAX;
        let opened = self.open(id, &layout, host.loaded());
        let formed = match opened {
            Ok(()) => self.connect(id, &layout.hosts, deadline).await,
            Err(error) => Err(error),
        };
        if formed.is_err() {
            for member in &layout.hosts {
                // Whoever is lost learns it by itself.
                let _ = self.plan.links.send(member.id, LinkBody::CloseRing(id));
            }
        }
        let (ready, sender, receiver) = formed?;
        let ends = (engine, host.loaded());
        Ok(self.publish_ring(id, ends, layout, ready, (sender, receiver)))
    }

    /// Head and tail with the layers that stay here; those that are loaded already, if they are the same.
    async fn ends(&mut self, split: &Split) -> Result<Arc<Supervisor>, FormError> {
        if let Some((loaded, engine)) = &self.ends
            && (loaded.head, loaded.tail) == (split.head, split.tail)
        {
            return Ok(engine.clone());
        }
        // The memory of the former ones is needed.
        self.ends = None;
        if let Placing::Weighed(placement) = &self.plan.placing {
            let kept = placement.keep(split.head.len() + split.tail.len());
            kept.map_err(|error| fault(error.to_string(), None))?;
        }
        let mut parts = Vec::new();
        for (role, layers) in [(Role::Head, split.head), (Role::Tail, split.tail)] {
            let request = StageRequest {
                source: self.plan.model.path.clone(),
                model: self.plan.model.blake3,
                role,
                layers,
            };
            let file = self.plan.files.get(request).await;
            let file = file.map_err(|error| fault(error.to_string(), None))?;
            parts.push(Part::of(role, &file));
        }
        // The stages elsewhere, and head and tail here.
        let lanes = split.remote.len() as u32 + 1;
        let engine = Arc::new(self.plan.engine.start(&self.plan.model, parts, lanes));
        self.ends = Some((split.clone(), engine.clone()));
        Ok(engine)
    }

    /// Asks every chosen member to load its stage.
    fn open(&self, id: RingId, layout: &Layout, loaded: &Loaded) -> Result<(), FormError> {
        let (this, chosen) = (self.plan.links.this_member(), &layout.hosts);
        for (i, (member, layers)) in chosen.iter().zip(&layout.split.remote).enumerate() {
            let open = OpenRing {
                ring: id,
                stage: i as u32 + 1,
                stages: chosen.len() as u32,
                contract: contract(
                    self.plan.model.blake3,
                    *layers,
                    self.plan.engine.numerics,
                    loaded,
                ),
                predecessor: if i == 0 { this.id } else { chosen[i - 1].id },
                successor: chosen.get(i + 1).unwrap_or(&this).clone(),
                sessions_max: loaded.sessions_max,
                positions_max: loaded.positions_max,
                model_name: self.plan.model.name.clone(),
            };
            self.plan
                .links
                .send(member.id, LinkBody::OpenRing(Box::new(open)))
                .map_err(|error| fault(format!("{}: {error}", named(member)), Some(member.id)))?;
        }
        Ok(())
    }

    /// Waits until all have loaded and the last has called back, then calls the first.
    async fn connect(
        &mut self,
        id: RingId,
        chosen: &[Member],
        deadline: Instant,
    ) -> Result<(HashMap<NodeId, RingReady>, HopSender, HopReceiver), FormError> {
        let mut ready = HashMap::new();
        let mut heard = HashSet::new();
        let mut back = None;
        let first_word = Instant::now() + FIRST_WORD_MAX;
        while ready.len() < chosen.len() || back.is_none() {
            let all_heard = heard.len() == chosen.len();
            let until = if all_heard { deadline } else { first_word };
            let news = tokio::time::timeout_at(until, self.inbox.recv()).await;
            let news = news.map_err(|_| fault(late(chosen, &heard, &ready), None))?;
            let news = news.ok_or_else(|| fault("this node is shutting down", None))?;
            self.note(&news);
            match news {
                News::Loading(node, ring) if ring == id => {
                    heard.insert(node);
                }
                News::Ready(node, it) if it.ring == id => {
                    heard.insert(node);
                    ready.insert(node, it);
                }
                News::Refused(node, it) if it.ring == id => {
                    let who = chosen
                        .iter()
                        .find(|m| m.id == node)
                        .map(named)
                        .unwrap_or_default();
                    return Err(fault(format!("{who} says: {}", it.detail), Some(node)));
                }
                News::Lost(node, reason) => {
                    if let Some(member) = chosen.iter().find(|m| m.id == node) {
                        let why = format!("{} is lost: {reason}", named(member));
                        return Err(fault(why, Some(node)));
                    }
                }
                News::Hop(hop) => {
                    let last = chosen.last().map(|member| member.id);
                    if hop.hello.ring == id
                        && hop.hello.from_stage == chosen.len() as u32
                        && Some(hop.peer) == last
                    {
                        back = hop.accept().await.ok();
                    } else {
                        hop.refuse(RefusalCode::NotAMember).await;
                    }
                }
                _ => {}
            }
        }
        let membership = self.plan.membership.clone();
        let hello = HopHello {
            ring: id,
            from_stage: 0,
            membership,
        };
        let sender = self.plan.net.dial_hop(&chosen[0], &hello).await;
        let sender = sender.map_err(|error| fault(error.to_string(), Some(chosen[0].id)))?;
        let receiver = back.ok_or_else(|| fault("the last stage hung up", None))?;
        Ok((ready, sender, receiver))
    }

    fn publish_ring(
        &self,
        id: RingId,
        (engine, loaded): (Arc<Supervisor>, &Loaded),
        layout: Layout,
        mut ready: HashMap<NodeId, RingReady>,
        (sender, receiver): (HopSender, HopReceiver),
    ) -> Arc<Ring> {
        let host = |(i, member): (usize, Member)| {
            let ready = ready.remove(&member.id)?;
            let same_class = ready.contract.cpu_class == loaded.cpu_class;
            Some(StageHost {
                stage: i as u32 + 1,
                same_class,
                member,
                ready,
            })
        };
        let stages = layout
            .hosts
            .iter()
            .cloned()
            .enumerate()
            .filter_map(host)
            .collect();
        let ring = Arc::new(Ring {
            id,
            stages,
            engine,
            layout,
            laps: Laps::default(),
            links: self.plan.links.clone(),
            hop: tokio::sync::Mutex::new(sender),
            sessions: Mutex::default(),
            ended: CancellationToken::new(),
            broken: Mutex::default(),
        });
        // Ends with the ring's token, which the coordinator fires.
        self.tasks.spawn(read_frames(ring.clone(), receiver));
        ring
    }
}

fn named(member: &Member) -> String {
    format!("node {} \"{}\"", member.id.short(), member.name)
}

/// Who keeps the others waiting, and with what.
fn late(chosen: &[Member], heard: &HashSet<NodeId>, ready: &HashMap<NodeId, RingReady>) -> String {
    let names = |missing: &dyn Fn(&NodeId) -> bool| -> String {
        let missing = chosen.iter().filter(|m| missing(&m.id)).map(named);
        missing.collect::<Vec<_>>().join(", ")
    };
    let silent = names(&|id| !heard.contains(id));
    if silent.is_empty() {
        let missing = names(&|id| !ready.contains_key(id));
        return format!("{missing} did not load within {} s", LOAD_MAX.as_secs());
    }
    let s = FIRST_WORD_MAX.as_secs();
    format!("{silent} did not say within {s} s that it loads")
}
