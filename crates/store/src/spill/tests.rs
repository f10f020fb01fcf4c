use super::*;

fn file() -> (tempfile::TempDir, SpillFile) {
    let dir = tempfile::tempdir().unwrap();
    let file = SpillFile::create(dir.path()).unwrap();
    (dir, file)
}

#[test]
fn what_was_put_away_comes_back_and_has_no_name() {
    let (dir, file) = file();
    let texts = [vec![1; 5], vec![], vec![2; 100_000]];
    let kept: Vec<_> = texts.iter().map(|text| file.put(text).unwrap()).collect();
    for (text, kept) in texts.iter().zip(&kept) {
        assert_eq!(kept.read().unwrap(), text[..]);
    }
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
    drop(file);
    assert_eq!(
        kept[0].read().unwrap(),
        texts[0][..],
        "records keep their file"
    );
}

#[test]
fn nothing_can_be_read_in_the_file_and_what_is_altered_is_not_read() {
    let (_dir, file) = file();
    let secret = b"the rows of a request that is nobody's business".repeat(9);
    let kept = file.put(&secret).unwrap();
    let mut there = vec![0; secret.len() + 16];
    file.0.file.read_exact_at(&mut there, 0).unwrap();
    assert!(
        !there
            .windows(8)
            .any(|part| secret.windows(8).any(|other| other == part))
    );
    there[7] ^= 1;
    file.0.file.write_all_at(&there, 0).unwrap();
    assert_eq!(kept.read(), None);
    file.0.file.set_len(3).unwrap();
    assert_eq!(kept.read(), None);
}

#[test]
fn a_file_that_cannot_grow_takes_no_more() {
    let (_dir, file) = file();
    *file.0.end.lock().unwrap() = FILE_BYTES_MAX - 20;
    assert!(file.put(&[1; 5]).is_none());
    let kept = file.put(&[1; 4]).unwrap();
    assert_eq!(kept.read().unwrap(), [1; 4][..]);
    assert!(SpillFile::create(Path::new("/nonexistent")).is_err());
}
