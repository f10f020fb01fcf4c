//! A server that speaks as much of the hub's protocol as a download needs, and misbehaves on demand.

use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::{Response, StatusCode};
use futures::stream;
use std::sync::{Arc, Mutex};
use store::sources::Hub;

/// How much the server sends at a time, in bytes.
const PIECE_BYTES: usize = 16 << 10;

/// Called before each piece with the number of bytes sent of this answer.
pub(crate) type BeforePiece = Arc<dyn Fn(usize) + Send + Sync>;

/// How the server behaves; may be changed between requests.
#[derive(Clone)]
pub(crate) struct Manner {
    pub(crate) bytes: Vec<u8>,
    pub(crate) etag: String,
    /// Cuts each connection after so many bytes of the file.
    pub(crate) cut_after: Option<usize>,
    /// Answers data requests with 200 and everything.
    pub(crate) no_ranges: bool,
    /// Sends so many bytes more than it says.
    pub(crate) excess: usize,
    /// Answers everything with this.
    pub(crate) status: Option<u16>,
    /// Leaves out the headers that make a hub.
    pub(crate) no_hub: bool,
    pub(crate) before_piece: BeforePiece,
}

/// A running server. Ends with the runtime of its test.
pub(crate) struct Server {
    pub(crate) url: String,
    manner: Arc<Mutex<Manner>>,
    seen: Arc<Mutex<Vec<Seen>>>,
}

/// One request as the server saw it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Seen {
    pub(crate) path: String,
    pub(crate) range: String,
    pub(crate) authorization: String,
}

#[derive(Clone)]
struct Shared {
    manner: Arc<Mutex<Manner>>,
    seen: Arc<Mutex<Vec<Seen>>>,
}

impl Server {
    pub(crate) async fn start(bytes: &[u8], etag: &str) -> Self {
        let manner = Arc::new(Mutex::new(Manner {
            bytes: bytes.to_vec(),
            etag: etag.to_owned(),
            cut_after: None,
            no_ranges: false,
            excess: 0,
            status: None,
            no_hub: false,
            before_piece: Arc::new(|_| ()),
        }));
        let seen = Arc::new(Mutex::new(Vec::new()));
        let shared = Shared {
            manner: Arc::clone(&manner),
            seen: Arc::clone(&seen),
        };
        let router = Router::new().fallback(answer).with_state(shared);
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        tokio::spawn(async move { axum::serve(listener, router).await });
        Self { url, manner, seen }
    }

    pub(crate) fn change(&self, change: impl FnOnce(&mut Manner)) {
        change(&mut self.manner.lock().unwrap());
    }

    pub(crate) fn hub(&self) -> Hub {
        Hub::new(&self.url, Some("hf_secret".into()))
    }

    /// The requests since the last call.
    pub(crate) fn seen(&self) -> Vec<Seen> {
        std::mem::take(&mut self.seen.lock().unwrap())
    }

    /// Where the data requests since the last call began.
    pub(crate) fn starts(&self) -> Vec<u64> {
        let start = |seen: Seen| {
            let range = seen
                .range
                .strip_prefix("bytes=")?
                .strip_suffix('-')?
                .parse()
                .ok()?;
            Some(range)
        };
        self.seen().into_iter().filter_map(start).collect()
    }
}

async fn answer(State(shared): State<Shared>, request: Request) -> Response<Body> {
    let manner = shared.manner.lock().unwrap().clone();
    let header = |name: &str| {
        let value = request.headers().get(name).and_then(|v| v.to_str().ok());
        value.unwrap_or_default().to_owned()
    };
    let range = header("range");
    let path = request.uri().path().to_owned();
    let authorization = header("authorization");
    shared.seen.lock().unwrap().push(Seen {
        path,
        range: range.clone(),
        authorization,
    });
    let mut response = Response::builder();
    if !manner.no_hub {
        response = response
            .header("x-repo-commit", "c0ffee")
            .header("etag", format!("{:?}", manner.etag));
    }
    if let Some(status) = manner.status {
        return response.status(status).body(Body::empty()).unwrap();
    }
    let all = manner.bytes.len();
    if range == "bytes=0-0" {
        let response = response.status(StatusCode::PARTIAL_CONTENT);
        let response = response.header("content-range", format!("bytes 0-0/{all}"));
        return response
            .body(Body::from(manner.bytes[..1].to_vec()))
            .unwrap();
    }
    let from: usize = range
        .trim_start_matches("bytes=")
        .trim_end_matches('-')
        .parse()
        .unwrap();
    let from = if manner.no_ranges { 0 } else { from };
    response = if manner.no_ranges {
        response.status(StatusCode::OK)
    } else {
        let response = response.status(StatusCode::PARTIAL_CONTENT);
        response.header("content-range", format!("bytes {from}-{}/{all}", all - 1))
    };
    if manner.excess == 0 {
        response = response.header("content-length", all - from);
    }
    response
        .body(Body::from_stream(pieces(manner, from)))
        .unwrap()
}

fn pieces(
    manner: Manner,
    from: usize,
) -> impl futures::Stream<Item = Result<Vec<u8>, std::io::Error>> {
    let mut bytes = manner.bytes[from..].to_vec();
    bytes.resize(bytes.len() + manner.excess, 0);
    let cut = manner.cut_after.unwrap_or(usize::MAX);
    stream::unfold(0, move |sent| {
        let piece = bytes[sent..]
            .iter()
            .copied()
            .take(PIECE_BYTES)
            .collect::<Vec<_>>();
        let before = Arc::clone(&manner.before_piece);
        async move {
            if piece.is_empty() {
                return None;
            }
            // What was handed over is on its way before the connection is cut.
            tokio::task::yield_now().await;
            if sent >= cut {
                return Some((Err(std::io::Error::other("cut on purpose")), usize::MAX));
            }
            let next = sent + piece.len();
            tokio::task::spawn_blocking(move || before(sent))
                .await
                .unwrap();
            Some((Ok(piece), next))
        }
    })
}
