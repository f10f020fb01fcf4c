//! Forming a ring: everybody loads, then the hops are connected.

use super::{News, Ring, StageHost, Work, engine_down, read_frames};
use net::{HopReceiver, HopSender};
use proto::host::Loaded;
use proto::ids::{NodeId, RingId};
use proto::member::Member;
use proto::model::{LayerRange, WireType};
use proto::ring::{CHUNK_ROWS, Contract, HopHello, LinkBody, OpenRing, RefusalCode, RingReady};
use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// How long stages have to load.
const LOAD_MAX: Duration = Duration::from_secs(120);

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
    /// Forms a ring over `chosen`, one member a remote stage.
    pub(super) async fn form(
        &mut self,
        id: RingId,
        chosen: Vec<Member>,
    ) -> Result<Arc<Ring>, FormError> {
        let host = self
            .engine
            .ready()
            .await
            .map_err(|error| fault(engine_down(&error), None))?;
        let deadline = Instant::now() + LOAD_MAX;
        let opened = self.open(id, &chosen, host.loaded());
        let formed = match opened {
            Ok(()) => self.connect(id, &chosen, deadline).await,
            Err(error) => Err(error),
        };
        if formed.is_err() {
            for member in &chosen {
                // Whoever is lost learns it by itself.
                let _ = self.plan.links.send(member.id, LinkBody::CloseRing(id));
            }
        }
        let (ready, sender, receiver) = formed?;
        Ok(self.publish_ring(id, host.loaded(), chosen, ready, sender, receiver))
    }

    /// Asks every chosen member to load its stage.
    fn open(&self, id: RingId, chosen: &[Member], loaded: &Loaded) -> Result<(), FormError> {
        let this = self.plan.links.this_member();
        for (i, (member, layers)) in chosen.iter().zip(&self.plan.split.remote).enumerate() {
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
        let mut back = None;
        while ready.len() < chosen.len() || back.is_none() {
            let news = tokio::time::timeout_at(deadline, self.inbox.recv()).await;
            let news = news.map_err(|_| fault(late(chosen, &ready), None))?;
            let news = news.ok_or_else(|| fault("this node is shutting down", None))?;
            self.note(&news);
            match news {
                News::Ready(node, it) if it.ring == id => {
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
        loaded: &Loaded,
        chosen: Vec<Member>,
        mut ready: HashMap<NodeId, RingReady>,
        sender: HopSender,
        receiver: HopReceiver,
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
        let stages = chosen.into_iter().enumerate().filter_map(host).collect();
        let ring = Arc::new(Ring {
            id,
            stages,
            engine: self.engine.clone(),
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

fn late(chosen: &[Member], ready: &HashMap<NodeId, RingReady>) -> String {
    let missing: Vec<String> = chosen
        .iter()
        .filter(|m| !ready.contains_key(&m.id))
        .map(named)
        .collect();
    format!(
        "{} did not load within {} s",
        missing.join(", "),
        LOAD_MAX.as_secs()
    )
}
