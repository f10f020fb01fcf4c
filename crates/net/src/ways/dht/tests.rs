use super::*;

fn dht(public: bool) -> Dht {
    let config = DhtConfig {
        bootstrap: Vec::new(),
        public,
    };
    Dht::new(config, CommonsId([1; 32]))
}

#[test]
fn the_signature_is_the_one_of_bep_44() {
    let key = NodeKey::from_bytes([7; 32]);
    let signing = n0_mainline::SigningKey::from_bytes(&[7; 32]);
    let (value, salt) = (b"Hello World!", salt(CommonsId([1; 32])));
    let theirs = MutableItem::new(&signing, value, 5, Some(salt.as_slice()));
    assert_eq!(
        &key.sign(&signed_bytes(&salt, 5, value)),
        theirs.signature()
    );
    // The bytes of the specification's own example, with its salt.
    let expected = b"4:salt6:foobar3:seqi1e1:v12:Hello World!";
    assert_eq!(signed_bytes(b"foobar", 1, value), expected);
}

#[test]
fn each_commons_has_places_of_its_own() {
    assert_ne!(salt(CommonsId([1; 32])), salt(CommonsId([2; 32])));
    assert_ne!(salt(CommonsId([1; 32])), [1; 16]);
}

#[test]
fn the_public_dht_hears_of_public_addresses_alone() {
    let member = Member {
        id: NodeId([1; 32]),
        addrs: vec!["10.0.0.1:7".into(), "8.8.8.8:7".into()],
        name: "not told".into(),
        relays: Some(vec!["192.168.0.1:8".into(), "9.9.9.9:8".into()]),
    };
    let at = dht(true).whereabouts(&member);
    assert_eq!(at.addrs, ["8.8.8.8:7"]);
    assert_eq!(at.relays.unwrap(), ["9.9.9.9:8"]);
    assert_eq!(dht(false).whereabouts(&member).addrs, member.addrs);
}

#[test]
fn the_largest_whereabouts_fit_an_item() {
    let addr = "[2001:db8:1234:5678:9abc:def0:1234:5678]:47717".to_owned();
    let member = Member {
        id: NodeId([1; 32]),
        addrs: vec![addr.clone(); 16],
        name: String::new(),
        relays: Some(vec![addr; 2]),
    };
    let at = dht(false).whereabouts(&member);
    assert_eq!(at.addrs.len(), WHEREABOUTS_ADDRS_MAX);
    let bytes = codec::to_vec(&at);
    assert_eq!(codec::from_slice::<Whereabouts>(&bytes).unwrap(), at);
}

#[test]
fn a_node_is_asked_for_again_after_a_while() {
    let dht = dht(true);
    let peer = NodeId([1; 32]);
    assert!(dht.is_due(peer));
    dht.note_asked(peer);
    assert!(!dht.is_due(peer));
    assert!(dht.is_due(NodeId([2; 32])));
    let pause = |times| {
        let at = Instant::now();
        u64::try_from(Asked { at, times }.pause().as_millis()).unwrap()
    };
    assert_eq!(pause(1), DHT_ASK_PAUSE_MIN_MS);
    assert_eq!(pause(3), 4 * DHT_ASK_PAUSE_MIN_MS);
    assert_eq!(pause(u32::MAX), DHT_ASK_PAUSE_MAX_MS);
    for n in 0..DHT_ASKED_MAX {
        let mut id = [9; 32];
        id[..8].copy_from_slice(&n.to_le_bytes());
        dht.note_asked(NodeId(id));
    }
    assert!(dht.asked.lock().unwrap().len() <= DHT_ASKED_MAX);
}

#[tokio::test]
async fn without_a_node_to_begin_with_there_is_an_error_that_says_so() {
    let key = NodeKey::from_bytes([7; 32]);
    let at = Whereabouts {
        addrs: vec!["8.8.8.8:7".into()],
        relays: None,
    };
    let error = dht(true).tell(&key, &at).await.unwrap_err();
    assert!(error.to_string().contains("way to the internet"), "{error}");
    assert_eq!(dht(true).find(NodeId([1; 32])).await, None);
}
