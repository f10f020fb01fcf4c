//! What does a member hold of a model?

use super::fetch::Provider;
use super::serve::{Refusal, admit};
use crate::dial::DialError;
use crate::end::{self, EndReason};
use crate::endpoint::Core;
use crate::limits::{ASK_MS, LINGER_MS, PROVIDERS_MAX};
use crate::links::{AnswerFault, Greeting, Links, Mesh};
use crate::packets::{self, PacketReader};
use crate::transport;
use crate::ways::Places;
use identity::{ManifestFault, check_manifest};
use iroh::endpoint::Connection;
use proto::close::CloseCode;
use proto::codec::DecodeError;
use proto::ids::{CommonsId, Hash, NodeId};
use proto::manifest::{ALPN_MODEL, AskModel, Manifest, ModelAnswer};
use proto::member::Member;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;
use tokio::task::{JoinSet, spawn_blocking};

/// A question about a model that led to nothing.
#[derive(Debug, thiserror::Error)]
pub enum AskError {
    /// The member's addresses cannot be read.
    #[error(transparent)]
    Addresses(#[from] DecodeError),
    /// The member could not be reached.
    #[error(transparent)]
    Dial(#[from] DialError),
    /// It did not answer.
    #[error("the node {} did not say within {ASK_MS} ms what it holds", peer.short())]
    TooSlow {
        /// Who was asked.
        peer: NodeId,
    },
    /// It hung up, or refused.
    #[error("the node {} did not say what it holds: {reason}", peer.short())]
    Ended {
        /// Who was asked.
        peer: NodeId,
        /// Why it ended.
        reason: EndReason,
    },
    /// It holds nothing of the model.
    #[error("the node {} holds nothing of the model", peer.short())]
    Nothing {
        /// Who was asked.
        peer: NodeId,
    },
    /// It showed a manifest that is not genuine.
    #[error("the node {} showed a manifest that cannot be believed: {source}", peer.short())]
    BadManifest {
        /// Who was asked.
        peer: NodeId,
        /// What is wrong with it.
        source: ManifestFault,
    },
    /// It goes by a manifest of somebody who sent false bytes, or signed for such.
    #[error(
        "the node {} goes by a manifest of the node {}, which sent or signed for false bytes; it is not asked for any",
        peer.short(), maker.short()
    )]
    Doubted {
        /// Who was asked.
        peer: NodeId,
        /// Who made the manifest that it showed.
        maker: NodeId,
    },
    /// It names other blocks than more members do.
    #[error(
        "the node {} says that the model consists of other blocks (a manifest of the node {}); it is not asked for any",
        peer.short(), maker.short()
    )]
    Disagrees {
        /// Who was asked.
        peer: NodeId,
        /// Who made the manifest that it showed.
        maker: NodeId,
    },
}

/// What several members say about a model.
#[derive(Debug)]
pub struct Survey {
    /// What most of them say that it consists of; `None` when nobody holds anything.
    pub manifest: Option<Manifest>,
    /// Those who say so, and the blocks they hold.
    pub providers: Vec<Provider>,
    /// Why the others are not asked for blocks.
    pub faults: Vec<AskError>,
}

impl Links {
    /// Asks a member what it holds of the model `root`. The manifest in the answer is checked.
    ///
    /// # Errors
    ///
    /// [`AskError`], which names the member; after [`ASK_MS`] at the latest.
    pub async fn ask_model(
        &self,
        member: &Member,
        root: Hash,
    ) -> Result<(Manifest, Provider), AskError> {
        let mesh = self.mesh();
        ask(&mesh.core, mesh.standing.commons, member, root).await
    }

    /// Asks members what they hold of the model `root`, at most [`PROVIDERS_MAX`] and all at once. Makers can lie, and
    /// their signatures only say who did: what most members say counts, and who says otherwise is named. Those that are
    /// `doubted` are not asked, and what they signed does not count, whoever shows it.
    pub async fn survey(
        &self,
        members: &[Member],
        root: Hash,
        doubted: &BTreeSet<NodeId>,
    ) -> Survey {
        let mut asked = JoinSet::new();
        let me = self.mesh().core.id;
        for member in members
            .iter()
            .filter(|member| member.id != me && !doubted.contains(&member.id))
            .take(PROVIDERS_MAX)
        {
            let (links, member) = (self.clone(), member.clone());
            asked.spawn(async move { Box::pin(links.ask_model(&member, root)).await });
        }
        let mut answers = Vec::new();
        let mut faults = Vec::new();
        while let Some(answer) = asked.join_next().await {
            match answer {
                Ok(Ok((manifest, provider))) if doubted.contains(&manifest.maker) => {
                    let (peer, maker) = (provider.member.id, manifest.maker);
                    faults.push(AskError::Doubted { peer, maker });
                }
                Ok(Ok(answer)) => answers.push(answer),
                Ok(Err(error)) => faults.push(error),
                Err(error) => tracing::error!(%error, "asking for a model"),
            }
        }
        count_votes(answers, faults)
    }
}

fn count_votes(mut answers: Vec<(Manifest, Provider)>, mut faults: Vec<AskError>) -> Survey {
    // Whoever answers first must not decide a tie.
    answers.sort_by_key(|(_, provider)| provider.member.id);
    let votes = |manifest: &Manifest| {
        answers
            .iter()
            .filter(|(other, _)| other.contents == manifest.contents)
            .count()
    };
    let mut best: Option<(usize, Manifest)> = None;
    for (manifest, _) in &answers {
        let votes = votes(manifest);
        if best.as_ref().is_none_or(|(most, _)| votes > *most) {
            best = Some((votes, manifest.clone()));
        }
    }
    let manifest = best.map(|(_, manifest)| manifest);
    let mut providers = Vec::new();
    for (said, provider) in answers {
        if manifest
            .as_ref()
            .is_some_and(|best| best.contents == said.contents)
        {
            providers.push(provider);
        } else {
            faults.push(AskError::Disagrees {
                peer: provider.member.id,
                maker: said.maker,
            });
        }
    }
    Survey {
        manifest,
        providers,
        faults,
    }
}

async fn ask(
    core: &Core,
    commons: CommonsId,
    member: &Member,
    root: Hash,
) -> Result<(Manifest, Provider), AskError> {
    let peer = member.id;
    let question = Box::pin(exchange(core, member, root));
    let answer = tokio::time::timeout(Duration::from_millis(ASK_MS), question).await;
    let answer = answer.map_err(|_| AskError::TooSlow { peer })??;
    let manifest = answer.manifest.clone().ok_or(AskError::Nothing { peer })?;
    let checked = manifest.clone();
    let check = spawn_blocking(move || check_manifest(&checked, root, commons));
    let checked = check.await.unwrap_or(Err(ManifestFault::BadSignature));
    checked.map_err(|source| AskError::BadManifest { peer, source })?;
    let blocks = manifest.contents.blocks.iter().enumerate();
    let held = blocks
        .filter(|(at, _)| answer.holds(*at))
        .map(|(_, block)| block.hash);
    let provider = Provider {
        member: member.clone(),
        blocks: held.collect(),
    };
    Ok((manifest, provider))
}

/// Calls a member for what it has of models.
pub(super) async fn call(
    core: &Core,
    member: &Member,
    alpn: &[u8],
) -> Result<Connection, AskError> {
    let connection = core.connect(member.id, &Places::from(member), alpn).await?;
    // We asked for what comes, and read it at once.
    transport::trust(&connection);
    Ok(connection)
}

async fn exchange(core: &Core, member: &Member, root: Hash) -> Result<ModelAnswer, AskError> {
    let peer = member.id;
    let ended = |reason: EndReason| AskError::Ended { peer, reason };
    let connection = call(core, member, ALPN_MODEL).await?;
    let (mut send, recv) = connection.open_bi().await.map_err(|e| ended(e.into()))?;
    packets::write_head(&mut send, &AskModel { root })
        .await
        .map_err(|e| ended(e.into()))?;
    let answer = match PacketReader::new(recv).next::<ModelAnswer>(0).await {
        Ok(Some((answer, _))) => Ok(answer),
        Ok(None) => Err(ended(EndReason::Finished)),
        // Why the connection was closed says more than that a stream broke.
        Err(fault) => Err(ended(
            connection.close_reason().map_or(fault.into(), Into::into),
        )),
    };
    end::close(&connection, CloseCode::Done, "");
    answer
}

/// Answers a question of a member.
pub(crate) async fn answer(mesh: &Mesh, greeting: Greeting<AskModel>) -> Result<(), AnswerFault> {
    let Greeting {
        peer,
        first,
        connection,
        mut send,
        ..
    } = greeting;
    let serving = match admit(mesh, peer) {
        Ok(serving) => serving,
        Err(refusal) => return Err(turn_away(&connection, refusal)),
    };
    let offers = Arc::clone(&serving.offers);
    let looked = spawn_blocking(move || offers.model(first.root)).await;
    let answer = looked.ok().flatten().unwrap_or(ModelAnswer {
        manifest: None,
        held: Vec::new(),
    });
    let said = async {
        packets::write_head(&mut send, &answer).await.ok()?;
        send.finish().ok()?;
        connection.closed().await;
        Some(())
    };
    let _ = tokio::time::timeout(Duration::from_millis(LINGER_MS), said).await;
    end::close(&connection, CloseCode::Done, "");
    Ok(())
}

fn turn_away(connection: &Connection, refusal: Refusal) -> AnswerFault {
    end::close(connection, CloseCode::Refused, &refusal.to_string());
    AnswerFault::NotServed(refusal)
}

#[cfg(test)]
mod tests;
