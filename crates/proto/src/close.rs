//! Why a connection was closed: the number that QUIC carries to the other side (RFC 9000, section 19.19).

/// A closed reason. Its number is on the wire and never changes its meaning.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
#[repr(u32)]
pub enum CloseCode {
    /// Nothing more to say.
    #[error("finished")]
    Done = 0,
    /// The node is shutting down.
    #[error("it is shutting down")]
    ShuttingDown = 1,
    /// Something came that is not the protocol, or is over a limit.
    #[error("something that is not the protocol was received")]
    Malformed = 2,
    /// The first message did not come in time.
    #[error("the first message took too long")]
    TooSlow = 3,
    /// The answer said why.
    #[error("refused")]
    Refused = 4,
    /// No sign of life for [`crate::member::SUSPECT_MS`].
    #[error("nothing was heard for too long")]
    Silent = 5,
    /// The two already have a link, or both called at once and the other call goes on.
    #[error("there is a link already")]
    Duplicate = 6,
    /// The peer called again, so the link from before is dead.
    #[error("a newer link took its place")]
    Replaced = 7,
    /// Far more was said than a link is for, and slowing down did not help.
    #[error("too much was said")]
    Flooding = 8,
}

impl CloseCode {
    /// Every code, in the order of the numbers.
    pub const ALL: [Self; 9] = [
        Self::Done,
        Self::ShuttingDown,
        Self::Malformed,
        Self::TooSlow,
        Self::Refused,
        Self::Silent,
        Self::Duplicate,
        Self::Replaced,
        Self::Flooding,
    ];

    /// The number on the wire.
    #[must_use]
    pub const fn number(self) -> u32 {
        self as u32
    }

    /// The code with this number; `None` is one that this build does not know.
    #[must_use]
    pub fn from_number(number: u64) -> Option<Self> {
        Self::ALL.get(usize::try_from(number).ok()?).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_fixed() {
        for (at, code) in CloseCode::ALL.into_iter().enumerate() {
            assert_eq!(code.number() as usize, at);
            assert_eq!(CloseCode::from_number(at as u64), Some(code));
        }
        assert_eq!(CloseCode::from_number(9), None);
        assert_eq!(CloseCode::from_number(u64::MAX), None);
    }
}
