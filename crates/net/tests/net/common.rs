//! A commons with nodes in it, and a raw caller that says whatever it likes.

use bytes::Bytes;
use identity::{CommonsKey, Invitation, NodeKey, found, issue_ticket};
use iroh::endpoint::{Connection, RecvStream, SendStream, presets};
use iroh::{Endpoint, EndpointAddr, PublicKey, RelayMode, SecretKey, TransportAddr};
use net::{Admission, Doorkeeper, EndReason, IncomingHop, LinkEvent, Links, Net, NetConfig};
use net::{Spent, Standing, Started};
use proto::close::CloseCode;
use proto::codec::Wire;
use proto::ids::{CommonsId, NodeId, RingId};
use proto::member::{ALPN_LINK, Hello, Member, Membership, Welcome};
use proto::packet::{self, PREFIX_BYTES, Prefix};
use proto::ring::{HopHello, LinkBody, PROTOCOL_VERSION, SessionRef};
use proto::ticket::Ticket;
use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tokio::sync::mpsc;

/// Only against hanging: nothing here is measured.
const HANG: Duration = Duration::from_secs(30);

pub(crate) async fn within<F: Future>(future: F) -> F::Output {
    tokio::time::timeout(HANG, Box::pin(future))
        .await
        .expect("hung")
}

pub(crate) fn now_s() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap()
        .as_secs()
}

pub(crate) fn commons() -> CommonsKey {
    CommonsKey::from_bytes([1; 32])
}

pub(crate) fn key(n: u8) -> NodeKey {
    NodeKey::from_bytes([n; 32])
}

/// A proof from the commons' key itself.
pub(crate) fn membership(n: u8) -> Membership {
    found(&commons(), key(n).id(), now_s())
}

pub(crate) fn standing(n: u8, known: Vec<Member>) -> Standing {
    Standing {
        commons: commons().id(),
        membership: membership(n),
        name: format!("node {n}"),
        incarnation: u64::from(n),
        known,
    }
}

pub(crate) async fn bind(n: u8) -> Net {
    bind_at(n, "127.0.0.1:0").await
}

pub(crate) async fn bind_at(n: u8, addr: &str) -> Net {
    let bind = Some(addr.parse().unwrap());
    Net::bind(NetConfig {
        bind,
        ..NetConfig::new(key(n))
    })
    .await
    .unwrap()
}

/// A running member.
pub(crate) struct Node {
    pub(crate) key: NodeKey,
    pub(crate) net: Net,
    pub(crate) links: Links,
    pub(crate) events: mpsc::Receiver<LinkEvent>,
    pub(crate) hops: mpsc::Receiver<IncomingHop>,
}

impl Node {
    /// Node `n` of the commons, which knows `known`.
    pub(crate) async fn start(n: u8, known: Vec<Member>) -> Self {
        Self::run(bind(n).await, key(n), standing(n, known))
    }

    pub(crate) fn run(net: Net, key: NodeKey, standing: Standing) -> Self {
        let policy = doorkeeper(key.clone(), &standing);
        Self::run_with(net, key, standing, policy)
    }

    pub(crate) fn run_with(
        net: Net,
        key: NodeKey,
        standing: Standing,
        policy: Arc<dyn Admission>,
    ) -> Self {
        let Started {
            links,
            events,
            hops,
        } = net.start(standing, policy);
        Self {
            key,
            net,
            links,
            events,
            hops,
        }
    }

    pub(crate) fn id(&self) -> NodeId {
        self.key.id()
    }

    pub(crate) fn member(&self) -> Member {
        self.links.this_member()
    }

    pub(crate) fn ticket(&self, uses_max: Option<u32>) -> Ticket {
        ticket(&self.key, commons().id(), &self.net.addrs(), uses_max)
    }

    /// The next event, but for calls that led to nothing: those are repeated, and come at any time.
    pub(crate) async fn event(&mut self) -> LinkEvent {
        loop {
            match within(self.events.recv()).await.unwrap() {
                LinkEvent::Unreached { .. } => {}
                event => return event,
            }
        }
    }

    /// The next event must be a link to `peer`.
    pub(crate) async fn up(&mut self, peer: NodeId) -> Member {
        match self.event().await {
            LinkEvent::Up { member } if member.id == peer => member,
            other => panic!("no link to {peer:?} but {other:?}"),
        }
    }

    /// The next event must be the loss of the link to `peer`.
    pub(crate) async fn lost(&mut self, peer: NodeId) -> EndReason {
        match self.event().await {
            LinkEvent::Lost { peer: at, reason } if at == peer => reason,
            other => panic!("{peer:?} not lost but {other:?}"),
        }
    }

    /// The next event must be a numbered message.
    pub(crate) async fn number(&mut self) -> u32 {
        match self.event().await {
            LinkEvent::Message {
                body: LinkBody::CloseSession(at),
                ..
            } => at.epoch,
            other => panic!("no message but {other:?}"),
        }
    }
}

/// A message that carries a number.
pub(crate) fn numbered(epoch: u32) -> LinkBody {
    let session = proto::ids::SessionId([0; 16]);
    LinkBody::CloseSession(SessionRef {
        ring: RingId([0; 16]),
        session,
        epoch,
    })
}

pub(crate) fn ticket(
    introducer: &NodeKey,
    commons: CommonsId,
    addrs: &[SocketAddr],
    uses_max: Option<u32>,
) -> Ticket {
    let invitation = Invitation {
        commons,
        addrs: addrs.iter().map(ToString::to_string).collect(),
        relays: Vec::new(),
        not_after_s: now_s() + 3600,
        nonce: [7; 16],
        uses_max,
    };
    issue_ticket(introducer, invitation).unwrap()
}

/// The standard policy, counting uses in memory.
pub(crate) fn doorkeeper(key: NodeKey, standing: &Standing) -> Arc<Doorkeeper> {
    let uses: Mutex<HashMap<[u8; 16], Vec<NodeId>>> = Mutex::default();
    let spend = move |ticket: &Ticket, newcomer: NodeId| {
        let mut uses = uses.lock().unwrap();
        let users = uses.entry(ticket.nonce).or_default();
        if users.contains(&newcomer) {
            return Spent::Counted;
        }
        if ticket
            .uses_max
            .is_some_and(|max| users.len() >= max as usize)
        {
            return Spent::UsedUp;
        }
        users.push(newcomer);
        Spent::Counted
    };
    Arc::new(Doorkeeper::new(
        key,
        standing.commons,
        standing.membership.clone(),
        spend,
    ))
}

/// A caller under its own control, straight on iroh.
pub(crate) struct Raw {
    pub(crate) endpoint: Endpoint,
}

impl Raw {
    pub(crate) async fn bind(n: u8) -> Self {
        Self::with_seed(key(n).to_bytes()).await
    }

    pub(crate) async fn with_seed(seed: [u8; 32]) -> Self {
        Self::at("127.0.0.1:0", seed).await
    }

    pub(crate) async fn at(addr: &str, seed: [u8; 32]) -> Self {
        let endpoint = Endpoint::builder(presets::Minimal)
            .secret_key(SecretKey::from_bytes(&seed))
            .relay_mode(RelayMode::Disabled)
            .clear_ip_transports()
            .bind_addr(addr)
            .unwrap()
            .bind()
            .await
            .unwrap();
        Self { endpoint }
    }

    pub(crate) async fn connect(&self, to: &Member, alpn: &[u8]) -> Connection {
        let call = self.endpoint.connect(address(to), alpn);
        within(call).await.unwrap()
    }

    /// One that takes calls for links.
    pub(crate) async fn listening(n: u8) -> Self {
        let raw = Self::bind(n).await;
        raw.endpoint.set_alpns(vec![ALPN_LINK.to_vec()]);
        raw
    }

    /// Takes one call, answers its first stream with `bytes`, and waits for the other side to go.
    pub(crate) async fn answer(&self, bytes: &[u8]) {
        let incoming = self.endpoint.accept().await.unwrap();
        let connection = incoming.await.unwrap();
        let (mut send, _recv) = connection.accept_bi().await.unwrap();
        send.write_all(bytes).await.unwrap();
        connection.closed().await;
    }

    /// Why no connection for `alpn` comes about.
    pub(crate) async fn fails_to_connect(&self, to: &Member, alpn: &[u8]) -> String {
        let call = self.endpoint.connect(address(to), alpn);
        let error = within(call).await.unwrap_err();
        format!("{error:#} {error:?}")
    }

    /// What the other side answers to `bytes` on a link, if it answers.
    pub(crate) async fn ask(&self, to: &Member, bytes: &[u8]) -> Option<Welcome> {
        let call = self.endpoint.connect(address(to), ALPN_LINK);
        let connection = call.await.ok()?;
        let (mut send, mut recv) = connection.open_bi().await.ok()?;
        send.write_all(bytes).await.ok()?;
        let mut prefix = [0; PREFIX_BYTES];
        recv.read_exact(&mut prefix).await.ok()?;
        let mut head = vec![0; Prefix::parse::<Welcome>(prefix).unwrap().head_bytes];
        recv.read_exact(&mut head).await.ok()?;
        proto::codec::from_slice(&head).ok()
    }

    /// Calls and says `bytes` on the first stream.
    pub(crate) async fn say(&self, to: &Member, alpn: &[u8], bytes: &[u8]) -> RawStream {
        let connection = self.connect(to, alpn).await;
        let (mut send, recv) = within(connection.open_bi()).await.unwrap();
        within(send.write_all(bytes)).await.unwrap();
        RawStream {
            connection,
            send,
            recv,
        }
    }
}

fn address(of: &Member) -> EndpointAddr {
    let id = PublicKey::from_bytes(&of.id.0).unwrap();
    let addrs = of.socket_addrs().unwrap();
    EndpointAddr::from_parts(id, addrs.into_iter().map(TransportAddr::Ip))
}

pub(crate) struct RawStream {
    pub(crate) connection: Connection,
    pub(crate) send: SendStream,
    pub(crate) recv: RecvStream,
}

impl RawStream {
    pub(crate) async fn read<T: Wire>(&mut self) -> T {
        let mut prefix = [0; PREFIX_BYTES];
        within(self.recv.read_exact(&mut prefix)).await.unwrap();
        let prefix = Prefix::parse::<T>(prefix).unwrap();
        let mut head = vec![0; prefix.head_bytes];
        within(self.recv.read_exact(&mut head)).await.unwrap();
        proto::codec::from_slice(&head).unwrap()
    }

    /// With which code the other side closes.
    pub(crate) async fn close_code(&self) -> Option<CloseCode> {
        close_code(&self.connection).await
    }
}

pub(crate) async fn close_code(connection: &Connection) -> Option<CloseCode> {
    match within(connection.closed()).await {
        iroh::endpoint::ConnectionError::ApplicationClosed(close) => {
            CloseCode::from_number(close.error_code.into_inner())
        }
        other => panic!("not closed by the other side: {other}"),
    }
}

pub(crate) fn hello(n: u8, membership: Option<Membership>, ticket: Option<Ticket>) -> Hello {
    let member = Member {
        id: key(n).id(),
        addrs: Vec::new(),
        name: "raw".into(),
        relays: None,
    };
    Hello {
        version: PROTOCOL_VERSION,
        member,
        membership,
        ticket,
        oldest: None,
    }
}

pub(crate) fn hop_hello(n: u8) -> HopHello {
    HopHello {
        ring: RingId([9; 16]),
        from_stage: u32::from(n),
        membership: membership(n),
    }
}

pub(crate) fn packet<T: Wire>(head: &T) -> Bytes {
    packet::encode(head, &[]).into()
}
