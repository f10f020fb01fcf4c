//! What standbys are fed while all is well.

use super::{Effect, Phase, Session};
use crate::shadow::{self, SHADOW_AFTER_MS, SHADOW_ROWS};
use bytes::Bytes;
use proto::ring::{HopBody, OpenSession};

impl Session {
    /// Says that standbys may be fed, each time that they lack enough rows, once to compute all of them would take long.
    pub(super) fn next_shadow(&mut self) -> Option<Effect> {
        let until = self.returned_length.min(self.tokens_len());
        let lacks = until.saturating_sub(self.shadowed);
        // Who takes over comes first.
        let calm = self.phase == Phase::Running && !self.rebuilding;
        if !calm || lacks < SHADOW_ROWS || self.pace.again_ms(until) < SHADOW_AFTER_MS {
            return None;
        }
        self.shadowed = until;
        Some(Effect::Shadow { until })
    }

    /// Frames for whoever stands by for stage 1 and has the rows before `from`: the head's outputs from there on, up to `until` or as far
    /// as there are any. `None` when they are not kept.
    #[must_use]
    pub fn shadow(&self, from: u32, until: u32) -> Option<Vec<(HopBody, Bytes)>> {
        let open = OpenSession {
            session: self.plan.session,
            epoch: self.epoch,
            positions_max: self.positions_asked(),
        };
        let span = (from, until.min(self.head_length));
        shadow::frames(&self.retained, (open, 0), span, self.plan.embedding_length)
    }
}
