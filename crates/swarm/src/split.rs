//! Which layers stay at the coordinator and which go to remote stages, when people force it with `--split N`.
//!
//! Everybody gets the same work, the coordinator too: with several requests under way all hosts of a lap compute at
//! once, and the slowest one sets the pace. The coordinator's output head counts as the layers that cost as much; the
//! least that it keeps is one first and one last layer. The planner that weighs speeds comes later and returns the same
//! type.

use proto::model::LayerRange;
use proto::ring::STAGES_MAX;

/// Layers that the coordinator keeps in front at least, and exactly at the end.
pub const KEPT_LAYERS: u32 = 1;

/// A model's layers in ring order: `head`, then every range of `remote`, then `tail`; together `0..layers`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Split {
    /// The coordinator's first layers, behind the embedding.
    pub head: LayerRange,
    /// The remote stages, from stage 1.
    pub remote: Vec<LayerRange>,
    /// The coordinator's last layers, before the output.
    pub tail: LayerRange,
}

/// Why a model cannot be spread over so many stages.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SplitError {
    /// No remote stage was asked for; that is not a ring.
    #[error(
        "a split needs at least 1 remote stage; leave --split out to run the whole model at home"
    )]
    NoStages,
    /// More remote stages than a ring may have.
    #[error(
        "{asked} remote stages were asked for and a ring has at most {STAGES_MAX}; ask for fewer"
    )]
    TooManyStages {
        /// How many were asked for.
        asked: u32,
    },
    /// Not one layer for everybody.
    #[error(
        "the model has {layers} layers and {remote_stages} remote stages need at least {needed}: one each, and \
         the first and the last stay here; ask for fewer stages or take a model with more layers"
    )]
    TooFewLayers {
        /// Layers of the model.
        layers: u32,
        /// Remote stages asked for.
        remote_stages: u32,
        /// Layers needed for them.
        needed: u32,
    },
}

/// Spreads a model over the coordinator and `remote_stages`; `output_layers` is the work of the output head, in layers.
/// Where it does not come out even, earlier stages get one layer more.
///
/// # Errors
///
/// [`SplitError`], with the numbers.
pub fn split(layers: u32, remote_stages: u32, output_layers: u32) -> Result<Split, SplitError> {
    match remote_stages {
        0 => return Err(SplitError::NoStages),
        asked if asked > STAGES_MAX => return Err(SplitError::TooManyStages { asked }),
        _ => {}
    }
    let needed = remote_stages + 2 * KEPT_LAYERS;
    if layers < needed {
        return Err(SplitError::TooFewLayers {
            layers,
            remote_stages,
            needed,
        });
    }
    let share = (layers.saturating_add(output_layers)) / (remote_stages + 1);
    let kept = share
        .saturating_sub(output_layers)
        .clamp(2 * KEPT_LAYERS, layers - remote_stages);
    let between = layers - kept;
    let (each, longer) = (between / remote_stages, between % remote_stages);
    let head = kept - KEPT_LAYERS;
    let mut first = head;
    let remote = (0..remote_stages)
        .map(|stage| {
            let end = first + each + u32::from(stage < longer);
            LayerRange {
                first: std::mem::replace(&mut first, end),
                end,
            }
        })
        .collect();
    Ok(Split {
        head: LayerRange {
            first: 0,
            end: head,
        },
        remote,
        tail: LayerRange { first, end: layers },
    })
}

#[cfg(test)]
mod tests;
