use super::*;

/// From the SHA-256 and BLAKE3 specifications' own test vectors: the empty input.
#[test]
fn the_empty_file_has_the_published_hashes() {
    let dir = tempfile::tempdir().unwrap();
    let digests = Intake::begin(&dir.path().join("f"), 0)
        .unwrap()
        .finish()
        .unwrap();
    let sha256 = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
    let blake3 = "af1349b9f5f9a1a6a0404dea36dcc9499bcb25c9adc112b7cc9a93cae41f3262";
    assert_eq!(digests.sha256.to_string(), sha256);
    assert_eq!(digests.blake3.to_string(), blake3);
}

#[test]
fn a_resumed_file_has_the_digests_of_an_uninterrupted_one() {
    let dir = tempfile::tempdir().unwrap();
    let (path, stop) = (dir.path().join("f"), Stop::default());
    let bytes: Vec<u8> = (0..3_000_000u32).map(|i| (i * 7 % 251) as u8).collect();
    for cut in [
        0,
        1,
        CHUNK_BYTES - 1,
        CHUNK_BYTES,
        CHUNK_BYTES + 1,
        bytes.len(),
    ] {
        let mut first = Intake::begin(&path, bytes.len() as u64).unwrap();
        first.write(&bytes[..cut]).unwrap();
        drop(first);
        let mut second = Intake::resume(&path, bytes.len() as u64, &stop, |_| ()).unwrap();
        assert_eq!(second.bytes(), cut as u64);
        second.write(&bytes[cut..]).unwrap();
        let digests = second.finish().unwrap();
        assert_eq!(digests.blake3, Hash::of(&bytes), "cut at {cut}");
        assert_eq!(digests, digest_file(&path, &stop, |_| ()).unwrap());
    }
}

#[test]
fn more_bytes_than_expected_are_refused_before_they_are_written() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("f");
    let mut intake = Intake::begin(&path, 3).unwrap();
    intake.write(b"abc").unwrap();
    assert!(matches!(
        intake.write(b"d"),
        Err(WriteError::TooLong { bytes_max: 3 })
    ));
    assert_eq!(std::fs::read(&path).unwrap(), b"abc");
    // A leftover that is longer than the file is worthless: it begins anew.
    assert_eq!(
        Intake::resume(&path, 2, &Stop::default(), |_| ())
            .unwrap()
            .bytes(),
        0
    );
}

#[test]
fn a_file_that_can_never_fit_is_refused_before_the_first_byte() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("f");
    let Err(WriteError::Full(full)) = Intake::begin(&path, u64::MAX / 2) else {
        panic!("an impossible size was accepted");
    };
    assert_eq!(
        (full.dir.as_path(), full.needed),
        (dir.path(), u64::MAX / 2)
    );
    assert!(full.free > 0 && !path.exists());
}
