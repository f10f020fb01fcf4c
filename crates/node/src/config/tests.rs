use super::*;

#[test]
fn a_flag_wins_over_the_file_and_the_file_over_nothing() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join(CONFIG_FILE), "split = 2\nsessions = 9\n").unwrap();
    let flags = Settings {
        split: Some(1),
        ..Settings::default()
    };
    let merged = flags.with_file(None, dir.path()).unwrap();
    assert_eq!(
        (merged.split, merged.sessions, merged.threads),
        (Some(1), Some(9), None)
    );
}

#[test]
fn an_unknown_key_is_an_error_that_names_it() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("mine.toml");
    std::fs::write(&path, "splitt = 2\n").unwrap();
    let error = Settings::default()
        .with_file(Some(&path), dir.path())
        .unwrap_err();
    let text = format!("{error:#}");
    assert!(
        text.contains("splitt") && text.contains("mine.toml"),
        "{text}"
    );
}

#[test]
fn a_named_file_must_exist_and_the_default_one_need_not() {
    let dir = tempfile::tempdir().unwrap();
    assert!(Settings::default().with_file(None, dir.path()).is_ok());
    assert!(
        Settings::default()
            .with_file(Some(&dir.path().join("no")), dir.path())
            .is_err()
    );
}

#[test]
fn memory_is_written_with_a_unit_or_refused() {
    let check = |text: &str, bytes: Option<u64>| {
        let got: Option<MemorySize> = text.parse().ok();
        assert_eq!(got.map(|size| size.0), bytes, "{text}");
    };
    check("512MiB", Some(512 << 20));
    check("1KiB", Some(1024));
    check("3GiB", Some(3 << 30));
    for wrong in [
        "",
        "512",
        "MiB",
        "0MiB",
        "-1MiB",
        "1.5GiB",
        "5 MiB",
        "99999999999TiB",
    ] {
        check(wrong, None);
    }
}

#[test]
fn the_file_knows_cache_settings() {
    let dir = tempfile::tempdir().unwrap();
    let text = "kv = \"q8_0\"\nkv_memory = \"1GiB\"\nrope_scale = 2.0\n";
    std::fs::write(dir.path().join(CONFIG_FILE), text).unwrap();
    let merged = Settings::default().with_file(None, dir.path()).unwrap();
    let memory = merged.kv_memory.map(|size| size.0);
    assert_eq!(
        (merged.kv, memory, merged.rope_scale),
        (Some(KvChoice::Q8_0), Some(1 << 30), Some(2.0))
    );
}

#[test]
fn every_way_is_open_unless_it_is_closed() {
    let open = Settings::default().ways();
    assert!(open.lan && open.dht.is_some_and(|dht| dht.public));
    assert_eq!(open.relay, RelayOffer::Auto);
    let dir = tempfile::tempdir().unwrap();
    let text = "lan = false\ndht = false\nrelay = \"off\"\n";
    std::fs::write(dir.path().join(CONFIG_FILE), text).unwrap();
    let closed = Settings::default().with_file(None, dir.path()).unwrap();
    assert_eq!(closed.ways(), WaysConfig::default());
    let own = Settings {
        dht_bootstrap: vec!["192.0.2.1:7".into()],
        ..Settings::default()
    };
    assert!(
        own.ways()
            .dht
            .is_some_and(|dht| !dht.public && dht.bootstrap.len() == 1)
    );
}

#[test]
fn a_relay_is_named_by_an_address_that_others_can_call() {
    let check = |text: &str, expected: Option<RelayOffer>| {
        let got: Option<RelayChoice> = text.parse().ok();
        assert_eq!(got.map(|choice| choice.0), expected, "{text}");
    };
    check("auto", Some(RelayOffer::Auto));
    check("off", Some(RelayOffer::Off));
    let at = "192.0.2.1:7717".parse().unwrap();
    check("192.0.2.1:7717", Some(RelayOffer::At(at)));
    for wrong in [
        "",
        "on",
        "7717",
        "0.0.0.0:7717",
        "[::]:7717",
        "http://192.0.2.1:1",
    ] {
        check(wrong, None);
    }
}

#[test]
fn a_ring_means_exact_unless_said_otherwise() {
    let open = Settings::default();
    assert_eq!(open.numerics(true), Numerics::Exact);
    assert_eq!(open.numerics(false), Numerics::Throughput);
    let said = Settings {
        numerics: Some(NumericsChoice::Throughput),
        ..open
    };
    assert_eq!(said.numerics(true), Numerics::Throughput);
}
