//! Links to other members, and what hangs on them: up before this node has a model, so that it can be had from others.

use super::start::Ground;
use crate::content::Content;
use crate::dispatch::{Dispatch, RingCell};
use crate::gossip::gossip;
use crate::herald::build_name;
use crate::home::EngineSettings;
use crate::memory::Budget;
use crate::ring::{Coordinator, News};
use crate::rooms::Rooms;
use crate::roster::Roster;
use crate::stage::Stages;
use crate::tickets;
use net::blobs::UploadLimits;
use net::{Links, Net, PeerState, Standing, Started};
use std::num::NonZeroU64;
use std::sync::{Arc, OnceLock};
use store::blocks::Blocks;
use store::models::Model;
use store::stages::Stages as StageFiles;
use swarm::members::{Identity, Offer};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// What others reach this node by.
pub(super) struct Wires {
    pub(super) links: Links,
    pub(super) roster: Roster,
    pub(super) stages: Stages,
    pub(super) content: Content,
    pub(super) tasks: TaskTracker,
    ring: RingCell,
    own: Arc<OnceLock<Model>>,
}

impl Wires {
    /// Lets members in from now on, hears what they offer, and hosts stages for them.
    pub(super) fn lay(
        ground: &Ground,
        engine: &EngineSettings,
        files: &StageFiles,
        (rooms, budget): (&Rooms, &Budget),
        upload_bytes_s: Option<NonZeroU64>,
        stop: &CancellationToken,
    ) -> anyhow::Result<Self> {
        let Ground {
            data,
            net,
            standing,
            ..
        } = ground;
        let Started {
            links,
            events,
            hops,
        } = net.start(
            standing.clone(),
            Arc::new(tickets::doorkeeper(data, standing)),
        );
        let (speak, heard, talk) = gossip(net.id(), standing.commons, links.clone());
        let introduced = introduce(net, standing, rooms, budget, engine);
        let voices = (links.clone(), speak);
        let roster = Roster::new(data.key.clone(), introduced, &standing.known, voices);
        let limits = UploadLimits {
            all_bytes_s: upload_bytes_s,
            peer_bytes_s: None,
        };
        let blocks = Blocks::open(&data.dir.root().join("blocks"))?;
        let content = Content::new(
            (blocks, data.models.clone(), files.clone()),
            (links.clone(), roster.clone()),
            (data.key.clone(), standing.clone()),
            limits,
        );
        let own = Arc::new(OnceLock::new());
        let stages = Stages::new(
            (net.clone(), links.clone()),
            standing.membership.clone(),
            engine.clone(),
            (data.models.clone(), own.clone(), content.clone()),
            (files.clone(), data.dir.root().to_path_buf()),
            (rooms.clone(), budget.clone()),
        );
        let (tasks, ring) = (TaskTracker::new(), RingCell::default());
        let dispatch = Dispatch {
            stages: stages.clone(),
            ring: ring.clone(),
            state: data.state.clone(),
            roster: roster.clone(),
            tasks: tasks.clone(),
        };
        tasks.spawn(dispatch.run(events, hops, stop.clone()));
        tasks.spawn(talk.run(stop.clone()));
        let hears = roster.clone();
        tasks.spawn(hears.run(rooms.circle.clone(), heard, stop.clone()));
        Ok(Self {
            links,
            roster,
            stages,
            content,
            tasks,
            ring,
            own,
        })
    }

    /// The model that this node runs, if all of it is here, and the coordinator of its ring, if it has one: news go to it
    /// from now on.
    pub(super) async fn enter(&self, model: Option<&Model>, ring: Option<Arc<Coordinator>>) {
        if let Some(model) = model {
            self.own.get_or_init(|| model.clone());
        }
        let Some(ring) = ring else { return };
        let ring = self.ring.get_or_init(|| ring);
        // Those that were linked before are no news any more.
        for peer in self.links.snapshot() {
            if peer.state == PeerState::Up {
                ring.tell(News::Up(peer.member)).await;
            }
        }
    }
}

/// Who this node is to other members, and what it offers from the beginning.
fn introduce(
    net: &Net,
    standing: &Standing,
    rooms: &Rooms,
    budget: &Budget,
    engine: &EngineSettings,
) -> (Identity, Offer) {
    let me = Identity {
        commons: standing.commons,
        node: net.id(),
        incarnation: standing.incarnation,
        membership: standing.membership.clone(),
        secret: rand::random(),
    };
    let offer = Offer {
        name: standing.name.clone(),
        addrs: net.addrs().iter().map(ToString::to_string).collect(),
        relay: None,
        relays: Vec::new(),
        room: rooms.serve,
        standing: proto::ad::Standing::Serving,
        memory_bytes: budget.free_bytes(),
        cpu_class: String::new(),
        build: build_name(&engine_host::llama::build(engine.rope_scale)),
        speeds: Vec::new(),
        held: Vec::new(),
    };
    (me, offer)
}
