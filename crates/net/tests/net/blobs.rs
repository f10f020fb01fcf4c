//! Blocks of models between real endpoints: fetched from several at once, refused, poisoned, cut off, slowed down.

use crate::common::{Node, Raw, close_code, hello, key, membership, now_s, packet, within};
use crate::shelf::{Basket, HandClock, Page, Shelf, provider, unlimited};
use bao_tree::ChunkRanges;
use bao_tree::io::outboard::PostOrderMemOutboard;
use bao_tree::io::sync::encode_ranges;
use iroh::endpoint::{Connection, ConnectionError};
use iroh_blobs::protocol::{ChunkRangesSeq, GetManyRequest, GetRequest, ObserveRequest, Request};
use net::LinkEvent;
use net::blobs::{
    ALPN_BLOBS, AskError, FetchError, FetchReport, Provider, ProviderState, UploadLimits,
    WallClock, Wanted,
};
use net::limits::{BLOB_CONNECTIONS_PER_PEER_MAX, UPLOAD_BURST_BYTES};
use proto::close::CloseCode;
use proto::ids::Hash;
use proto::manifest::{ALPN_MODEL, AskModel, Contents, Manifest, ModelAnswer, PART_BYTES};
use proto::member::{ALPN_LINK, Member};
use std::num::NonZeroU64;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::sync::watch;
use tokio::task::JoinSet;

/// A node that offers what is on the shelf.
async fn offering(n: u8, shelf: Shelf) -> Node {
    let node = Node::start(n, Vec::new()).await;
    node.links
        .offer(Arc::new(shelf), unlimited(), Arc::new(WallClock::default()));
    node
}

/// A member that all of them have met.
pub(crate) async fn newcomer(n: u8, nodes: &mut [&mut Node]) -> Node {
    let known = nodes.iter().map(|node| node.member()).collect();
    let newcomer = Node::start(n, known).await;
    for node in nodes {
        // Nodes hear of each other through the newcomer, and link up too.
        while !matches!(node.event().await, LinkEvent::Up { member } if member.id == newcomer.id())
        {
        }
    }
    newcomer
}

async fn fetch(
    node: &Node,
    pages: &[Page],
    providers: &[Provider],
    basket: &Arc<Basket>,
) -> Result<FetchReport, FetchError> {
    let wanted: Vec<Wanted> = pages.iter().map(Page::wanted).collect();
    within(
        node.links
            .fetch(&wanted, providers, basket.clone(), &|_| ()),
    )
    .await
}

/// A shelf from which only so many bytes may be read until the test says otherwise.
fn gated(pages: &[Page], bytes: u64) -> (Shelf, watch::Sender<u64>) {
    let (open, gate) = watch::channel(bytes);
    let shelf = Shelf {
        gate: Some(gate),
        ..Shelf::of(pages)
    };
    (shelf, open)
}

/// Opens a gate when so many bytes were read elsewhere.
async fn until_read(read: &AtomicU64, bytes: u64, open: &watch::Sender<u64>) {
    while read.load(Ordering::SeqCst) < bytes {
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    open.send_replace(u64::MAX);
}

fn pages(blocks: u32, parts: u64) -> Vec<Page> {
    (0..blocks).map(|layer| Page::new(layer, parts)).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn two_providers_deliver_at_once_and_one_with_a_part_of_the_model_serves_that() {
    let pages = pages(4, 5);
    // The first stops before the end until the second has begun.
    let (first, open) = gated(&pages, 8 * PART_BYTES);
    let second = Shelf::of(&pages[1..]);
    let read = second.read.clone();
    let mut a = offering(2, first).await;
    let mut b = offering(3, second).await;
    let c = newcomer(4, &mut [&mut a, &mut b]).await;
    let basket = Arc::new(Basket::default());
    let providers = [
        provider(a.member(), &pages),
        provider(b.member(), &pages[1..]),
    ];
    let both = until_read(&read, 1, &open);
    let (report, ()) = tokio::join!(fetch(&c, &pages, &providers, &basket), within(both));
    let report = report.unwrap();
    assert!(basket.holds(&pages));
    let bytes: u64 = pages.iter().map(|page| page.block.bytes).sum();
    assert_eq!((report.done, report.total), (bytes, bytes));
    for delivered in &report.providers {
        assert!(delivered.bytes >= PART_BYTES, "{report:?}");
        assert_eq!(delivered.state, ProviderState::Ready);
    }
    assert_eq!(report.providers.iter().map(|p| p.bytes).sum::<u64>(), bytes);
    for (node, delivered) in [(&a, &report.providers[0]), (&b, &report.providers[1])] {
        assert!(node.links.uploads().bytes >= delivered.bytes);
    }
}

/// An endpoint that answers every request with the right tree and, in each part, one wrong bit.
struct Poisoner {
    member: Member,
    answered: watch::Receiver<u64>,
    _tasks: JoinSet<()>,
}

impl Poisoner {
    async fn start(n: u8, pages: &[Page]) -> Self {
        let raw = Raw::bind(n).await;
        raw.endpoint.set_alpns(vec![ALPN_BLOBS.to_vec()]);
        let addrs = raw.endpoint.bound_sockets();
        let member = Member {
            id: key(n).id(),
            addrs: addrs.iter().map(ToString::to_string).collect(),
            name: "poisoner".into(),
            relays: None,
        };
        let (count, answered) = watch::channel(0);
        let pages = pages.to_vec();
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            let mut connections = JoinSet::new();
            while let Some(incoming) = raw.endpoint.accept().await {
                let connection = incoming.await.unwrap();
                connections.spawn(poison(connection, pages.clone(), count.clone()));
            }
        });
        Self {
            member,
            answered,
            _tasks: tasks,
        }
    }
}

async fn poison(connection: Connection, pages: Vec<Page>, count: watch::Sender<u64>) {
    while let Ok((mut send, mut recv)) = connection.accept_bi().await {
        let bytes = recv.read_to_end(1024).await.unwrap();
        let Request::Get(request) = postcard::from_bytes(&bytes).unwrap() else {
            panic!("another request");
        };
        let hash: [u8; 32] = request.hash.into();
        let page = pages.iter().find(|page| page.block.hash.0 == hash).unwrap();
        let (_, ranges) = request.ranges.as_single().unwrap();
        let mut wrong = page.data.to_vec();
        wrong
            .iter_mut()
            .skip(40_000)
            .step_by(PART_BYTES as usize)
            .for_each(|byte| *byte ^= 1);
        let mut out = page.block.bytes.to_le_bytes().to_vec();
        let tree: &PostOrderMemOutboard = &page.tree;
        encode_ranges(&wrong[..], tree, ranges, &mut out).unwrap();
        count.send_modify(|count| *count += 1);
        // It may hang up as soon as it has seen the wrong bit.
        if send.write_all(&out).await.is_ok() {
            let _ = send.finish();
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_poisoned_provider_is_named_and_left_and_the_other_finishes() {
    let pages = pages(3, 4);
    let poisoner = Poisoner::start(9, &pages).await;
    let (shelf, open) = gated(&pages, 0);
    let mut a = offering(2, shelf).await;
    let c = newcomer(4, &mut [&mut a]).await;
    let basket = Arc::new(Basket::default());
    let bad = provider(poisoner.member.clone(), &pages);
    let providers = [bad.clone(), provider(a.member(), &pages)];
    // The honest one waits until the poisoner has struck.
    let mut answered = poisoner.answered.clone();
    let strike = async {
        answered.wait_for(|count| *count > 0).await.unwrap();
        open.send_replace(u64::MAX);
    };
    let (report, ()) = tokio::join!(fetch(&c, &pages, &providers, &basket), within(strike));
    let report = report.unwrap();
    assert!(basket.holds(&pages));
    assert_eq!(
        (report.providers[0].peer, report.providers[0].bytes),
        (key(9).id(), 0)
    );
    let state = &report.providers[0].state;
    assert!(matches!(state, ProviderState::Poisoned { .. }), "{state:?}");
    assert_eq!(report.providers[1].bytes, report.total);

    let nothing = Arc::new(Basket::default());
    let Err(error) = fetch(&c, &pages, &[bad], &nothing).await else {
        panic!("poison was taken");
    };
    let text = error.to_string();
    assert!(
        text.contains(&key(9).id().short()) && text.contains("not asked again"),
        "{text}"
    );
    assert_eq!(
        nothing.puts.load(Ordering::SeqCst),
        0,
        "poison left the task that read it"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn when_a_provider_dies_midway_another_finishes() {
    let pages = pages(2, 6);
    let (dying, _never) = gated(&pages, 4 * PART_BYTES);
    let (waiting, open) = gated(&pages, 0);
    let read = dying.read.clone();
    let mut a = offering(2, dying).await;
    let mut b = offering(3, waiting).await;
    let c = newcomer(4, &mut [&mut a, &mut b]).await;
    let basket = Arc::new(Basket::default());
    let providers = [provider(a.member(), &pages), provider(b.member(), &pages)];
    let strike = async {
        while read.load(Ordering::SeqCst) < 4 * PART_BYTES {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        a.net.close().await;
        open.send_replace(u64::MAX);
    };
    let (report, ()) = tokio::join!(fetch(&c, &pages, &providers, &basket), within(strike));
    let report = report.unwrap();
    assert!(basket.holds(&pages));
    let [first, second] = [&report.providers[0], &report.providers[1]];
    assert!(first.bytes > 0 && second.bytes > 0, "{report:?}");
    assert_ne!(
        first.state,
        ProviderState::Ready,
        "nobody noticed its death"
    );
    assert_eq!(first.bytes + second.bytes, report.total);
}

#[tokio::test(flavor = "multi_thread")]
async fn only_what_lacks_is_asked_for() {
    let page = Page::new(0, 4);
    let mut a = offering(2, Shelf::of(std::slice::from_ref(&page))).await;
    let c = newcomer(4, &mut [&mut a]).await;
    let basket = Arc::new(Basket::default());
    let wanted = [Wanted {
        block: page.block,
        parts: vec![0, 3],
    }];
    let providers = [provider(a.member(), std::slice::from_ref(&page))];
    let heard = std::sync::Mutex::new(0);
    let progress = |report: &FetchReport| *heard.lock().unwrap() = report.done;
    let fetched = c
        .links
        .fetch(&wanted, &providers, basket.clone(), &progress);
    let report = within(fetched).await.unwrap();
    let parts = [(page.block.hash, 0), (page.block.hash, 3)].into();
    assert_eq!(*basket.parts.lock().unwrap(), parts);
    assert_eq!(report.total, 2 * PART_BYTES - 1_000);
    assert_eq!(*heard.lock().unwrap(), report.total);
}

#[tokio::test(flavor = "multi_thread")]
async fn who_falls_silent_holds_nobody_up() {
    let pages = pages(2, 4);
    let (silent, _never) = gated(&pages, PART_BYTES / 2);
    let read = silent.read.clone();
    let mut a = offering(2, silent).await;
    let mut b = offering(3, Shelf::of(&pages)).await;
    let c = newcomer(4, &mut [&mut a, &mut b]).await;
    let basket = Arc::new(Basket::default());
    let providers = [provider(a.member(), &pages), provider(b.member(), &pages)];
    let report = fetch(&c, &pages, &providers, &basket).await.unwrap();
    assert!(
        read.load(Ordering::SeqCst) >= PART_BYTES / 2,
        "the silent one was never asked"
    );
    assert!(basket.holds(&pages));
    assert_eq!(report.providers[0].bytes, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_offered_is_refused_with_a_reason() {
    let pages = pages(2, 1);
    let mut a = offering(2, Shelf::of(&pages[..1])).await;
    let c = newcomer(4, &mut [&mut a]).await;
    let basket = Arc::new(Basket::default());
    let liar = [provider(a.member(), &pages)];
    let Err(FetchError::Stuck { report, .. }) = fetch(&c, &pages[1..], &liar, &basket).await else {
        panic!("a block out of nothing");
    };
    let ProviderState::Refused { detail } = &report.providers[0].state else {
        panic!("{report:?}");
    };
    assert!(detail.contains(&pages[1].block.hash.short()), "{detail}");
    assert_eq!(a.links.uploads().refused, 1);
    // What is offered still is.
    fetch(&c, &pages[..1], &liar, &basket).await.unwrap();
    assert!(basket.holds(&pages[..1]));
}

/// How the other side closed.
async fn closed(connection: &Connection) -> (Option<CloseCode>, String) {
    match within(connection.closed()).await {
        ConnectionError::ApplicationClosed(close) => (
            CloseCode::from_number(close.error_code.into_inner()),
            String::from_utf8_lossy(&close.reason).into_owned(),
        ),
        other => panic!("not closed by the other side: {other}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn strangers_get_nothing() {
    let page = Page::new(0, 1);
    let hash: iroh_blobs::Hash = page.block.hash.0.into();
    let a = offering(2, Shelf::of(std::slice::from_ref(&page))).await;
    let get = postcard::to_allocvec(&Request::Get(GetRequest::blob(hash))).unwrap();
    let question = packet(&AskModel {
        root: page.block.hash,
    });
    let raw = Raw::bind(3).await;
    for (alpn, bytes) in [(ALPN_BLOBS, &get[..]), (ALPN_MODEL, &question[..])] {
        // The connection may be closed before anything can be said.
        let connection = raw.connect(&a.member(), alpn).await;
        if let Ok((mut send, _recv)) = connection.open_bi().await {
            let _ = send.write_all(bytes).await;
            let _ = send.finish();
            assert_eq!(closed(&connection).await.0, Some(CloseCode::Refused));
        }
        let (code, reason) = closed(&connection).await;
        assert_eq!(code, Some(CloseCode::Refused));
        assert!(reason.contains("members only"), "{reason}");
    }
    assert_eq!(a.links.uploads().bytes, 0);
}

/// Requests that are not for parts of one block: a name, the bytes, and what the refusal says.
fn greedy_requests(hash: iroh_blobs::Hash) -> Vec<(&'static str, Vec<u8>, &'static str)> {
    let many = GetManyRequest::new(vec![hash], ChunkRangesSeq::all());
    let ranges = (0..600u64)
        .map(|n| ChunkRanges::from(bao_tree::ChunkNum(4 * n)..bao_tree::ChunkNum(4 * n + 1)));
    let ranges = ranges.fold(ChunkRanges::empty(), |all, one| all | one);
    let ranges = GetRequest::blob_ranges(hash, ranges);
    let encode = |request: Request| postcard::to_allocvec(&request).unwrap();
    let watching = Request::Observe(ObserveRequest::new(hash));
    let collection = Request::Get(GetRequest::all(hash));
    vec![
        ("nonsense", b"GET / HTTP/1.1".to_vec(), "not a request"),
        ("nothing", Vec::new(), "not a request"),
        (
            "several blobs",
            encode(Request::GetMany(many)),
            "another kind",
        ),
        ("watching", encode(watching), "another kind"),
        ("a collection", encode(collection), "several blobs"),
        ("too long", vec![0; 100_000], "not a request"),
        (
            "too many ranges",
            encode(Request::Get(ranges)),
            "not a request",
        ),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn members_get_parts_of_one_block_and_no_more() {
    let page = Page::new(0, 1);
    let hash: iroh_blobs::Hash = page.block.hash.0.into();
    let a = offering(2, Shelf::of(std::slice::from_ref(&page))).await;
    let raw = Raw::bind(3).await;
    let link = packet(&hello(3, Some(membership(3)), None));
    let _link = raw.say(&a.member(), ALPN_LINK, &link).await;
    for (number, (name, bytes, says)) in greedy_requests(hash).into_iter().enumerate() {
        let connection = loop {
            let connection = raw.connect(&a.member(), ALPN_BLOBS).await;
            // The node may still be about to take the hello in, and then closes before anything can be said.
            if let Ok((mut send, _recv)) = within(connection.open_bi()).await {
                let _ = send.write_all(&bytes).await;
                let _ = send.finish();
            }
            let (_, reason) = closed(&connection).await;
            if number > 0 || !reason.contains("members only") {
                break connection;
            }
        };
        let (code, reason) = closed(&connection).await;
        assert_eq!(code, Some(CloseCode::Refused), "{name}");
        assert!(reason.contains(says), "{name}: {reason}");
    }
    assert_eq!(a.links.uploads().bytes, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_member_has_so_many_connections_and_no_more() {
    let mut a = offering(2, Shelf::default()).await;
    let c = newcomer(4, &mut [&mut a]).await;
    drop(c);
    // The node is still known as a member; now somebody with its key calls.
    let raw = Raw::bind(4).await;
    let mut open = Vec::new();
    for _ in 0..BLOB_CONNECTIONS_PER_PEER_MAX {
        let connection = raw.connect(&a.member(), ALPN_BLOBS).await;
        // It has its place when it may open a second stream, which strangers may not.
        let streams = [
            within(connection.open_bi()).await,
            within(connection.open_bi()).await,
        ];
        open.push((connection, streams.map(Result::unwrap)));
    }
    let more = raw.connect(&a.member(), ALPN_BLOBS).await;
    assert_eq!(close_code(&more).await, Some(CloseCode::Refused));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_ends_the_fetch_with_its_own_words() {
    let pages = pages(2, 3);
    let mut a = offering(2, Shelf::of(&pages)).await;
    let c = newcomer(4, &mut [&mut a]).await;
    let full = Arc::new(Basket {
        room: Some(2),
        ..Basket::default()
    });
    let Err(FetchError::Sink(error)) =
        fetch(&c, &pages, &[provider(a.member(), &pages)], &full).await
    else {
        panic!("where was it put?");
    };
    assert_eq!(error.to_string(), "no room in /basket");
    assert_eq!(full.parts.lock().unwrap().len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn uploads_keep_to_their_limit() {
    const RATE: u64 = 400_000;
    let pages = pages(1, 3);
    let mut a = Node::start(2, Vec::new()).await;
    let clock = Arc::new(HandClock::default());
    let limits = UploadLimits {
        all_bytes_s: NonZeroU64::new(RATE),
        peer_bytes_s: None,
    };
    a.links
        .offer(Arc::new(Shelf::of(&pages)), limits, clock.clone());
    let c = newcomer(4, &mut [&mut a]).await;
    let basket = Arc::new(Basket::default());
    let providers = [provider(a.member(), &pages)];
    let mut fetching = Box::pin(fetch(&c, &pages, &providers, &basket));
    let mut waited = 0;
    let report = loop {
        let look = tokio::time::sleep(Duration::from_millis(2));
        tokio::select! {
            report = &mut fetching => break report.unwrap(),
            () = look => {}
        }
        let allowed = UPLOAD_BURST_BYTES + RATE * clock.now.borrow().as_secs();
        assert!(a.links.uploads().bytes <= allowed, "over the limit");
        if clock.waiting.load(Ordering::SeqCst) > 0 {
            waited += 1;
            clock.now.send_modify(|now| *now += Duration::from_secs(1));
        }
    };
    assert!(basket.holds(&pages));
    let bytes = a.links.uploads().bytes;
    assert!(bytes > report.total && waited > 0);
    let least_s = (bytes - UPLOAD_BURST_BYTES) / RATE;
    assert!(
        clock.now.borrow().as_secs() >= least_s,
        "{bytes} bytes too soon"
    );
}

fn manifest_of(n: u8, pages: &[Page]) -> Manifest {
    let blocks: Vec<_> = pages.iter().map(|page| page.block).collect();
    let mut blocks = blocks;
    blocks[0].kind = proto::manifest::BlockKind::Header;
    let contents = Contents {
        root: Hash([7; 32]),
        bytes: blocks.iter().map(|block| block.bytes).sum(),
        blocks,
    };
    let statement = identity::Statement {
        name: "m".into(),
        licence: None,
        membership: Some(membership(n)),
        issued_s: now_s(),
    };
    identity::sign_manifest(&key(n), contents, statement).unwrap()
}

async fn answering(n: u8, answer: Option<ModelAnswer>) -> Node {
    let shelf = Shelf::default();
    shelf
        .models
        .lock()
        .unwrap()
        .extend(answer.map(|answer| (Hash([7; 32]), answer)));
    offering(n, shelf).await
}

#[tokio::test(flavor = "multi_thread")]
async fn members_say_what_they_hold_and_only_what_a_member_signed_is_believed() {
    let pages = pages(3, 1);
    let genuine = manifest_of(2, &pages);
    let mut forged = genuine.clone();
    forged.contents.blocks[1].hash = Hash([1; 32]);
    let stranger = identity::sign_manifest(
        &key(9),
        genuine.contents.clone(),
        identity::Statement {
            name: "m".into(),
            licence: None,
            membership: None,
            issued_s: 1,
        },
    )
    .unwrap();
    let all = [true; 3];
    let mut a = answering(2, Some(ModelAnswer::new(genuine.clone(), &all))).await;
    let mut b = answering(
        3,
        Some(ModelAnswer::new(genuine.clone(), &[false, true, false])),
    )
    .await;
    let mut forger = answering(5, Some(ModelAnswer::new(forged, &all))).await;
    let mut dupe = answering(6, Some(ModelAnswer::new(stranger, &all))).await;
    let mut empty = answering(7, None).await;
    let liar = manifest_of(8, &[Page::new(7, 1), Page::new(8, 1)]);
    let mut liar_node = answering(8, Some(ModelAnswer::new(liar, &[true; 2]))).await;
    let mut nodes = [
        &mut a,
        &mut b,
        &mut forger,
        &mut dupe,
        &mut empty,
        &mut liar_node,
    ];
    let c = newcomer(4, &mut nodes).await;
    let members: Vec<Member> = nodes.iter().map(|node| node.member()).collect();
    let survey = within(c.links.survey(&members, Hash([7; 32]), &Default::default())).await;
    assert_eq!(survey.manifest.unwrap(), genuine);
    let mut providers = survey.providers;
    providers.sort_by_key(|provider| provider.blocks.len());
    assert_eq!(
        providers,
        [
            provider(members[1].clone(), &pages[1..2]),
            provider(members[0].clone(), &pages)
        ]
    );
    let mut seen: Vec<&str> = survey
        .faults
        .iter()
        .map(|fault| match fault {
            AskError::BadManifest { peer, .. } if *peer == key(5).id() => "forged",
            AskError::BadManifest { peer, .. } if *peer == key(6).id() => "no member's",
            AskError::Nothing { peer } if *peer == key(7).id() => "nothing",
            AskError::Disagrees { peer, .. } if *peer == key(8).id() => "other blocks",
            other => panic!("{other}"),
        })
        .collect();
    seen.sort_unstable();
    assert_eq!(seen, ["forged", "no member's", "nothing", "other blocks"]);

    a_doubted_maker_counts_for_nothing(&c, &members).await;
}

/// Whoever shows its manifest.
async fn a_doubted_maker_counts_for_nothing(c: &Node, members: &[Member]) {
    let doubted = [key(2).id()].into();
    let survey = within(c.links.survey(members, Hash([7; 32]), &doubted)).await;
    assert_eq!(survey.manifest.unwrap().maker, key(8).id());
    let told = |fault: &AskError| match fault {
        AskError::Doubted { peer, maker } => Some((*peer, *maker)),
        _ => None,
    };
    let told: Vec<_> = survey.faults.iter().filter_map(told).collect();
    assert_eq!(told, [(key(3).id(), key(2).id())]);
    let asked = |peer| survey.providers.iter().any(|one| one.member.id == peer);
    assert!(asked(key(8).id()) && !asked(key(2).id()));
}
