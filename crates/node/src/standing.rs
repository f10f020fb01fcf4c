//! Who this node is: the founder of a commons, or a member that was let in.

use crate::data::{Data, random};
use anyhow::{Context, bail};
use identity::CommonsKey;
use net::{Joined, Net, Standing};
use proto::ids::CommonsId;
use proto::member::{Member, Membership};
use proto::ticket::Ticket;
use std::time::{SystemTime, UNIX_EPOCH};

/// The wall clock, in seconds since 1970 UTC.
#[must_use]
pub fn now_s() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_secs())
}

/// Finds out what this node is in its commons; joins with `ticket`, or founds a commons when it belongs to none.
///
/// # Errors
///
/// When the ticket is for another commons than the node's, when joining fails, or when the disk does.
pub async fn take(
    data: &Data,
    net: &Net,
    ticket: Option<&Ticket>,
    name: &str,
) -> anyhow::Result<Standing> {
    let mut known: Vec<Member> = data
        .state
        .members::<Member>()?
        .into_iter()
        .map(|(_, member)| member)
        .collect();
    let membership: Option<Membership> = data.state.membership()?;
    let membership = match (membership, ticket) {
        (Some(membership), None) => membership,
        (Some(membership), Some(ticket)) => {
            let commons = commons_of(&membership)?;
            if commons != ticket.commons {
                bail!(
                    "this node belongs to the commons {}, and the ticket is for {}; use another \
                     directory with --data-dir to be in both",
                    commons.short(),
                    ticket.commons.short()
                );
            }
            // A member needs no ticket; its introducer may have new addresses.
            known.retain(|member| member.id != ticket.introducer);
            known.push(introducer(ticket));
            membership
        }
        (None, Some(ticket)) => {
            let joined = net.join(ticket, name).await?;
            let Joined {
                membership,
                introducer,
                ..
            } = joined;
            data.state.set_membership(&membership)?;
            data.state.remember_member(introducer.id, &introducer)?;
            known.push(introducer);
            membership
        }
        (None, None) => {
            let secret = store::keys::load_or_create(&data.dir.commons_key(), random)?;
            let membership = identity::found(&CommonsKey::from_bytes(secret.0), net.id(), now_s());
            data.state.set_membership(&membership)?;
            membership
        }
    };
    Ok(Standing {
        commons: commons_of(&membership)?,
        membership,
        name: name.to_owned(),
        incarnation: data.state.next_incarnation()?,
        known,
    })
}

fn introducer(ticket: &Ticket) -> Member {
    Member {
        id: ticket.introducer,
        addrs: ticket.addrs.clone(),
        name: String::new(),
        relays: ticket.relays.clone(),
    }
}

fn commons_of(membership: &Membership) -> anyhow::Result<CommonsId> {
    let first = membership.chain.first();
    Ok(first
        .context("the node's proof of membership is empty; join again with --join")?
        .commons)
}
