//! The invitation: a short text that lets a machine join a commons.
//!
//! Text form: `myzel1` followed by lower-case base32 (RFC 4648, no padding) of the CBOR of a [`Ticket`]. Upper and lower
//! case mean the same, so that a QR code can hold the text in capitals, which take it 5.5 bits each instead of 8.
//! Everything in a ticket is covered by the introducer's signature: a garbled one is refused before anybody is called.

use crate::codec::{self, DecodeError, Wire};
use crate::ids::{CommonsId, NodeId, TicketId};
use data_encoding::BASE32_NOPAD;
use minicbor::{CborLen, Decode, Encode};
use std::net::SocketAddr;

/// What every ticket's text begins with.
pub const TICKET_PREFIX: &str = "myzel1";
/// The longest ticket text that is read, in characters.
pub const TICKET_CHARS_MAX: usize = 2048;
/// The most addresses in one ticket.
pub const TICKET_ADDRS_MAX: usize = 16;
/// The most relays in one ticket, and of one member.
pub const RELAYS_MAX: usize = 2;
/// How long a ticket lives unless its maker says otherwise, in seconds: a week.
pub const TICKET_LIFE_S: u64 = 7 * 24 * 3600;

/// An invitation into a commons, signed by the member who will let the newcomer in.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode, CborLen)]
#[cbor(map)]
pub struct Ticket {
    /// The commons.
    #[n(0)]
    pub commons: CommonsId,
    /// The member to call.
    #[n(1)]
    pub introducer: NodeId,
    /// Where to call it: `ip:port` texts, at most [`TICKET_ADDRS_MAX`].
    #[n(2)]
    pub addrs: Vec<String>,
    /// When it ends, in seconds since 1970 UTC.
    #[n(3)]
    pub not_after_s: u64,
    /// Distinguishes tickets of one introducer; single use is counted by it.
    #[cbor(n(4), with = "minicbor::bytes")]
    pub nonce: [u8; 16],
    /// How many machines may join with it; `None` is no limit within its life.
    #[n(5)]
    pub uses_max: Option<u32>,
    /// Ed25519 by the introducer over the CBOR of this structure with 64 zeros here.
    #[cbor(n(6), with = "minicbor::bytes")]
    pub signature: [u8; 64],
    /// Relays through which the introducer is reached: `ip:port` texts, at most [`RELAYS_MAX`].
    #[n(7)]
    pub relays: Option<Vec<String>>,
}

impl Wire for Ticket {
    const WHAT: &'static str = "ticket";
    const BYTES_MAX: usize = 1280;
}

impl Ticket {
    /// The bytes that the introducer signs, under a context string of their own.
    #[must_use]
    pub fn signed_bytes(&self) -> Vec<u8> {
        let mut bytes = b"myzel ticket v1\0".to_vec();
        bytes.extend(codec::to_vec(&Self {
            signature: [0; 64],
            ..self.clone()
        }));
        bytes
    }

    /// The text form.
    #[must_use]
    pub fn to_text(&self) -> String {
        let body = BASE32_NOPAD
            .encode(&codec::to_vec(self))
            .to_ascii_lowercase();
        format!("{TICKET_PREFIX}{body}")
    }

    /// The text form in capitals, for a QR code.
    #[must_use]
    pub fn to_qr_text(&self) -> String {
        self.to_text().to_ascii_uppercase()
    }

    /// The name of the ticket at its introducer.
    #[must_use]
    pub fn id(&self) -> TicketId {
        TicketId(self.nonce)
    }

    /// Reads the text form. The signature is not checked here (`identity` does).
    ///
    /// # Errors
    ///
    /// [`DecodeError`] that says what is wrong with the text.
    pub fn from_text(text: &str) -> Result<Self, DecodeError> {
        let invalid = |why: &str| DecodeError::Invalid {
            what: Self::WHAT,
            why: why.to_owned(),
        };
        let text = text.trim();
        if text.len() > TICKET_CHARS_MAX {
            return Err(DecodeError::TooLarge {
                what: Self::WHAT,
                bytes: text.len(),
                bytes_max: TICKET_CHARS_MAX,
            });
        }
        let body = text
            .split_at_checked(TICKET_PREFIX.len())
            .and_then(|(prefix, body)| prefix.eq_ignore_ascii_case(TICKET_PREFIX).then_some(body))
            .ok_or_else(|| invalid("it does not begin with \"myzel1\""))?;
        let bytes = BASE32_NOPAD
            .decode(body.to_ascii_uppercase().as_bytes())
            .map_err(|e| invalid(&format!("its text is damaged ({e}); copy it again, whole")))?;
        let ticket: Self = codec::from_slice(&bytes)?;
        ticket.socket_addrs()?;
        ticket.relay_addrs()?;
        Ok(ticket)
    }

    /// The addresses, parsed.
    ///
    /// # Errors
    ///
    /// [`DecodeError::Invalid`] when one is not `ip:port`, or there are too many.
    pub fn socket_addrs(&self) -> Result<Vec<SocketAddr>, DecodeError> {
        parse_addrs(Self::WHAT, &self.addrs)
    }

    /// The relays, parsed.
    ///
    /// # Errors
    ///
    /// [`DecodeError::Invalid`] when one is not `ip:port`, or there are too many.
    pub fn relay_addrs(&self) -> Result<Vec<SocketAddr>, DecodeError> {
        parse_relays(Self::WHAT, self.relays.as_deref())
    }
}

/// Parses at most [`TICKET_ADDRS_MAX`] `ip:port` texts.
///
/// # Errors
///
/// [`DecodeError::Invalid`] naming the first that is not one.
pub fn parse_addrs(what: &'static str, addrs: &[String]) -> Result<Vec<SocketAddr>, DecodeError> {
    parse_some(what, addrs, TICKET_ADDRS_MAX)
}

/// Parses at most [`RELAYS_MAX`] `ip:port` texts; none is an empty list.
///
/// A relay is named by an address and never by a URL: nobody can make members look up names or ask for pages.
///
/// # Errors
///
/// [`DecodeError::Invalid`] naming the first that is not one.
pub fn parse_relays(
    what: &'static str,
    relays: Option<&[String]>,
) -> Result<Vec<SocketAddr>, DecodeError> {
    parse_some(what, relays.unwrap_or_default(), RELAYS_MAX)
}

fn parse_some(
    what: &'static str,
    addrs: &[String],
    max: usize,
) -> Result<Vec<SocketAddr>, DecodeError> {
    if addrs.len() > max {
        let why = format!("{} addresses, at most {max} are allowed", addrs.len());
        return Err(DecodeError::Invalid { what, why });
    }
    let parse = |text: &String| {
        text.parse().map_err(|_| DecodeError::Invalid {
            what,
            why: format!(
                "{:?} is not an address",
                text.chars().take(60).collect::<String>()
            ),
        })
    };
    addrs.iter().map(parse).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ticket() -> Ticket {
        Ticket {
            commons: CommonsId([1; 32]),
            introducer: NodeId([2; 32]),
            addrs: vec!["192.0.2.1:7717".into(), "[2001:db8::1]:7717".into()],
            not_after_s: 1_800_000_000,
            nonce: [3; 16],
            uses_max: Some(1),
            signature: [4; 64],
            relays: Some(vec!["198.51.100.1:7717".into()]),
        }
    }

    #[test]
    fn text_round_trips_in_any_case_and_with_white_space() {
        let text = ticket().to_text();
        assert_eq!(Ticket::from_text(&format!("  {text}\n")).unwrap(), ticket());
        let upper = ticket().to_qr_text();
        assert_eq!(Ticket::from_text(&upper).unwrap(), ticket());
        // What the alphanumeric mode of QR codes has, of ISO/IEC 18004, table 5.
        assert!(upper.chars().all(|c| matches!(c, '0'..='9' | 'A'..='Z')));
    }

    #[test]
    fn garbled_text_is_refused_with_a_reason() {
        let text = ticket().to_text();
        for (bad, says) in [
            (String::new(), "begin"),
            ("myzel1!!".into(), "damaged"),
            ("myzelé".into(), "begin"),
            (text[..text.len() - 9].to_owned(), "ticket"),
            ("x".repeat(5000), "at most"),
        ] {
            let error = Ticket::from_text(&bad).unwrap_err().to_string();
            assert!(error.contains(says), "{error}");
        }
    }

    #[test]
    fn a_ticket_with_a_bad_address_is_refused() {
        let addr = Ticket {
            addrs: vec!["nowhere".into()],
            ..ticket()
        };
        let relay = Ticket {
            relays: Some(vec!["http://nowhere".into()]),
            ..ticket()
        };
        let many = Ticket {
            relays: Some(vec!["192.0.2.1:7".into(); RELAYS_MAX + 1]),
            ..ticket()
        };
        for (bad, says) in [(addr, "nowhere"), (relay, "nowhere"), (many, "at most 2")] {
            let error = Ticket::from_text(&bad.to_text()).unwrap_err().to_string();
            assert!(error.contains(says), "{error}");
        }
    }
}
