//! Those who stand by for a stage of the ring and are fed beside it.

use crate::engine::{Part, from_bytes, to_bytes};
use crate::ring::{Ring, stage};
use bytes::Bytes;
use proto::ids::{RingId, SessionId};
use proto::ring::{HopBody, NewEpoch};
use std::collections::VecDeque;
use swarm::stage::{Effect, Event, Stage};

/// One of them.
#[derive(Debug)]
pub(crate) struct Shadow {
    pub(crate) stage: Stage,
    pub(crate) part: Part,
    /// The epoch under which it is fed, and up to where.
    fed: (u32, u32),
}

impl Shadow {
    fn new(ring: RingId, at: usize, stages: usize, part: Part) -> Self {
        Self {
            stage: stage(ring, at, stages),
            part,
            fed: (0, 0),
        }
    }

    /// As the node does: its outputs go nowhere, and nobody hears what it says.
    fn handle(&mut self, event: Event, now_ms: u64) -> Result<(), String> {
        let mut events = VecDeque::from([event]);
        while let Some(event) = events.pop_front() {
            for effect in self.stage.handle(event, now_ms) {
                match effect {
                    Effect::Compute(compute) => {
                        let rows = from_bytes(&compute.payload);
                        let output = self.part.run(compute.position, &rows)?;
                        events.push_back(Event::Computed {
                            session: compute.session,
                            epoch: compute.epoch,
                            position: compute.position,
                            output: to_bytes(&output),
                        });
                    }
                    Effect::TrimCache { length, .. } => self.part.trim(length)?,
                    Effect::DropCache { .. } => self.part.trim(0)?,
                    Effect::Forward { .. } | Effect::Tell(_) => {}
                }
            }
        }
        Ok(())
    }

    fn known_epoch(&self, session: SessionId) -> Option<u32> {
        self.stage.view(session).map(|view| view.epoch)
    }
}

impl Ring {
    /// Up to where the shadow of a stage was fed under an epoch.
    pub(crate) fn fed(&self, at: usize, epoch: u32) -> u32 {
        let fed = self.shadows[at].as_ref().map(|shadow| shadow.fed);
        fed.filter(|fed| fed.0 == epoch).map_or(0, |fed| fed.1)
    }

    /// Feeds the shadow of a stage; says how many rows it has.
    pub(crate) fn feed(
        &mut self,
        at: usize,
        epoch: u32,
        frames: Vec<(HopBody, Bytes)>,
    ) -> Result<u32, String> {
        let (id, stages, now_ms) = (self.id(), self.stages.len(), self.now_ms);
        let part = Part::new(self.parts[at].layers());
        let shadow = self.shadows[at].get_or_insert_with(|| Shadow::new(id, at, stages, part));
        for (body, payload) in frames {
            let event = match body {
                HopBody::Open(open)
                    if shadow
                        .known_epoch(open.session)
                        .is_some_and(|known| known < epoch) =>
                {
                    Event::Epoch(NewEpoch {
                        ring: id,
                        session: open.session,
                        epoch,
                        positions_max: None,
                    })
                }
                HopBody::Open(open) => Event::Open(open),
                HopBody::Rows(rows) => {
                    shadow.fed = (epoch, rows.position + rows.rows);
                    Event::Rows { rows, payload }
                }
            };
            shadow.handle(event, now_ms)?;
        }
        if !shadow.part.is_begun_as(&self.truth, u32::MAX) {
            return Err(format!("the shadow of stage {} holds other rows", at + 1));
        }
        Ok(shadow.part.length())
    }

    /// The ring goes on as another; shadows stay what they are, and are fed anew.
    pub(crate) fn move_shadows(&mut self, id: RingId) {
        let stages = self.stages.len();
        for (at, shadow) in self.shadows.iter_mut().enumerate() {
            if let Some(shadow) = shadow {
                let moved = shadow.stage.move_to(id, at as u32 + 1, stages as u32);
                moved.expect("there is such a stage");
                shadow.fed = (0, 0);
            }
        }
    }
}
