//! Sessions that go on: a new epoch, and what is kept, sent again and taken under it.

use super::{Effect, Stage, Tomb, forward};
use proto::ids::SessionId;
use proto::ring::{
    EpochAnswer, LinkBody, NewEpoch, OpenSession, RefusalCode, Resume, Rows, RowsKind, SessionRef,
};

impl Stage {
    pub(super) fn epoch(&mut self, announced: NewEpoch, now_ms: u64, out: &mut Vec<Effect>) {
        let (session, epoch) = (announced.session, announced.epoch);
        if !self.entries.contains_key(&session) && !self.begin(&announced, now_ms, out) {
            return;
        }
        let Some(entry) = self.entries.get_mut(&session) else {
            return;
        };
        if epoch < entry.epoch() {
            let detail = format!("epoch {} was announced before", entry.epoch());
            return self.refuse(session, RefusalCode::OldEpoch, &detail, out);
        }
        entry.heard(now_ms);
        let newer = epoch > entry.epoch();
        if entry.advance(epoch, announced.positions_max.is_some()) {
            let length = entry.view().length;
            out.push(Effect::TrimCache { session, length });
        }
        if newer && announced.positions_max.is_some() {
            entry.await_resume();
        }
        let (input, output) = entry.last_hashes(self.plan.embedding_length);
        let view = entry.view();
        out.push(Effect::Tell(LinkBody::EpochAnswer(EpochAnswer {
            at: SessionRef {
                ring: self.plan.ring,
                ..announced.at()
            },
            stage: self.plan.stage,
            length: view.length,
            input,
            output,
            retained_from: view.retained_from,
        })));
    }

    /// Opens a session that goes on elsewhere and was not here, empty.
    fn begin(&mut self, announced: &NewEpoch, now_ms: u64, out: &mut Vec<Effect>) -> bool {
        let (session, epoch) = (announced.session, announced.epoch);
        let closed = self.tombs.get(session) == Some(Tomb::Closed);
        let Some(positions_max) = announced.positions_max.filter(|_| !closed) else {
            let detail = "an epoch was announced for a session that is not open here";
            out.push(self.failed(session, epoch, RefusalCode::UnknownSession, detail));
            return false;
        };
        self.tombs.remove(session);
        let open = OpenSession {
            session,
            epoch,
            positions_max,
        };
        let admitted = self.admit(open, now_ms, out);
        if admitted && let Some(entry) = self.entries.get_mut(&session) {
            entry.await_resume();
        }
        admitted
    }

    /// Cuts the cache to what stays, sends again what the next stage lacks, and takes what has waited.
    pub(super) fn resume(&mut self, resume: Resume, now_ms: u64, out: &mut Vec<Effect>) {
        let Resume {
            at,
            keep,
            from,
            wanted,
            ..
        } = resume;
        let (session, plan) = (at.session, self.plan);
        let Some(entry) = self.entries.get_mut(&session) else {
            return;
        };
        if at.epoch != entry.epoch() || !entry.is_awaiting() {
            return;
        }
        entry.heard(now_ms);
        let view = entry.view();
        if keep > view.length || (from < keep && from < view.retained_from) {
            let detail = format!(
                "asked to keep {keep} rows and to send from {from}, and has {} of {}",
                view.retained_from, view.length
            );
            return self.refuse(session, RefusalCode::Forgotten, &detail, out);
        }
        let settled = entry.settle(keep, wanted, plan.retained_bytes_max);
        if keep < view.length {
            entry.trim(keep, &plan);
        }
        if keep < view.length || !settled {
            out.push(Effect::TrimCache {
                session,
                length: keep,
            });
        }
        let held = entry.resume(from);
        let again = match entry.again(from, wanted, plan.embedding_length) {
            Ok(again) => again,
            Err(gone) => {
                entry.forget(gone);
                let detail = format!("outputs before {gone} cannot be read any more");
                return self.refuse(session, RefusalCode::Forgotten, &detail, out);
            }
        };
        for (position, rows, payload) in again {
            let kind = if position < wanted {
                RowsKind::Replay
            } else {
                RowsKind::Prefill
            };
            let rows = Rows {
                session,
                epoch: at.epoch,
                position,
                rows,
                chunk: 0,
                stage: plan.stage,
                kind,
                guessed: 0,
            };
            out.extend(forward(&plan, entry, at.epoch, &rows, payload));
        }
        for input in held {
            self.take(input, now_ms, out);
        }
    }

    /// No session can go on as it is; each is told once, and begins anew under its next epoch.
    pub(super) fn caches_lost(&mut self, out: &mut Vec<Effect>) {
        let sessions: Vec<SessionId> = self.entries.keys().copied().collect();
        for session in sessions {
            if let Some(entry) = self.entries.get_mut(&session) {
                entry.lose_cache();
            }
            let detail = "the engine was started again";
            self.refuse(session, RefusalCode::EngineFailed, detail, out);
        }
    }
}
