use super::*;
use proto::ad::Room;
use proto::journal::{AnswerPlan, MAGIC, StreamDialect, StreamEvent, StreamFinish, StreamToken};
use proto::model::{Numerics, Sampling};
use std::fs;
use std::path::PathBuf;
use tempfile::TempDir;

const SECRET: Secret = Secret([7; 32]);
const OWNER: Hash = Hash([1; 32]);

fn start(body: &str) -> StreamStart {
    let plan = AnswerPlan {
        model: Hash([5; 32]),
        fingerprint: "fingerprint".into(),
        numerics: Numerics::Exact,
        grid_rows: 256,
        prompt: vec![1, 2, 3],
        grammar: None,
        syntax: None,
        stops: Vec::new(),
        sampling: Sampling::GREEDY,
        tokens_max: 9,
    };
    StreamStart {
        begun_s: 1,
        owner: OWNER,
        dialect: StreamDialect::Chat,
        body: body.into(),
        room: Some(Room::Circle),
        name: [8; 16],
        choices: vec![plan],
    }
}

fn batch(id: i32) -> StreamBatch {
    let token = StreamToken {
        id,
        piece: b"secret words".to_vec(),
        logprobs: None,
        reused: 0,
    };
    let events = vec![StreamEvent::Token(token)];
    StreamBatch { choice: 0, events }
}

fn batches(count: i32) -> Vec<StreamBatch> {
    (0..count).map(batch).collect()
}

struct Disk(TempDir);

impl Disk {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn open_with(&self, limits: Limits) -> Journals {
        Journals::open(self.0.path(), &SECRET, limits).unwrap()
    }

    fn open(&self) -> Journals {
        self.open_with(Limits::default())
    }

    fn files(&self, ending: &str) -> Vec<PathBuf> {
        let mut files: Vec<PathBuf> = fs::read_dir(self.0.path())
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .filter(|path| path.extension().is_some_and(|e| e == ending))
            .collect();
        files.sort();
        files
    }

    fn only(&self, ending: &str) -> PathBuf {
        let files = self.files(ending);
        assert_eq!(files.len(), 1, "{files:?}");
        files[0].clone()
    }
}

/// A stream with so many batches, which nobody has any more.
async fn written(disk: &Disk, count: i32) -> StreamId {
    let journals = disk.open();
    let journal = journals.begin(start("the question")).await.unwrap();
    for batch in batches(count) {
        journal.append(&batch).await.unwrap();
    }
    journal.stream()
}

#[tokio::test]
async fn what_was_appended_is_there_after_a_crash_and_can_go_on() {
    let disk = Disk::new();
    let stream = written(&disk, 3).await;
    for more in 3..6 {
        let journals = disk.open();
        let resumed = journals.resume(stream, OWNER).await.unwrap();
        assert_eq!(resumed.start, start("the question"));
        assert_eq!(resumed.batches, batches(more));
        resumed.journal.append(&batch(more)).await.unwrap();
    }
}

#[tokio::test]
async fn nothing_of_it_can_be_read_in_the_files() {
    let disk = Disk::new();
    written(&disk, 3).await;
    for path in [disk.only("head"), disk.only("log")] {
        let bytes = fs::read(&path).unwrap();
        for words in ["question", "secret", "fingerprint"] {
            let found = bytes.windows(words.len()).any(|w| w == words.as_bytes());
            assert!(!found, "{words:?} is in {}", path.display());
        }
    }
}

#[tokio::test]
async fn a_tail_torn_at_any_byte_costs_what_was_not_whole_and_nothing_else() {
    let disk = Disk::new();
    let stream = written(&disk, 3).await;
    let log = disk.only("log");
    let whole = fs::read(&log).unwrap();
    let mut lengths = std::collections::BTreeSet::new();
    for cut in 0..=whole.len() {
        for extra in disk.files("log") {
            fs::remove_file(extra).unwrap();
        }
        fs::write(&log, &whole[..cut]).unwrap();
        let journals = disk.open();
        let resumed = journals.resume(stream, OWNER).await.unwrap();
        let kept = resumed.batches.len();
        assert_eq!(resumed.batches, batches(kept as i32), "cut at {cut}");
        resumed.journal.append(&batch(kept as i32)).await.unwrap();
        drop((journals, resumed));
        let again = disk.open().resume(stream, OWNER).await.unwrap();
        assert_eq!(again.batches, batches(kept as i32 + 1), "cut at {cut}");
        lengths.insert(kept);
    }
    assert_eq!(lengths.into_iter().collect::<Vec<_>>(), [0, 1, 2, 3]);
}

#[tokio::test]
async fn a_changed_byte_never_becomes_another_token() {
    let disk = Disk::new();
    let stream = written(&disk, 3).await;
    let mut lost = 0;
    let paths = [disk.only("log"), disk.only("head")];
    let whole = paths.clone().map(|path| fs::read(path).unwrap());
    let restore = || {
        for (path, bytes) in paths.iter().zip(&whole) {
            fs::write(path, bytes).unwrap();
        }
    };
    for (path, whole) in paths.iter().zip(&whole) {
        for at in 0..whole.len() {
            // What cannot be read is removed.
            restore();
            let mut changed = whole.clone();
            changed[at] ^= 0x10;
            fs::write(path, &changed).unwrap();
            match disk.open().resume(stream, OWNER).await {
                Ok(resumed) => {
                    let count = resumed.batches.len();
                    assert!(count < 3, "byte {at} of {}", path.display());
                    assert_eq!(resumed.batches, batches(count as i32));
                }
                Err(JournalError::Unknown | JournalError::Damaged) => lost += 1,
                Err(error) => panic!("byte {at} of {}: {error}", path.display()),
            }
        }
    }
    assert!(lost > 0);
    restore();
    let resumed = disk.open().resume(stream, OWNER).await.unwrap();
    assert_eq!(resumed.batches, batches(3));
}

#[tokio::test]
async fn the_later_one_has_the_stream() {
    let disk = Disk::new();
    let journals = disk.open();
    let first = journals.begin(start("q")).await.unwrap();
    first.append(&batch(0)).await.unwrap();
    let second = journals.resume(first.stream(), OWNER).await.unwrap();
    first.taken().await;
    let refused = first.append(&batch(1)).await;
    assert!(matches!(refused, Err(JournalError::Taken)), "{refused:?}");
    first.end();
    second.journal.append(&batch(1)).await.unwrap();
    let third = journals.resume(first.stream(), OWNER).await.unwrap();
    assert_eq!(third.batches, batches(2));
}

#[tokio::test]
async fn a_stream_is_its_owners_alone() {
    let disk = Disk::new();
    let stream = written(&disk, 1).await;
    for (stream, owner) in [(stream, Hash([2; 32])), (StreamId([0; 16]), OWNER)] {
        let refused = disk.open().resume(stream, owner).await;
        assert!(matches!(refused, Err(JournalError::Unknown)), "{refused:?}");
    }
    let other = Journals::open(disk.0.path(), &Secret([8; 32]), Limits::default()).unwrap();
    let refused = other.resume(stream, OWNER).await;
    assert!(matches!(refused, Err(JournalError::Unknown)), "{refused:?}");
    assert!(disk.files("head").is_empty(), "nobody can read it any more");
}

#[tokio::test]
async fn what_is_over_leaves_nothing_behind() {
    let brief = Limits {
        life: Duration::ZERO,
        linger: Duration::ZERO,
        ..Limits::default()
    };
    for ended in [true, false] {
        let disk = Disk::new();
        let journals = disk.open_with(brief);
        let journal = journals.begin(start("q")).await.unwrap();
        journal.append(&batch(0)).await.unwrap();
        if ended {
            journal.end();
        }
        let stream = journal.stream();
        drop(journal);
        let refused = journals.resume(stream, OWNER).await;
        assert!(matches!(refused, Err(JournalError::Unknown)), "{refused:?}");
        assert!(disk.files("head").is_empty());
        assert_eq!(fs::read(disk.only("log")).unwrap(), MAGIC);
        assert_eq!(journals.figures().streams, 0);
    }
}

#[tokio::test]
async fn a_stream_that_is_too_old_is_gone_at_the_next_start() {
    let disk = Disk::new();
    let stream = written(&disk, 1).await;
    let life = Duration::ZERO;
    let journals = disk.open_with(Limits {
        life,
        ..Limits::default()
    });
    assert!(journals.resume(stream, OWNER).await.is_err());
    assert!(disk.files("head").is_empty() && disk.files("log").is_empty());
}

#[tokio::test]
async fn held_streams_keep_their_place_and_left_ones_give_way() {
    let disk = Disk::new();
    let journals = disk.open_with(Limits {
        streams_max: 2,
        ..Limits::default()
    });
    let left = journals.begin(start("a")).await.unwrap().stream();
    let _held = journals.begin(start("b")).await.unwrap();
    let also = journals.begin(start("c")).await.unwrap();
    assert!(journals.resume(left, OWNER).await.is_err());
    let refused = journals.begin(start("d")).await;
    assert!(matches!(refused, Err(JournalError::Full(_))), "{refused:?}");
    let figures = journals.figures();
    assert_eq!((figures.streams, figures.without), (2, 1));
    also.end();
    journals.begin(start("e")).await.unwrap();
}

#[tokio::test]
async fn an_answer_too_long_for_a_journal_goes_on_without() {
    let disk = Disk::new();
    let journals = disk.open_with(Limits {
        stream_bytes_max: 2_000,
        ..Limits::default()
    });
    let refused = journals.begin(start(&"q".repeat(2_000))).await;
    assert!(matches!(refused, Err(JournalError::Full(_))), "{refused:?}");
    let journal = journals.begin(start("q")).await.unwrap();
    let mut appended = 0;
    while journal.append(&batch(appended)).await.is_ok() {
        appended += 1;
    }
    assert!((3..30).contains(&appended), "{appended}");
    assert!(journals.resume(journal.stream(), OWNER).await.is_err());
    assert_eq!(journals.figures().without, 2);
    assert!(disk.files("head").is_empty());
}

#[tokio::test]
async fn logs_are_followed_by_others_and_removed_one_by_one() {
    let disk = Disk::new();
    let journals = disk.open_with(Limits {
        log_bytes: 300,
        linger: Duration::ZERO,
        ..Limits::default()
    });
    let long = journals.begin(start("long")).await.unwrap();
    let brief = journals.begin(start("brief")).await.unwrap();
    brief.append(&batch(0)).await.unwrap();
    for batch in batches(20) {
        long.append(&batch).await.unwrap();
    }
    let many = disk.files("log").len();
    assert!(many > 3, "{many}");
    let resumed = journals.resume(long.stream(), OWNER).await.unwrap();
    assert_eq!(resumed.batches, batches(20));
    resumed.journal.end();
    brief.append(&batch(1)).await.unwrap();
    let brief = journals.resume(brief.stream(), OWNER).await.unwrap();
    assert!(disk.files("log").len() < many);
    assert_eq!(brief.batches, batches(2));
}

#[tokio::test(flavor = "multi_thread")]
async fn many_at_once_keep_apart() {
    let disk = Disk::new();
    let journals = disk.open();
    let write = |nth: i32, journals: Journals| async move {
        let journal = journals.begin(start(&nth.to_string())).await.unwrap();
        for at in 0..40 {
            journal.append(&batch(nth * 1_000 + at)).await.unwrap();
        }
        let events = vec![StreamEvent::Finished(StreamFinish::Stop)];
        let end = StreamBatch { choice: 0, events };
        journal.append(&end).await.unwrap();
        journal.stream()
    };
    let tasks: Vec<_> = (0..8)
        .map(|nth| tokio::spawn(write(nth, journals.clone())))
        .collect();
    let mut streams = Vec::new();
    for task in tasks {
        streams.push(task.await.unwrap());
    }
    drop(journals);
    let journals = disk.open();
    for (nth, stream) in streams.into_iter().enumerate() {
        let resumed = journals.resume(stream, OWNER).await.unwrap();
        assert_eq!(resumed.start.body, nth.to_string().into_bytes());
        let tokens: Vec<StreamBatch> = (0..40).map(|at| batch(nth as i32 * 1_000 + at)).collect();
        assert_eq!(resumed.batches[..40], tokens);
        assert_eq!(resumed.batches.len(), 41);
    }
}
