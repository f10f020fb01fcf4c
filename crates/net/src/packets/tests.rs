use super::*;
use proto::ids::SessionId;
use proto::packet::PAYLOAD_BYTES_MAX;
use proto::ring::{Hop, HopBody, OpenSession};

fn hop() -> Hop {
    HopBody::Open(OpenSession {
        session: SessionId([5; 16]),
        epoch: 1,
        positions_max: 64,
    })
    .into()
}

#[test]
fn packets_come_out_whole_however_they_arrive() {
    let payloads: [&[u8]; 3] = [b"", b"activations", &[7; 3000]];
    let stream: Vec<u8> = payloads
        .iter()
        .flat_map(|p| packet::encode(&hop(), p))
        .collect();
    for piece_bytes in [1, 7, 100, stream.len()] {
        let mut buffer = BytesMut::new();
        let mut got = Vec::new();
        for piece in stream.chunks(piece_bytes) {
            buffer.extend_from_slice(piece);
            while let Step::Packet(head, payload) = take::<Hop>(&mut buffer, 4096).unwrap() {
                assert_eq!(head, hop());
                got.push(payload);
            }
        }
        assert_eq!(got, payloads, "in pieces of {piece_bytes}");
        assert!(buffer.is_empty());
    }
}

#[test]
fn what_is_missing_is_counted_to_the_byte() {
    let packet = packet::encode(&hop(), b"xyz");
    for have in 0..packet.len() {
        let mut buffer = BytesMut::from(&packet[..have]);
        let Step::Missing(bytes) = take::<Hop>(&mut buffer, 16).unwrap() else {
            panic!("a packet out of {have} bytes");
        };
        let until = if have < PREFIX_BYTES {
            PREFIX_BYTES
        } else {
            packet.len()
        };
        assert_eq!(have + bytes, until);
    }
}

#[test]
fn lengths_over_the_limits_are_refused_before_the_bytes_come() {
    let prefix = |head: u32, payload: u32| {
        BytesMut::from(&[head.to_le_bytes(), payload.to_le_bytes()].concat()[..])
    };
    for (head, payload, payload_bytes_max) in [
        (Hop::BYTES_MAX as u32 + 1, 0, 0),
        (u32::MAX, 0, 0),
        (9, 1, 0),
        (9, PAYLOAD_BYTES_MAX as u32 + 1, usize::MAX),
        (9, u32::MAX, usize::MAX),
    ] {
        let mut buffer = prefix(head, payload);
        assert!(
            matches!(
                take::<Hop>(&mut buffer, payload_bytes_max),
                Err(DecodeError::TooLarge { .. })
            ),
            "{head}, {payload}"
        );
    }
}
