use super::*;

/// Frames of 3, 2 and 4 one-value rows from position 10; row p holds the byte p.
fn filled() -> Retained {
    let mut retained = Retained::default();
    for (position, rows) in [(10, 3), (13, 2), (15, 4)] {
        let values = (position..position + rows).flat_map(|p| [p as u8; 4]);
        let output = values.collect::<Vec<_>>().into();
        retained.push(Record {
            position,
            rows,
            input: Some(Hash([1; 32])),
            output,
        });
    }
    retained
}

fn check(change: impl FnOnce(&mut Retained), expected: &[(u32, u32)]) {
    let mut retained = filled();
    change(&mut retained);
    let spans: Vec<_> = retained
        .records
        .iter()
        .map(|r| (r.position, r.rows))
        .collect();
    assert_eq!(spans, expected);
    assert_eq!(
        retained.bytes,
        retained
            .records
            .iter()
            .map(|r| r.output.len())
            .sum::<usize>()
    );
    for record in &retained.records {
        assert_eq!(record.output.len(), record.rows as usize * 4);
        assert_eq!(u32::from(record.output[0]), record.position);
    }
}

#[test]
fn forgetting_and_cutting() {
    check(|_| (), &[(10, 3), (13, 2), (15, 4)]);
    check(|r| r.forget_below(12), &[(10, 3), (13, 2), (15, 4)]);
    check(|r| r.forget_below(13), &[(13, 2), (15, 4)]);
    check(|r| r.forget_below(99), &[]);
    check(|r| r.shrink(24, u32::MAX), &[(13, 2), (15, 4)]);
    check(|r| r.shrink(0, 14), &[(13, 2), (15, 4)]);
    check(|r| r.shrink(0, u32::MAX), &[]);
    check(|r| r.cut(19, 1), &[(10, 3), (13, 2), (15, 4)]);
    check(|r| r.cut(15, 1), &[(10, 3), (13, 2)]);
    check(|r| r.cut(14, 1), &[(10, 3), (13, 1)]);
    check(|r| r.cut(11, 1), &[(10, 1)]);
    check(|r| r.cut(10, 1), &[]);
    check(Retained::clear, &[]);
}

#[test]
fn a_cut_record_no_longer_claims_its_input() {
    let mut retained = filled();
    retained.cut(14, 1);
    assert_eq!(retained.find(13).unwrap().input, None);
    assert_eq!(retained.find(10).unwrap().input, Some(Hash([1; 32])));
}

#[test]
fn rows_of_several_records() {
    let rows = |position, rows| {
        let all = filled().rows(position, rows, 1);
        all.iter().step_by(4).copied().collect::<Vec<u8>>()
    };
    assert_eq!(rows(10, 9), (10..19).collect::<Vec<u8>>());
    assert_eq!(rows(12, 4), [12, 13, 14, 15]);
    assert_eq!(rows(16, 2), [16, 17]);
    assert!(std::panic::catch_unwind(|| filled().rows(9, 2, 1)).is_err());
}

#[test]
fn finding() {
    let retained = filled();
    assert_eq!(retained.from(), Some(10));
    assert_eq!(retained.find(13).map(Record::end), Some(15));
    assert_eq!(retained.find(14), None);
    assert_eq!(retained.around(14).map(|r| r.position), Some(13));
    assert_eq!(retained.around(15).map(|r| r.position), Some(15));
    assert_eq!((retained.around(9), retained.around(19)), (None, None));
    assert_eq!(retained.ending_at(19).map(|r| r.position), Some(15));
    assert_eq!(retained.ending_at(15), None);
}
