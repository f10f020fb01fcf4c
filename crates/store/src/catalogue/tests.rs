use super::*;

const HASH: &str = "5f4fa13bfc6dd4a91fd00e22974a9c4e9ed628fd7d7f307398ddf30260d6b2c3";

fn entry(name: &str, rest: &str, source: &str) -> String {
    format!(
        "[[model]]\nname = \"{name}\"\nabout = \"a\"\nlicence = \"MIT\"\nsha256 = \"{HASH}\"\n\
             blake3 = \"{HASH}\"\n{rest}\n[[model.source]]\n{source}\n"
    )
}

fn hub(path: &str) -> String {
    format!("kind = \"hub\"\nrepo = \"a/b\"\nrevision = \"main\"\npath = \"{path}\"")
}

fn pypi(package: &str) -> String {
    format!("kind = \"pypi\"\npackage = \"{package}\"\nversion = \"1\"\npath = \"m.gguf\"")
}

#[test]
fn the_starter_model_is_pinned() {
    let catalogue = load(None).unwrap();
    let starter = by_name(&catalogue, "smollm2-135m-instruct").unwrap();
    assert_eq!(
        (starter.bytes, starter.licence.as_str()),
        (98_362_432, "Apache-2.0")
    );
    assert!(matches!(starter.source[0], Source::Pypi { .. }));
    assert!(matches!(starter.source[1], Source::Hub { .. }));
    assert_eq!(by_hash(&catalogue, starter.blake3), Some(starter));
}

#[test]
fn a_users_file_adds_and_overrides() {
    let file = tempfile::NamedTempFile::new().unwrap();
    let mine = [
        entry("mine", "bytes = 1", &hub("m.gguf")),
        entry("smollm2-135m-instruct", "bytes = 2", &hub("m.gguf")),
    ];
    std::fs::write(file.path(), mine.concat()).unwrap();
    let catalogue = load(Some(file.path())).unwrap();
    assert_eq!(by_name(&catalogue, "mine").unwrap().bytes, 1);
    assert_eq!(
        by_name(&catalogue, "smollm2-135m-instruct").unwrap().bytes,
        2
    );
    assert_eq!(catalogue.model.len(), 2);
}

#[test]
fn a_bad_file_is_refused_with_its_name_and_reason() {
    let good = entry("m", "bytes = 1", &hub("m.gguf"));
    for (text, says) in [
        ("nonsense".to_owned(), "nonsense"),
        (entry("m", "", &hub("m.gguf")), "bytes"),
        (entry("m", "bytes = 0", &hub("m.gguf")), "bytes = 0"),
        (entry("m", "bytes = -1", &hub("m.gguf")), "invalid value"),
        (
            entry("m", "bytes = 1\ncolour = 3", &hub("m.gguf")),
            "colour",
        ),
        (entry("../m", "bytes = 1", &hub("m.gguf")), "name"),
        (entry("m", "bytes = 1", &hub("../m.gguf")), ".."),
        (
            entry("m", "bytes = 1", &pypi("--index-url=x")),
            "Python package",
        ),
        (
            entry(
                "m",
                "bytes = 1\nsampling = { temperature = -1, top_p = 1 }",
                &hub("m"),
            ),
            "sampl",
        ),
        (entry("m", "bytes = 1", "kind = \"ftp\""), "ftp"),
        ([good.clone(), good].concat(), "twice"),
    ] {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), &text).unwrap();
        let error = load(Some(file.path())).unwrap_err().to_string();
        assert!(error.contains(says), "{says:?} not in {error}");
        assert!(error.contains(file.path().to_str().unwrap()), "{error}");
    }
    let missing = load(Some(Path::new("/nowhere.toml")))
        .unwrap_err()
        .to_string();
    assert!(missing.contains("/nowhere.toml"), "{missing}");
}
