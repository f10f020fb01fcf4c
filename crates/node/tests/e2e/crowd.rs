//! A thousand callers at once: each is answered or told why not, and afterwards nothing is left of them. And ten thousand
//! who never say what they want.

use crate::support::http::greedy;
use crate::support::models::small;
use crate::support::node::Setup;
use futures::future::join_all;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use std::io::ErrorKind;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

// The commands below block their thread while connections close on another.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_callers_are_answered_or_refused_and_nobody_is_stuck() {
    let dir = tempfile::tempdir().unwrap();
    let node = Setup::new("crowded").model(&small(dir.path())).up().await;
    let client = node.client();
    let asks = (0..1_000).map(|n| client.try_ask(greedy(&format!("Call {n}."), 3)));
    let (mut answered, mut refused, mut closed) = (0, 0, 0);
    for answer in join_all(asks).await {
        match answer {
            Ok(Ok(_)) => answered += 1,
            Ok(Err(refusal)) => {
                assert_eq!((refusal.status, refusal.code.as_str()), (503, "overloaded"));
                refused += 1;
            }
            // More connections than the server takes notice of.
            Err(_) => closed += 1,
        }
    }
    assert!(
        answered >= 32 && refused > 0,
        "{answered} answered, {refused} refused, {closed} closed"
    );
    // Their connections are still open, but idle: they shut nobody out.
    assert_eq!(node.status().model.sessions, 0, "no place is left taken");
    node.client().ask(greedy("And now?", 3)).await.unwrap();
    drop(client);
}

/// Connections that never say what they want.
const SILENT: usize = 10_000;

/// Lets this process open as many files as it takes.
fn allow_files(wanted: u64) {
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    // Beyond the hard limit only root can go.
    let allowed = setrlimit(Resource::RLIMIT_NOFILE, soft.max(wanted), hard.max(wanted));
    assert!(
        allowed.is_ok(),
        "this test needs {wanted} open files, and the system allows {hard}; raise the hard limit (ulimit -Hn)"
    );
}

/// Connects, and begins a request that it never ends, or says nothing at all.
async fn silent(address: &str, number: usize) -> TcpStream {
    let mut stream = TcpStream::connect(address).await.unwrap();
    if number.is_multiple_of(2) {
        // The server may have shown it out by now.
        let _ = stream
            .write_all(b"POST /v1/chat/completions HTTP/1.1\r\nhost: ")
            .await;
    }
    stream
}

/// Whether the server has closed it.
fn is_closed(stream: &TcpStream) -> bool {
    match stream.try_read(&mut [0; 512]) {
        Err(error) => error.kind() != ErrorKind::WouldBlock,
        Ok(_) => true,
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_thousand_silent_connections_shut_nobody_out() {
    allow_files(SILENT as u64 + 500);
    let dir = tempfile::tempdir().unwrap();
    let setup = Setup::new("besieged").model(&small(dir.path())).exact();
    let node = setup.up().await;
    let client = node.client();
    let long = || greedy("Tell me everything.", 600);
    let expected = client.stream(long()).await.unwrap().text;
    let mut running = client.open(long()).await.unwrap();

    let address = client.address();
    let mut crowd = Vec::new();
    for number in 0..SILENT {
        crowd.push(silent(&address, number).await);
    }
    // Some of them say a letter now and then, which is no request either.
    for stream in &crowd {
        let _ = stream.try_write(b"x");
    }
    let status = node.setup().run(&["status", "--json"]);
    assert!(status.status.success(), "the owner is let in: {status:?}");
    for _ in 0..3 {
        // A client of its own each time: a new connection.
        let answer = node.client().stream(long()).await.unwrap();
        assert_eq!(answer.text, expected);
    }

    let closed = crowd.iter().filter(|stream| is_closed(stream)).count();
    assert!(
        (SILENT - 600..SILENT).contains(&closed),
        "{closed} were shown out; as many as there are places stay"
    );
    let running = running.answer().await.unwrap();
    assert_eq!(running.text, expected, "an answer on its way went on");
}
