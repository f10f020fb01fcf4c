use super::*;
use proto::ids::SessionId;
use proto::packet::f32_to_bytes;
use proto::ring::RowsKind;

#[test]
fn full_frames_fit_a_packet_and_divide_the_chunk() {
    fn check(embedding_length: u32, expected: u32) {
        assert_eq!(frame_rows(embedding_length), expected, "{embedding_length}");
        assert_eq!(CHUNK_ROWS % expected, 0);
        assert!(expected as usize * row_bytes(embedding_length) <= PAYLOAD_BYTES_MAX);
    }
    check(1, 256);
    check(576, 256);
    check(8_192, 256);
    check(8_193, 128);
    check(16_384, 128);
    check(EMBEDDING_LENGTH_MAX, 1);
}

#[test]
fn frames_of_another_shape_are_refused() {
    type Change = fn(&mut Rows, &mut Vec<f32>);
    fn check(change: Change, expected: &str) {
        let (session, kind) = (SessionId([1; 16]), RowsKind::Prefill);
        let (position, chunk) = (250, 0);
        let mut rows = Rows {
            session,
            epoch: 1,
            position,
            rows: 2,
            chunk,
            stage: 3,
            kind,
            guessed: 0,
        };
        let mut values = vec![0.5; 6];
        change(&mut rows, &mut values);
        let shape = Shape {
            from_stage: 3,
            embedding_length: 3,
            positions_max: 300,
        };
        let verdict = shape.check(&rows, &f32_to_bytes(&values));
        assert_eq!(
            verdict.map_or_else(|fault| fault.to_string(), |()| "ok".into()),
            expected
        );
    }
    check(|_, _| (), "ok");
    check(|_, v| v[5] = f32::MAX, "ok");
    check(
        |r, _| r.stage = 2,
        "the frame is of stage 2, expected stage 3",
    );
    check(|r, _| r.rows = 0, "0 rows, expected 1 to 256");
    check(|r, _| r.rows = 257, "257 rows, expected 1 to 256");
    check(|r, _| r.chunk = 1, "chunk 1, expected 0");
    check(
        |r, _| r.rows = 51,
        "rows up to position 301, the session has 300 positions",
    );
    check(
        |r, _| (r.position, r.chunk) = (u32::MAX, u32::MAX / 256),
        "rows up to position 4294967297, the session has 300 positions",
    );
    check(|_, v| v.truncate(5), "a payload of 20 bytes, expected 24");
    check(
        |_, v| v[4] = f32::NAN,
        "value 1 of row 1 from stage 3 is not finite",
    );
    check(
        |_, v| v[0] = f32::NEG_INFINITY,
        "value 0 of row 0 from stage 3 is not finite",
    );
}

#[test]
fn details_are_bounded_and_harmless() {
    assert_eq!(clean("a\u{1b}[31m\nb"), "a [31m b");
    assert_eq!(clean(&"ä".repeat(400)).len(), DETAIL_BYTES_MAX);
}
