//! Forming a ring: everybody loads, then the hops are connected.

use super::guessing::Guessing;
use super::laps::Laps;
use super::loads::Loads;
use super::place::{Layout, Placing};
use super::up::read_frames;
use super::{News, Ring, StageHost, State, Work, engine_down};
use engine::Supervisor;
use net::{HopReceiver, HopSender, IncomingHop};
use proto::host::{Loaded, Part, Role};
use proto::ids::{NodeId, RingId};
use proto::member::Member;
use proto::model::{LayerRange, WireType};
use proto::ring::{CHUNK_ROWS, Contract, HopHello, LinkBody, OpenRing, RefusalCode, RingReady};
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex};
use swarm::split::Split;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

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
        let opened = self.open(id, &layout, host.loaded());
        let formed = match opened {
            Ok(()) => self.connect(id, &layout.hosts).await,
            Err(error) => Err(error),
        };
        if formed.is_err() {
            let new = layout
                .hosts
                .iter()
                .filter(|host| !self.keeps_any(host.id, &layout));
            new.for_each(|host| self.close(host.id, id));
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
            let file = self.plan.cuts.get(role, layers).await;
            let file = file.map_err(|error| fault(error.to_string(), None))?;
            parts.push(Part::of(role, &file));
        }
        // The stages elsewhere, and head and tail here.
        let lanes = split.remote.len() as u32 + 1;
        let engine = Arc::new(self.plan.engine.start(&self.plan.model, parts, lanes));
        self.ends = Some((split.clone(), engine.clone()));
        Ok(engine)
    }

    /// The lost ring of which this member has this very stage still, or as its standby.
    fn goes_on(&self, node: NodeId, layers: LayerRange) -> Option<RingId> {
        let lost = self.lost.as_ref()?;
        let mut places = lost.layout.hosts.iter().zip(&lost.layout.split.remote);
        let had = places.any(|(host, had)| host.id == node && *had == layers);
        // Who stands by for it may have its caches as well.
        (had || self.standbys.has(node, layers)).then_some(lost.ring)
    }

    /// Whether this member has a place that it had in the lost ring.
    fn keeps_any(&self, node: NodeId, layout: &Layout) -> bool {
        let mut places = layout.hosts.iter().zip(&layout.split.remote);
        places.any(|(host, layers)| host.id == node && self.goes_on(node, *layers).is_some())
    }

    /// Asks every chosen member to load its stage.
    fn open(&self, id: RingId, layout: &Layout, loaded: &Loaded) -> Result<(), FormError> {
        for (i, (member, layers)) in layout.hosts.iter().zip(&layout.split.remote).enumerate() {
            let continues = self.goes_on(member.id, *layers);
            if let Some(lost) = &self.lost
                && !self.keeps_any(member.id, layout)
            {
                // The memory of what it had is needed for what it is to have.
                self.close(member.id, lost.ring);
            }
            let open = self.request(id, (i, continues), layout, loaded);
            self.plan
                .links
                .send(member.id, LinkBody::OpenRing(Box::new(open)))
                .map_err(|error| fault(format!("{}: {error}", named(member)), Some(member.id)))?;
        }
        Ok(())
    }

    /// What the host of a stage, counted from 0, is asked for; and of which ring it goes on.
    pub(super) fn request(
        &self,
        ring: RingId,
        (at, continues): (usize, Option<RingId>),
        layout: &Layout,
        loaded: &Loaded,
    ) -> OpenRing {
        let (this, hosts) = (self.plan.links.this_member(), &layout.hosts);
        let before = at.checked_sub(1).map_or(&this, |before| &hosts[before]);
        let (model, layers) = (&self.plan.model, layout.split.remote[at]);
        OpenRing {
            ring,
            stage: at as u32 + 1,
            stages: hosts.len() as u32,
            contract: contract(model.blake3, layers, self.plan.engine.numerics, loaded),
            predecessor: before.id,
            successor: hosts.get(at + 1).unwrap_or(&this).clone(),
            sessions_max: loaded.sessions_max,
            positions_max: loaded.positions_max,
            model_name: model.name.clone(),
            continues,
        }
    }

    /// Waits until all have loaded and the last has called back, then calls the first.
    async fn connect(
        &mut self,
        id: RingId,
        chosen: &[Member],
    ) -> Result<(Vec<(NodeId, RingReady)>, HopSender, HopReceiver), FormError> {
        let mut loads = Loads::new(chosen, self.plan.model.bytes, Instant::now());
        let mut ready = Vec::new();
        let mut back = None;
        while !loads.all_ready() || back.is_none() {
            let news = tokio::time::timeout_at(loads.until(), self.inbox.recv()).await;
            let now = Instant::now();
            let news = news.map_err(|_| fault(loads.late(now), None))?;
            let news = news.ok_or_else(|| fault("this node is shutting down", None))?;
            self.note(&news);
            match news {
                News::Loading(node, ring) if ring == id => loads.loading(node, now),
                News::Progress(node, said) if said.ring == id => {
                    if loads.progress(node, said, now) {
                        self.publish_forming(id, &loads);
                    }
                }
                News::Ready(node, it) if it.ring == id => {
                    loads.ready(node, now);
                    ready.push((node, it));
                    self.publish_forming(id, &loads);
                }
                News::Hop(hop) => back = self.called_back(id, chosen, hop).await.or(back),
                news => broke_off(id, chosen, &news)?,
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

    /// Says how far those are that fetch their layers.
    fn publish_forming(&self, ring: RingId, loads: &Loads) {
        let progress = loads.words();
        self.publish.send_replace(State::Forming { ring, progress });
    }

    /// Takes the hop of the last stage, and no other.
    async fn called_back(
        &self,
        id: RingId,
        chosen: &[Member],
        hop: IncomingHop,
    ) -> Option<HopReceiver> {
        let last = chosen.last().map(|member| member.id);
        let expected = hop.hello.ring == id
            && hop.hello.from_stage == chosen.len() as u32
            && Some(hop.peer) == last;
        if expected {
            return hop.accept().await.ok();
        }
        hop.refuse(RefusalCode::NotAMember).await;
        None
    }

    fn publish_ring(
        &self,
        id: RingId,
        (engine, loaded): (Arc<Supervisor>, &Loaded),
        layout: Layout,
        ready: Vec<(NodeId, RingReady)>,
        (sender, receiver): (HopSender, HopReceiver),
    ) -> Arc<Ring> {
        let host = |(i, member): (usize, Member)| {
            let said = |(node, ready): &&(NodeId, RingReady)| {
                *node == member.id && ready.contract.layers == layout.split.remote[i]
            };
            let ready = ready.iter().find(said)?.1.clone();
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
            guessing: Guessing::new(self.plan.engine.guesses_max),
            links: self.plan.links.clone(),
            hop: tokio::sync::Mutex::new(sender),
            standbys: self.standbys.clone(),
            feeder: Mutex::default(),
            feeds: (self.plan.net.clone(), self.plan.membership.clone()),
            sessions: Mutex::default(),
            outlived: AtomicBool::new(false),
            ended: CancellationToken::new(),
            broken: Mutex::default(),
            moved: Mutex::new(Instant::now()),
            recovery: (self.recoveries.clone(), self.recovery),
        });
        // Ends with the ring's token, which the coordinator fires.
        self.tasks.spawn(read_frames(ring.clone(), receiver));
        ring
    }
}

/// Whether this ends the forming of a ring: a stage refuses, or is lost.
fn broke_off(id: RingId, chosen: &[Member], news: &News) -> Result<(), FormError> {
    let member = |node: NodeId| chosen.iter().find(|member| member.id == node);
    match news {
        News::Refused(node, it) if it.ring == id => {
            let who = member(*node).map(named).unwrap_or_default();
            let at = chosen.iter().position(|member| member.id == *node);
            let behind = at.and_then(|at| chosen.get(at + 1));
            // Who cannot reach the next one has done nothing wrong.
            let guilty = match behind {
                Some(next) if it.code == Some(RefusalCode::SuccessorLost) => next.id,
                _ => *node,
            };
            Err(fault(format!("{who} says: {}", it.detail), Some(guilty)))
        }
        News::Lost(node, reason) => match member(*node) {
            Some(lost) => {
                let why = format!("{} is lost: {reason}", named(lost));
                Err(fault(why, Some(*node)))
            }
            None => Ok(()),
        },
        _ => Ok(()),
    }
}

pub(super) fn named(member: &Member) -> String {
    format!("node {} \"{}\"", member.id.short(), member.name)
}
