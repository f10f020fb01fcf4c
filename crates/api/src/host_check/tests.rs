use super::*;

/// The code of the refusal, if there is one.
fn verdict(bound: &str, host: Option<&str>, origin: Option<&str>) -> Option<&'static str> {
    let check = HostCheck::new(bound.parse().unwrap(), &["Box.Example".into()]);
    let mut headers = HeaderMap::new();
    for (name, value) in [(HOST, host), (ORIGIN, origin)] {
        if let Some(value) = value {
            headers.insert(name, value.parse().unwrap());
        }
    }
    check
        .check(&Uri::from_static("/"), &headers)
        .err()
        .map(|fault| fault.code)
}

#[test]
fn on_loopback_only_its_own_names_and_allowed_ones_pass() {
    for host in [
        "localhost",
        "localhost:7717",
        "LOCALHOST.:1",
        "127.0.0.1",
        "127.0.0.1:80",
        "127.9.9.9",
        "[::1]",
        "[::1]:7717",
        "[::ffff:127.0.0.1]",
        "box.example",
        "BOX.example.:7717",
        "localhost:",
    ] {
        assert_eq!(verdict("127.0.0.1", Some(host), None), None, "{host}");
        assert_eq!(verdict("::1", Some(host), None), None, "{host}");
    }
    for host in [
        "",
        "evil.example",
        "localhost.evil.example",
        "evil.example:7717",
        "127.0.0.1.evil.example",
        "128.0.0.1",
        "0.0.0.0",
        "[::2]",
        "::1",
        "[::1",
        "[::1]x",
        "localhost:port",
        "localhost:99999",
        "localhost:80:80",
        "me@localhost",
    ] {
        assert_eq!(
            verdict("127.0.0.1", Some(host), None),
            Some("host_not_allowed"),
            "{host}"
        );
        assert_eq!(
            verdict("::1", Some(host), None),
            Some("host_not_allowed"),
            "{host}"
        );
    }
    assert_eq!(verdict("127.0.0.1", None, None), Some("host_not_allowed"));
}

#[test]
fn on_other_addresses_every_name_passes() {
    for host in [Some("evil.example"), Some("10.0.0.7:7717"), None] {
        assert_eq!(verdict("0.0.0.0", host, None), None, "{host:?}");
    }
}

#[test]
fn pages_of_other_sites_are_refused_everywhere() {
    for (bound, host) in [
        ("127.0.0.1", "127.0.0.1:7717"),
        ("0.0.0.0", "10.0.0.7:7717"),
    ] {
        for origin in [
            "http://localhost:3000",
            "https://box.example",
            "http://[::1]:1",
        ] {
            assert_eq!(verdict(bound, Some(host), Some(origin)), None, "{origin}");
        }
        let same = format!("http://{host}");
        assert_eq!(verdict(bound, Some(host), Some(&same)), None, "{same}");
        for origin in [
            "https://evil.example",
            "null",
            "",
            "http://localhost.evil.example",
            "file://",
        ] {
            let found = verdict(bound, Some(host), Some(origin));
            assert_eq!(found, Some("origin_not_allowed"), "{origin}");
        }
    }
}

#[test]
fn a_request_target_with_a_foreign_host_is_refused_as_well() {
    let check = HostCheck::new(IpAddr::V4(Ipv4Addr::LOCALHOST), &[]);
    let headers = HeaderMap::from_iter([(HOST, HeaderValue::from_static("localhost"))]);
    let verdict = |uri| check.check(&Uri::from_static(uri), &headers);
    assert!(verdict("http://localhost/").is_ok());
    assert!(verdict("http://evil.example/").is_err());
}
