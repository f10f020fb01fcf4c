//! Streams that go on for a client that comes back.

use crate::server::{Act, PATIENCE, Script, Server, error, question, refused, replaced};
use api::{ApiConfig, Fault, Finish, Journal, Journals, KeptStream, Keys, Lost};
use futures::future::BoxFuture;
use futures::{FutureExt, StreamExt};
use proto::ids::{Hash, StreamId};
use proto::journal::{StreamBatch, StreamStart};
use serde_json::{Value, json};
use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use tokio::sync::watch;

const STOP: Act = Act::Finish(Finish::Stop);

/// Journals in memory. What has ended stays, so that every place of a stream can be tried.
#[derive(Debug, Clone)]
struct Memory {
    streams: Arc<Mutex<HashMap<StreamId, Kept>>>,
    /// After so many batches a journal is gone.
    batches_max: usize,
}

#[derive(Debug)]
struct Kept {
    start: StreamStart,
    batches: Vec<StreamBatch>,
    seat: usize,
    taken: watch::Sender<usize>,
    ended: bool,
}

#[derive(Debug)]
struct Held {
    memory: Memory,
    stream: StreamId,
    seat: usize,
}

impl Memory {
    fn new() -> Self {
        Self {
            streams: Arc::default(),
            batches_max: usize::MAX,
        }
    }

    fn hold(&self, stream: StreamId, kept: &mut Kept) -> Arc<dyn Journal> {
        kept.seat += 1;
        kept.taken.send_replace(kept.seat);
        Arc::new(Held {
            memory: self.clone(),
            stream,
            seat: kept.seat,
        })
    }
}

impl Journals for Memory {
    fn begin(&self, start: StreamStart) -> BoxFuture<'_, Option<Arc<dyn Journal>>> {
        let mut streams = self.streams.lock().unwrap();
        let stream = StreamId([streams.len() as u8; 16]);
        let kept = streams.entry(stream).or_insert(Kept {
            start,
            batches: Vec::new(),
            seat: 0,
            taken: watch::Sender::new(0),
            ended: false,
        });
        let journal = self.hold(stream, kept);
        async move { Some(journal) }.boxed()
    }

    fn resume(
        &self,
        stream: StreamId,
        owner: Hash,
    ) -> BoxFuture<'_, Result<Option<KeptStream>, Fault>> {
        let mut streams = self.streams.lock().unwrap();
        let kept = streams
            .get_mut(&stream)
            .filter(|kept| kept.start.owner == owner);
        let kept = kept.map(|kept| KeptStream {
            start: kept.start.clone(),
            batches: kept.batches.clone(),
            journal: self.hold(stream, kept),
        });
        async move { Ok(kept) }.boxed()
    }
}

impl Journal for Held {
    fn stream(&self) -> StreamId {
        self.stream
    }

    fn append<'a>(&'a self, batch: &'a StreamBatch) -> BoxFuture<'a, Result<(), Lost>> {
        let append = || {
            let mut streams = self.memory.streams.lock().unwrap();
            let kept = streams.get_mut(&self.stream).ok_or(Lost::Gone)?;
            if kept.seat != self.seat {
                return Err(Lost::Taken);
            }
            if kept.batches.len() >= self.memory.batches_max {
                streams.remove(&self.stream);
                return Err(Lost::Gone);
            }
            kept.batches.push(batch.clone());
            Ok(())
        };
        let appended = append();
        async move { appended }.boxed()
    }

    fn taken(&self) -> BoxFuture<'static, ()> {
        let seat = self.seat;
        let taken = self.memory.streams.lock().unwrap()[&self.stream]
            .taken
            .subscribe();
        async move {
            let mut taken = taken;
            if taken.wait_for(|newest| *newest > seat).await.is_err() {
                std::future::pending::<()>().await;
            }
        }
        .boxed()
    }

    fn end(&self) {
        if let Some(kept) = self.memory.streams.lock().unwrap().get_mut(&self.stream) {
            kept.ended = true;
        }
    }
}

async fn server(script: Script, memory: &Memory) -> Server {
    let config = ApiConfig {
        journals: Some(Arc::new(memory.clone())),
        ..ApiConfig::default()
    };
    Server::configured(script, config).await
}

/// A stream as it came: its name, and its events with their `id`.
struct Came {
    stream: String,
    events: Vec<(Option<String>, String)>,
}

impl Came {
    async fn from(response: reqwest::Response) -> Self {
        assert_eq!(response.status(), 200);
        let stream = response.headers()["x-myzel-stream"]
            .to_str()
            .unwrap()
            .to_owned();
        let text = response.text().await.unwrap();
        let events = text.split_terminator("\n\n").map(|event| {
            match event
                .strip_prefix("id: ")
                .and_then(|rest| rest.split_once('\n'))
            {
                Some((id, rest)) => (Some(id.to_owned()), rest.to_owned()),
                None => (None, event.to_owned()),
            }
        });
        let events = events.collect();
        Self { stream, events }
    }

    fn ids(&self) -> Vec<&str> {
        self.events
            .iter()
            .filter_map(|(id, _)| id.as_deref())
            .collect()
    }
}

async fn ask(server: &Server, path: &str, body: &Value) -> Came {
    let body = replaced(body.clone(), &json!({"stream": true}));
    Came::from(server.send(path, body).await).await
}

async fn resume(server: &Server, stream: &str, seen: Option<&str>) -> reqwest::Response {
    let request = server
        .client
        .get(server.url(&format!("/v1/streams/{stream}")));
    let request = match seen {
        Some(seen) => request.header("Last-Event-ID", seen),
        None => request,
    };
    request.send().await.unwrap()
}

#[tokio::test]
async fn every_event_names_its_place() {
    let memory = Memory::new();
    let script = Script::new(vec![
        Act::Say(b"a"),
        Act::Say(b"b\xE2"),
        Act::Say(b"\x82\xAC"),
        STOP,
    ]);
    let server = server(script, &memory).await;
    let body = serde_json::from_str(&question(json!({}))).unwrap();
    let came = ask(&server, "/v1/chat/completions", &body).await;
    assert_eq!(came.ids(), ["0", "1", "2", "3", "4"]);
    assert_eq!(
        came.events.last().unwrap(),
        &(None, "data: [DONE]".to_owned())
    );
    assert!(
        memory
            .streams
            .lock()
            .unwrap()
            .values()
            .all(|kept| kept.ended)
    );
    let whole = server.ask(json!({})).await;
    assert!(!whole.headers().contains_key("x-myzel-stream"));
    assert_eq!(
        memory.streams.lock().unwrap().len(),
        1,
        "whole answers have no journal"
    );
}

/// Resumes behind each event that has an id, and from the beginning: what comes is what came behind it, to the letter.
async fn every_place(script: Script, path: &str, body: Value) -> usize {
    let memory = Memory::new();
    let server = server(script, &memory).await;
    let came = ask(&server, path, &body).await;
    let again = Came::from(resume(&server, &came.stream, None).await).await;
    assert_eq!(again.events, came.events, "{path} from the beginning");
    for (at, (id, _)) in came.events.iter().enumerate() {
        let Some(id) = id else { continue };
        let rest = Came::from(resume(&server, &came.stream, Some(id)).await).await;
        assert_eq!(rest.events, came.events[at + 1..], "{path} behind {id}");
        assert_eq!(rest.stream, came.stream);
    }
    let (first, asked) = (came.ids().len(), server.script.asked.lock().unwrap().len());
    assert!(first > 3 && asked > 0);
    asked
}

#[tokio::test]
async fn from_every_place_of_every_dialect_the_rest_comes_and_nothing_twice() {
    let says = [
        "<think>h",
        "m</think>",
        "Well",
        ", <ca",
        "ll get>{\"a\"",
        ":1}</call>",
        "<call now></call>",
    ];
    let says = says.map(|text| Act::Say(text.as_bytes()));
    let calling = || Script::calling([&says[..], &[STOP]].concat());
    let plain = || Script::new([&says[..], &[Act::Finish(Finish::Length)]].concat());
    let said = json!([{"role": "user", "content": "hi"}]);
    let tools = json!([{"type": "function", "function": {"name": "get", "parameters": {"type": "object"}}}]);
    let chat = json!({"model": "m", "messages": said, "stream_options": {"include_usage": true}});
    let with_tools = replaced(chat.clone(), &json!({"tools": tools}));
    let chats = "/v1/chat/completions";
    let asked = every_place(calling(), chats, with_tools).await;
    assert_eq!(asked, 1, "a stream that had ended needs no model");
    every_place(plain(), chats, chat.clone()).await;
    every_place(
        plain(),
        chats,
        replaced(chat, &json!({"n": 3, "stop": ["now"]})),
    )
    .await;
    let prompts = json!({"model": "m", "prompt": ["a", "b"], "echo": true});
    every_place(plain(), "/v1/completions", prompts).await;
    let tools = json!([{"name": "get", "input_schema": {"type": "object"}}]);
    let messages = json!({"model": "m", "max_tokens": 99, "messages": said, "tools": tools});
    every_place(calling(), "/v1/messages", messages).await;
}

#[tokio::test]
async fn probabilities_come_with_their_tokens() {
    let script = Script::new(vec![
        Act::Score(b"a", -0.5),
        Act::Score(b"\xE2", -0.25),
        Act::Score(b"b", -1.0),
        STOP,
    ]);
    let body = json!({"model": "m", "messages": [{"role": "user", "content": "hi"}], "logprobs": true, "top_logprobs": 2});
    every_place(script, "/v1/chat/completions", body).await;
}

/// Reads until so many events with an id have come; the id of the last.
async fn read_some(response: reqwest::Response, count: usize) -> (String, String) {
    let mut bytes = response.bytes_stream();
    let mut text = String::new();
    let some = async {
        while text.matches("id: ").count() < count || !text.ends_with("\n\n") {
            text += std::str::from_utf8(&bytes.next().await.unwrap().unwrap()).unwrap();
        }
    };
    tokio::time::timeout(PATIENCE, some)
        .await
        .expect("the events come");
    let (_, last) = text.rsplit_once("id: ").unwrap();
    let id = last.split_once('\n').unwrap().0.to_owned();
    (text, id)
}

#[tokio::test]
async fn a_client_that_goes_away_ends_the_generation_and_comes_back_to_the_rest() {
    let memory = Memory::new();
    let acts = vec![
        Act::Say(b"a"),
        Act::Say(b"b"),
        Act::Hang,
        Act::Say(b"c"),
        STOP,
    ];
    let server = server(Script::new(acts), &memory).await;
    let response = server.ask(json!({"stream": true, "seed": 7})).await;
    let stream = response.headers()["x-myzel-stream"]
        .to_str()
        .unwrap()
        .to_owned();
    let (text, id) = read_some(response, 3).await;
    assert!(text.contains(r#""content":"b""#), "{text}");
    assert_eq!(id, "2");
    server.script.cancelled(1).await;
    let rest = Came::from(resume(&server, &stream, Some(&id)).await).await;
    assert_eq!(rest.ids(), ["3", "4"]);
    assert!(rest.events[0].1.contains(r#""content":"c""#));
    let asked = server.script.asked.lock().unwrap();
    let resumed = asked[1].resume.as_ref().unwrap();
    assert_eq!(resumed.drawn, [1, 1]);
    assert_eq!(resumed.plan.prompt.len(), 7);
}

#[tokio::test]
async fn the_later_client_has_the_stream() {
    let memory = Memory::new();
    let acts = vec![Act::Say(b"a"), Act::Hang, Act::Say(b"b"), STOP];
    let server = server(Script::new(acts), &memory).await;
    let first = server.ask(json!({"stream": true})).await;
    let stream = first.headers()["x-myzel-stream"]
        .to_str()
        .unwrap()
        .to_owned();
    let second = Came::from(resume(&server, &stream, Some("0")).await).await;
    assert_eq!(second.ids(), ["1", "2", "3"]);
    let first = first.text().await.unwrap();
    assert!(first.contains("stream_taken"), "{first}");
    assert_eq!(first.matches(r#""content":"b""#).count(), 0, "{first}");
    server.script.cancelled(1).await;
}

#[tokio::test]
async fn an_answer_whose_journal_is_gone_goes_on_and_names_no_places() {
    let memory = Memory {
        batches_max: 1,
        ..Memory::new()
    };
    // Each waits for its turn in a channel of four.
    let acts = (0..40).map(|_| Act::Say(b"a")).chain([STOP]).collect();
    let server = server(Script::new(acts), &memory).await;
    let body = serde_json::from_str(&question(json!({}))).unwrap();
    let came = ask(&server, "/v1/chat/completions", &body).await;
    let texts = came
        .events
        .iter()
        .filter(|(_, event)| event.contains(r#""content":"a""#));
    assert_eq!(texts.count(), 40);
    assert!(came.ids().len() < 10, "{:?}", came.ids());
    error(
        resume(&server, &came.stream, Some("1")).await,
        404,
        "stream_not_found",
    )
    .await;
}

#[tokio::test]
async fn what_cannot_be_resumed_is_told_with_the_next_step() {
    let memory = Memory::new();
    let keys = Keys::new(["one".to_owned(), "two".to_owned()]);
    let config = ApiConfig {
        journals: Some(Arc::new(memory.clone())),
        keys,
        ..ApiConfig::default()
    };
    let script = Script::new(vec![Act::Say(b"a"), Act::Say(b"b"), STOP]);
    let server = Server::configured(script, config).await;
    let body = question(json!({"stream": true}));
    let came = Came::from(server.post(body).bearer_auth("one").send().await.unwrap()).await;
    let stream = came.stream.as_str();
    let get = async |stream: &str, key: &str, seen: &str| {
        let path = format!("/v1/streams/{stream}?last_event_id={seen}");
        let request = server.client.get(server.url(&path)).bearer_auth(key);
        request.send().await.unwrap()
    };
    error(get(stream, "three", "1").await, 401, "invalid_api_key").await;
    let unknown = "ab".repeat(16);
    for (stream, key) in [
        (stream, "two"),
        (&unknown, "one"),
        ("nonsense", "one"),
        ("%ff", "one"),
    ] {
        let error = error(get(stream, key, "1").await, 404, "stream_not_found").await;
        assert!(
            error["message"].as_str().unwrap().contains("ask again"),
            "{error}"
        );
    }
    for seen in ["4", "1,1", "x", "-1", "%00"] {
        refused(
            get(stream, "one", seen).await,
            "invalid_value Last-Event-ID",
        )
        .await;
    }

    let rest = Came::from(get(stream, "one", "2").await).await;
    assert_eq!(rest.ids(), ["3"]);
}

#[tokio::test]
async fn a_node_without_journals_streams_as_ever() {
    let server = Server::start(Script::new(vec![Act::Say(b"a"), STOP])).await;
    let response = server.ask(json!({"stream": true})).await;
    assert!(!response.headers().contains_key("x-myzel-stream"));
    assert!(!response.text().await.unwrap().contains("id: "));
    error(
        resume(&server, &"00".repeat(16), None).await,
        404,
        "stream_not_found",
    )
    .await;
}
