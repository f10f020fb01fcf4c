//! What must hold for any bytes that claim to be a structure of the wire, of the disk, or of the pipe to an engine.

use identity::{Expected, check_ad, check_manifest, check_membership, check_ticket};
use proto::ad::{Ad, SignedAd};
use proto::codec::{Wire, from_slice, to_vec};
use proto::disk::{MemoryRecord, ModelDeaths, PathHash, TicketRecord};
use proto::host::{Call, Reply};
use proto::ids::{CommonsId, NodeId};
use proto::journal::{Sealed, StreamBatch, StreamStart};
use proto::manifest::{AskModel, Contents, Manifest, ModelAnswer};
use proto::member::{Hello, Member, Membership, Vouch, Welcome, Whereabouts};
use proto::packet::{PAYLOAD_BYTES_MAX, PREFIX_BYTES, Prefix};
use proto::ring::{Contract, Hop, HopHello, HopWelcome, Link};
use proto::ticket::Ticket;

/// Nobody can sign for the commons or the nodes of these names: their points are none.
const NOBODY: [u8; 32] = [0xff; 32];

/// Panics when something does not hold. Returns how many types took the bytes.
pub(crate) fn run(bytes: &[u8]) -> usize {
    prefixes(bytes);
    as_text(bytes);
    let plain = [
        stays::<Call>(bytes),
        stays::<Reply>(bytes),
        stays::<Contract>(bytes),
        stays::<Link>(bytes),
        stays::<Hop>(bytes),
        stays::<HopWelcome>(bytes),
        stays::<AskModel>(bytes),
        stays::<PathHash>(bytes),
        stays::<TicketRecord>(bytes),
        stays::<ModelDeaths>(bytes),
        stays::<MemoryRecord>(bytes),
        stays::<Whereabouts>(bytes),
        stays::<Vouch>(bytes),
        stays::<Welcome>(bytes),
        stays::<Sealed>(bytes),
        stays::<StreamStart>(bytes),
        stays::<StreamBatch>(bytes),
    ];
    plain.into_iter().filter(|taken| *taken).count() + checked(bytes)
}

/// Types whose values are checked further before anybody uses them.
fn checked(bytes: &[u8]) -> usize {
    let commons = CommonsId(NOBODY);
    let taken = [
        then::<Membership>(bytes, |membership| {
            assert!(check_membership(&membership, commons, NodeId(NOBODY)).is_err());
        }),
        then::<HopHello>(bytes, |hello| {
            assert!(check_membership(&hello.membership, commons, NodeId(NOBODY)).is_err());
        }),
        then::<Member>(bytes, |member| {
            let _ = (member.socket_addrs(), member.relay_addrs());
        }),
        then::<Hello>(bytes, |hello| {
            let _ = hello.member.socket_addrs();
        }),
        then::<Ticket>(bytes, ticket),
        then::<Ad>(bytes, |ad| {
            let _ = (ad.check_bounds(), ad.socket_addrs(), ad.introducer());
        }),
        then::<SignedAd>(bytes, |signed| {
            assert!(check_ad(signed, commons).is_err());
        }),
        then::<Contents>(bytes, |contents| {
            let sizes = contents.blocks.iter().map(|block| u128::from(block.bytes));
            if contents.check().is_ok() {
                assert_eq!(sizes.sum::<u128>(), u128::from(contents.bytes));
            }
        }),
        then::<Manifest>(bytes, manifest),
        then::<ModelAnswer>(bytes, |answer| {
            let _ = answer.holds(usize::MAX);
            answer.manifest.into_iter().for_each(manifest);
        }),
    ];
    taken.into_iter().filter(|taken| *taken).count()
}

fn ticket(ticket: Ticket) {
    // Only what names addresses is taken as a text.
    if ticket.socket_addrs().is_ok() && ticket.relay_addrs().is_ok() {
        let again = Ticket::from_text(&ticket.to_text());
        assert_eq!(again.expect("a ticket that was read is read again"), ticket);
    }
    let expected = Expected {
        commons: Some(CommonsId(NOBODY)),
        ..Expected::default()
    };
    assert!(check_ticket(&ticket, ticket.not_after_s, expected).is_err());
}

fn manifest(manifest: Manifest) {
    let root = manifest.contents.root;
    assert!(check_manifest(&manifest, root, CommonsId(NOBODY)).is_err());
    for block in &manifest.contents.blocks {
        assert_eq!(block.part_bytes(block.parts()), 0, "a part behind the end");
    }
}

/// Whether the bytes are a `T`, which is then written and read again as the same.
fn stays<T: Wire>(bytes: &[u8]) -> bool {
    then::<T>(bytes, drop)
}

fn then<T: Wire>(bytes: &[u8], look: impl FnOnce(T)) -> bool {
    let Ok(value) = from_slice::<T>(bytes) else {
        return false;
    };
    // Unknown fields of newer peers are not kept, so what is compared is what this build writes.
    let written = to_vec(&value);
    let again = from_slice::<T>(&written).expect("what was read is written so that it can be read");
    assert_eq!(to_vec(&again), written, "{}", T::WHAT);
    look(value);
    true
}

/// Lengths before a packet are refused where they are over a limit.
fn prefixes(bytes: &[u8]) {
    let Some(first) = bytes.first_chunk::<PREFIX_BYTES>() else {
        return;
    };
    if let Ok(prefix) = Prefix::parse::<Link>(*first) {
        assert!(prefix.head_bytes <= Link::BYTES_MAX && prefix.payload_bytes <= PAYLOAD_BYTES_MAX);
    }
}

/// As the text of a ticket, as somebody would paste it.
fn as_text(bytes: &[u8]) {
    if let Ok(text) = std::str::from_utf8(bytes)
        && let Ok(read) = Ticket::from_text(text)
    {
        ticket(read);
    }
}
