use super::*;

fn record() -> ModelRecord {
    ModelRecord {
        version: MODEL_RECORD_VERSION,
        name: "m".into(),
        bytes: 5,
        sha256: Hash([1; 32]),
        blake3: Hash([2; 32]),
        licence: Some("MIT".into()),
        source: "hf:a/b/m.gguf@main".into(),
        added_s: 7,
    }
}

#[test]
fn a_record_reads_back_and_is_listed_only_with_its_file() {
    let dir = tempfile::tempdir().unwrap();
    write(dir.path(), &record()).unwrap();
    assert_eq!(list(dir.path(), false).models, []);
    let file = model_path(dir.path(), Hash([2; 32]));
    fs::write(&file, b"12345").unwrap();
    let stored = Stored {
        record: record(),
        path: file,
        shared: true,
    };
    assert_eq!(list(dir.path(), true).models, [stored]);
}

#[test]
fn a_bad_record_is_reported_and_hides_no_other() {
    let dir = tempfile::tempdir().unwrap();
    write(dir.path(), &record()).unwrap();
    fs::write(model_path(dir.path(), Hash([2; 32])), b"12345").unwrap();
    let bad = path(dir.path(), Hash([9; 32]));
    let good = fs::read_to_string(path(dir.path(), Hash([2; 32]))).unwrap();
    for (text, says) in [
        (String::new(), "version"),
        ("version = 0".into(), "version"),
        ("version = \"1\"".into(), "version"),
        ("version = 1".into(), "name"),
        (good.clone(), "another file"),
        (good.replace("version = 1", "version = 2"), "newer myzel"),
        (good.replace("\"m\"", "\"../m\""), "name"),
        (format!("{good}more = 1\n"), "more"),
        (format!("{good}#{}", "x".repeat(1 << 17)), "bytes"),
    ] {
        fs::write(&bad, &text).unwrap();
        let listing = list(dir.path(), false);
        assert_eq!(listing.models.len(), 1, "{says}");
        let error = listing.broken[0].to_string();
        assert!(
            error.contains(says) && error.contains("0909"),
            "{says:?} not in {error}"
        );
    }
}

fn rename_file(table: &mut toml::Table) -> Result<(), String> {
    let name = table.remove("title").ok_or("it has no title")?;
    table.insert("name".into(), name);
    Ok(())
}

fn add_licence(table: &mut toml::Table) -> Result<(), String> {
    table.insert("licence".into(), "unknown".into());
    Ok(())
}

#[test]
fn old_records_are_lifted_in_order_and_stay_as_they_are_on_disk() {
    let dir = tempfile::tempdir().unwrap();
    write(
        dir.path(),
        &ModelRecord {
            licence: None,
            ..record()
        },
    )
    .unwrap();
    let path = path(dir.path(), Hash([2; 32]));
    let old = fs::read_to_string(&path)
        .unwrap()
        .replace("name =", "title =");
    fs::write(&path, &old).unwrap();
    let lifted = read(&path, &[rename_file, add_licence]).unwrap();
    let expected = ModelRecord {
        version: 3,
        licence: Some("unknown".into()),
        ..record()
    };
    assert_eq!(lifted, expected);
    assert_eq!(fs::read_to_string(&path).unwrap(), old);
    let half = old.replace("version = 1", "version = 2");
    fs::write(&path, half).unwrap();
    assert!(
        read(&path, &[rename_file, add_licence])
            .unwrap_err()
            .to_string()
            .contains("title")
    );
}
