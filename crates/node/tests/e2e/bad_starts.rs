//! Starts that cannot succeed: each says why and what to do, and leaves nothing behind.

use crate::support::models::small;
use crate::support::node::{Setup, says};
use std::net::{TcpListener, UdpSocket};
use std::path::PathBuf;

struct Ground {
    dir: tempfile::TempDir,
    model: PathBuf,
}

impl Ground {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let model = small(dir.path());
        Self { dir, model }
    }

    fn node(&self) -> Setup {
        Setup::new("n").model(&self.model)
    }
}

#[tokio::test]
async fn ports_that_are_taken() {
    let ground = Ground::new();
    let taken = TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    let _holder = TcpListener::bind(taken).unwrap();
    let said = ground.node().arg("--api", &taken.to_string()).refused();
    says(
        &said,
        &[
            &format!("port {}", taken.port()),
            "127.0.0.1",
            "taken",
            "--api",
        ],
    );

    let holder = UdpSocket::bind("127.0.0.1:0").unwrap();
    let taken = holder.local_addr().unwrap();
    let node = ground.node().arg("--listen", &taken.to_string());
    says(
        &node.refused(),
        &[
            &format!("UDP port {}", taken.port()),
            "taken",
            "another port",
        ],
    );
    // The same directory works as soon as the port is free.
    drop(holder);
    let node = node.up().await;
    assert!(node.status().ready_s.is_some());
}

#[tokio::test]
async fn a_directory_that_another_node_has() {
    let ground = Ground::new();
    let node = ground.node().up().await;
    let said = node.setup().refused();
    let dir = node.setup().dir().canonicalize().unwrap();
    says(
        &said,
        &[
            "another node",
            &node.pid.to_string(),
            dir.to_str().unwrap(),
            "--data-dir",
        ],
    );
    assert!(
        node.status().ready_s.is_some(),
        "the first one is not harmed"
    );
}

#[tokio::test]
async fn settings_that_make_no_sense() {
    let ground = Ground::new();
    for (name, value, parts) in [
        (
            "--sessions",
            "0",
            &["--sessions 0", "out of range", "1 to"][..],
        ),
        (
            "--sessions",
            "100000",
            &["--sessions 100000", "out of range"],
        ),
        (
            "--model",
            "no-such-model",
            &[
                "no model no-such-model",
                "known are",
                "smollm2",
                "myzel model list",
            ],
        ),
        ("--model", "/no/such/file.gguf", &["/no/such/file.gguf"]),
        ("--config", "/no/such.toml", &["/no/such.toml", "settings"]),
        ("--api", "192.0.2.1:1", &["192.0.2.1:1", "--api"]),
        (
            "--listen",
            "192.0.2.1:1",
            &["192.0.2.1", "listen on one that it has"],
        ),
    ] {
        says(&ground.node().arg(name, value).refused(), parts);
    }
    let wrong = ground.dir.path().join("wrong.toml");
    std::fs::write(&wrong, "splitt = 2\n").unwrap();
    let said = ground
        .node()
        .arg("--config", wrong.to_str().unwrap())
        .refused();
    says(&said, &["wrong.toml", "splitt"]);

    // What cannot be parsed is clap's to refuse, with its own exit code.
    for (args, part) in [
        (&["up", "--split", "many"][..], "--split"),
        (&["up", "--api", "7717"], "--api"),
        (&["up", "--no-such-flag"], "--no-such-flag"),
        (&["ticket", "--uses", "0"], "--uses"),
        (&["dance"], "dance"),
    ] {
        let output = ground.node().run(args);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(2), "{said}");
        says(&said, &[part]);
    }
}

#[tokio::test]
async fn a_data_directory_that_is_a_file() {
    let ground = Ground::new();
    let path = ground.dir.path().join("file");
    std::fs::write(&path, "mine").unwrap();
    // The later of two --data-dir would be refused by clap, so the variable names it.
    let output = std::process::Command::new(crate::support::processes::BINARY)
        .args(["up", "--api", "127.0.0.1:0"])
        .env("MYZEL_DATA_DIR", &path)
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{said}");
    says(&said, &["error: ", path.to_str().unwrap()]);
    assert_eq!(std::fs::read_to_string(&path).unwrap(), "mine");
}

#[tokio::test]
async fn a_split_that_the_model_does_not_allow_runs_whole_and_says_why() {
    let ground = Ground::new();
    let node = ground.node().split(11).up().await;
    let status = node.status();
    let ring = status.ring.unwrap();
    assert_eq!((ring.state.as_str(), ring.split), ("impossible", 11));
    says(&ring.why.unwrap(), &["12 layers", "11 remote stages", "13"]);
    assert_eq!(status.answers, node::status::Answers::Home);
    says(&node.said(), &["runs whole on this node", "12 layers"]);
}

#[tokio::test]
async fn commands_without_a_node() {
    let ground = Ground::new();
    let mut node = ground.node().up().await;
    node.kill9();
    let setup = node.setup();
    let (dir, pid) = (setup.dir().to_str().unwrap(), node.pid.to_string());
    for command in [&["status"][..], &["ask", "hello"], &["ticket"]] {
        says(
            &setup.cli_fails(command),
            &["does not answer", dir, &pid, "myzel up"],
        );
        let nobody = ground.node();
        let dir = nobody.dir().to_str().unwrap();
        says(&nobody.cli_fails(command), &["no node runs", dir, "up"]);
    }
}
