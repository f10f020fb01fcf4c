//! Why a stage is not hosted, or no longer.

use engine::EngineError;
use net::Links;
use proto::host::FailCode;
use proto::ids::{NodeId, RingId};
use proto::ring::{DETAIL_BYTES_MAX, LinkBody, RefusalCode, RingRefused};

/// Tells a coordinator that its stage is not hosted.
pub(super) fn refuse(links: &Links, to: NodeId, ring: RingId, code: RefusalCode, detail: &str) {
    let detail = short(detail);
    // A coordinator whose link is lost has learnt of the end by that.
    let _ = links.send(
        to,
        LinkBody::RingRefused(RingRefused {
            ring,
            code: Some(code),
            detail,
        }),
    );
}

fn short(detail: &str) -> String {
    let mut end = detail.len().min(DETAIL_BYTES_MAX);
    while !detail.is_char_boundary(end) {
        end -= 1;
    }
    detail[..end].to_owned()
}

/// Why a stage is not hosted, or no longer.
#[derive(Debug)]
pub(super) struct Refusal {
    pub(super) code: RefusalCode,
    pub(super) detail: String,
}

impl Refusal {
    /// The words, no longer than others take them.
    pub(super) fn told(&self) -> String {
        short(&self.detail)
    }
}

pub(super) fn refusal(code: RefusalCode, detail: impl ToString) -> Refusal {
    Refusal {
        code,
        detail: detail.to_string(),
    }
}

impl From<EngineError> for Refusal {
    fn from(error: EngineError) -> Self {
        let code = match &error {
            EngineError::Failed(failed) => match failed.code {
                FailCode::NoRoom => RefusalCode::NoRoom,
                FailCode::Unloadable | FailCode::Unsupported => RefusalCode::ModelUnusable,
                FailCode::BadCall | FailCode::Compute => RefusalCode::EngineFailed,
            },
            EngineError::Quarantined(_) => RefusalCode::ModelUnusable,
            _ => RefusalCode::EngineFailed,
        };
        refusal(code, error)
    }
}
