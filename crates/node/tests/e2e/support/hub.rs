//! A server that speaks as much of the hub's protocol as a download needs.

use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::{Response, StatusCode};
use proto::ids::Hash;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

/// How much is sent at a time, in bytes.
const PIECE_BYTES: usize = 64 << 10;

/// Called before each piece with the number of bytes of the file before it.
pub(crate) type BeforePiece = Arc<dyn Fn(usize) + Send + Sync>;

/// A running server with one file under every path. Ends with the runtime of its test.
pub(crate) struct Hub {
    pub(crate) url: String,
    shared: Shared,
}

#[derive(Clone)]
struct Shared {
    file: Arc<Vec<u8>>,
    before_piece: BeforePiece,
    /// Where downloads began.
    starts: Arc<Mutex<Vec<usize>>>,
}

impl Hub {
    pub(crate) async fn start(file: Vec<u8>, before_piece: BeforePiece) -> Self {
        let shared = Shared {
            file: Arc::new(file),
            before_piece,
            starts: Arc::default(),
        };
        let router = Router::new().fallback(answer).with_state(shared.clone());
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0")
            .await
            .expect("a free port");
        let url = format!("http://{}", listener.local_addr().expect("it is bound"));
        tokio::spawn(async move { axum::serve(listener, router).await });
        Self { url, shared }
    }

    /// At which byte each download began.
    pub(crate) fn starts(&self) -> Vec<usize> {
        self.shared
            .starts
            .lock()
            .expect("no panic while pushing")
            .clone()
    }
}

/// Writes a catalogue with one model, `name`, found at a hub.
pub(crate) fn catalogue(dir: &Path, name: &str, file: &[u8], blake3: Hash) -> PathBuf {
    let path = dir.join("catalogue.toml");
    let sha256 = <sha2::Sha256 as sha2::Digest>::digest(file);
    let sha256 = Hash(sha256.into());
    let text = format!(
        "[[model]]\nname = \"{name}\"\nabout = \"for tests\"\nlicence = \"MIT\"\nbytes = {}\n\
         sha256 = \"{sha256}\"\nblake3 = \"{blake3}\"\n\n\
         [[model.source]]\nkind = \"hub\"\nrepo = \"owner/repo\"\nrevision = \"main\"\npath = \"m.gguf\"\n",
        file.len()
    );
    std::fs::write(&path, text).expect("the catalogue is written");
    path
}

async fn answer(State(shared): State<Shared>, request: Request) -> Response<Body> {
    let all = shared.file.len();
    let range = request
        .headers()
        .get("range")
        .and_then(|value| value.to_str().ok());
    let range = range
        .unwrap_or_default()
        .trim_start_matches("bytes=")
        .to_owned();
    let head = Response::builder()
        .status(StatusCode::PARTIAL_CONTENT)
        .header("x-repo-commit", "c0ffee")
        .header("etag", "\"m\"");
    if range == "0-0" {
        let head = head.header("content-range", format!("bytes 0-0/{all}"));
        return head
            .body(Body::from(shared.file[..1].to_vec()))
            .expect("the headers are valid");
    }
    let from: usize = range
        .trim_end_matches('-')
        .parse()
        .expect("downloads name their start");
    shared
        .starts
        .lock()
        .expect("no panic while pushing")
        .push(from);
    let head = head
        .header("content-range", format!("bytes {from}-{}/{all}", all - 1))
        .header("content-length", all - from);
    let pieces = futures::stream::unfold(from, move |at| {
        let shared = shared.clone();
        async move {
            let piece = shared.file[at..].chunks(PIECE_BYTES).next()?.to_vec();
            let before = shared.before_piece.clone();
            tokio::task::spawn_blocking(move || before(at))
                .await
                .expect("the hook does not panic");
            let next = at + piece.len();
            Some((Ok::<_, std::io::Error>(piece), next))
        }
    });
    head.body(Body::from_stream(pieces))
        .expect("the headers are valid")
}
