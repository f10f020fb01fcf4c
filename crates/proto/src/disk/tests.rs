use super::*;
use crate::codec;

#[test]
fn a_remembered_hash_keeps_its_encoding() {
    let value = PathHash {
        bytes: 5,
        modified_ns: 6,
        blake3: Hash([7; 32]),
    };
    let bytes = codec::to_vec(&value);
    let golden = [vec![0xa3, 0, 5, 1, 6, 2, 0x58, 32], vec![7; 32]].concat();
    assert_eq!(bytes, golden);
    assert_eq!(codec::from_slice::<PathHash>(&bytes).unwrap(), value);
}

#[test]
fn a_record_of_a_ticket_keeps_its_encoding() {
    let value = TicketRecord {
        issued_s: 1,
        not_after_s: 2,
        uses_max: None,
        revoked_s: Some(3),
    };
    let bytes = codec::to_vec(&value);
    assert_eq!(bytes, [0xa3, 0, 1, 1, 2, 3, 3]);
    assert_eq!(codec::from_slice::<TicketRecord>(&bytes).unwrap(), value);
}

#[test]
fn a_record_of_deaths_keeps_its_encoding() {
    let value = ModelDeaths {
        name: "a".to_owned(),
        times_s: vec![1, 2],
        newest: "b".to_owned(),
        quarantined_s: Some(3),
    };
    let bytes = codec::to_vec(&value);
    let golden = [0xa4, 0, 0x61, b'a', 1, 0x82, 1, 2, 2, 0x61, b'b', 3, 3];
    assert_eq!(bytes, golden);
    assert_eq!(codec::from_slice::<ModelDeaths>(&bytes).unwrap(), value);
}

#[test]
fn a_record_of_memory_keeps_its_encoding() {
    let memory = Memory {
        weights_bytes: 1,
        cache_bytes: 2,
        compute_bytes: 3,
        process_bytes: 4,
        positions_max: 5,
        sessions_max: 6,
    };
    let key = Hash([7; 32]);
    let value = MemoryRecord {
        version: 8,
        entries: vec![MemoryEntry { key, memory }],
    };
    let bytes = codec::to_vec(&value);
    let golden = [
        &[0xa2, 0, 8, 1, 0x81, 0xa2, 0, 0x58, 32][..],
        &[7; 32],
        &[1, 0xa6, 0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5, 6],
    ];
    assert_eq!(bytes, golden.concat());
    assert_eq!(codec::from_slice::<MemoryRecord>(&bytes).unwrap(), value);
    let full = MemoryEntry {
        key,
        memory: Memory {
            weights_bytes: u64::MAX,
            cache_bytes: u64::MAX,
            compute_bytes: u64::MAX,
            process_bytes: u64::MAX,
            positions_max: u32::MAX,
            sessions_max: u32::MAX,
        },
    };
    let largest = MemoryRecord {
        version: u32::MAX,
        entries: vec![full; MEMORY_ENTRIES_MAX],
    };
    assert!(codec::to_vec(&largest).len() <= MemoryRecord::BYTES_MAX);
}
