//! Sealing: ChaCha20-Poly1305 (RFC 8439) under a key of each answer's own.

use crate::keys::Secret;
use proto::ids::StreamId;
use proto::journal::{NONCE_BYTES, SALT_BYTES, Sealed};
use ring::aead::{Aad, CHACHA20_POLY1305, LessSafeKey, Nonce, UnboundKey};
use ring::rand::{SecureRandom, SystemRandom};

/// What keys of journals are derived for, so that they are no use for anything else.
const CONTEXT: &str = "myzel 2026 journal of a streamed answer v1";

/// Bytes of the system's random source.
pub(super) fn random<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    let filled = SystemRandom::new().fill(&mut bytes);
    filled.expect("the system has random bytes");
    bytes
}

/// The key of one answer's records.
pub(super) struct StreamKey(LessSafeKey);

impl std::fmt::Debug for StreamKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("StreamKey(…)")
    }
}

impl StreamKey {
    /// Made of the node's secret and the answer's salt.
    pub(super) fn derive(secret: &Secret, salt: &[u8; SALT_BYTES]) -> Self {
        let key = blake3::derive_key(CONTEXT, &[&secret.0[..], salt].concat());
        let key = UnboundKey::new(&CHACHA20_POLY1305, &key);
        Self(LessSafeKey::new(
            key.expect("the key has the cipher's length"),
        ))
    }

    /// Seals a record. A key seals a few million records at the most, for which random nonces of 96 bits are safe; counted ones
    /// are not, since a record that was cut off in a crash is written once more with another content.
    pub(super) fn seal(&self, stream: StreamId, number: u64, mut plain: Vec<u8>) -> Sealed {
        let nonce = random::<NONCE_BYTES>();
        let aad = Aad::from(Sealed::additional_data(stream, number));
        let unique = Nonce::assume_unique_for_key(nonce);
        let sealed = self.0.seal_in_place_append_tag(unique, aad, &mut plain);
        sealed.expect("a record is far below the cipher's limit");
        Sealed {
            stream,
            number,
            nonce,
            sealed: plain,
            salt: None,
        }
    }

    /// What was sealed; `None` if it was not sealed so.
    pub(super) fn open(&self, record: Sealed) -> Option<Vec<u8>> {
        let aad = Aad::from(Sealed::additional_data(record.stream, record.number));
        let nonce = Nonce::assume_unique_for_key(record.nonce);
        let mut bytes = record.sealed;
        let length = self.0.open_in_place(nonce, aad, &mut bytes).ok()?.len();
        bytes.truncate(length);
        Some(bytes)
    }
}
