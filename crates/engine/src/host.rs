//! Our end of the pipe to one engine-host.

use crate::EngineError;
use crate::outbox::{CALLS_WAITING_MAX, DROPS_WAITING_MAX, Outbox};
use bytes::Bytes;
use proto::codec;
use proto::host::{
    Answer, Call, EmbedRows, LoadAdapter, LoadSpec, Loaded, Memory, Output, Prompt, ReadReply,
    Reply, Run, Stats, Steer, Task, Tokenize, Trim,
};
use proto::ids::SessionId;
use proto::packet::{self, PAYLOAD_BYTES_MAX, PREFIX_BYTES, Prefix};
use std::collections::HashMap;
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use tokio::io::{AsyncReadExt, BufReader};
use tokio::net::UnixStream;
use tokio::net::unix::OwnedReadHalf;
use tokio::sync::mpsc;

type Delivery = Result<(Answer, Bytes), EngineError>;

/// Callers by the number of their call; `None` once the pipe is closed.
type Waiting = Arc<Mutex<Option<HashMap<u64, mpsc::Sender<Delivery>>>>>;

/// The answers to one call, in order.
#[derive(Debug)]
pub struct Answers {
    mailbox: mpsc::Receiver<Delivery>,
}

impl Answers {
    /// The next answer and its payload; `None` after the last.
    ///
    /// # Errors
    ///
    /// [`EngineError`] when the engine refused, failed or died. Nothing follows then.
    pub async fn next(&mut self) -> Option<Result<(Answer, Bytes), EngineError>> {
        self.mailbox.recv().await
    }

    /// The only answer.
    async fn only(mut self) -> Result<(Answer, Bytes), EngineError> {
        self.next().await.unwrap_or(Err(EngineError::OutOfTurn))
    }
}

/// A living engine-host.
#[derive(Debug)]
pub struct Host {
    outbox: Arc<Outbox>,
    waiting: Waiting,
    next_id: AtomicU64,
    loaded: std::sync::OnceLock<Loaded>,
    serial: u64,
}

/// How many hosts this process has had.
static SERIALS: AtomicU64 = AtomicU64::new(0);

impl Host {
    /// Takes over the pipe; the future serves it until it closes.
    pub(crate) fn over(pipe: UnixStream) -> (Arc<Self>, impl Future<Output = io::Result<()>>) {
        let (read, write) = pipe.into_split();
        let outbox = Arc::new(Outbox::new(write));
        let waiting: Waiting = Arc::new(Mutex::new(Some(HashMap::new())));
        let (writes, readers) = (outbox.clone(), waiting.clone());
        let serve = async move {
            tokio::select! {
                ended = read_replies(read, &readers) => ended,
                ended = writes.drain() => ended,
            }
        };
        let loaded = std::sync::OnceLock::new();
        let next_id = AtomicU64::new(1);
        (
            Arc::new(Self {
                outbox,
                waiting,
                next_id,
                loaded,
                serial: SERIALS.fetch_add(1, Ordering::Relaxed),
            }),
            serve,
        )
    }

    /// A number that no other host of this process has or will have.
    #[must_use]
    pub fn serial(&self) -> u64 {
        self.serial
    }

    /// Tells every caller that waits, and every later one, that the process ended.
    pub(crate) fn bury(&self, why: &str) {
        let waiting = self
            .waiting
            .lock()
            .ok()
            .and_then(|mut waiting| waiting.take());
        for mailbox in waiting.into_iter().flatten().map(|(_, mailbox)| mailbox) {
            let _ = mailbox.try_send(Err(EngineError::Died(why.to_owned())));
        }
    }

    /// Whether a caller waits for an answer.
    pub(crate) fn busy(&self) -> bool {
        let waiting = self.waiting.lock();
        waiting.is_ok_and(|waiting| waiting.as_ref().is_some_and(|calls| !calls.is_empty()))
    }

    fn call(&self, task: Task, payload: &[u8], answers: usize) -> Result<Answers, EngineError> {
        let id = self.next_id.fetch_add(1, Ordering::Relaxed);
        let bytes = packet::encode(&Call { id, task }, payload);
        // One place more than answers, for the news that the process ended.
        let (mailbox, receiver) = mpsc::channel(answers + 1);
        let dead = || EngineError::Died("it ended before this call".into());
        match self.waiting.lock().ok().as_deref_mut() {
            Some(Some(waiting)) => waiting.insert(id, mailbox),
            _ => return Err(dead()),
        };
        if self.outbox.send(bytes.into(), CALLS_WAITING_MAX) {
            return Ok(Answers { mailbox: receiver });
        }
        if let Ok(Some(waiting)) = self.waiting.lock().as_deref_mut() {
            waiting.remove(&id);
        }
        Err(EngineError::Down(format!(
            "{CALLS_WAITING_MAX} calls wait for it already"
        )))
    }

    async fn ask(&self, task: Task) -> Result<Answer, EngineError> {
        Ok(self.call(task, &[], 1)?.only().await?.0)
    }

    /// Loads; the first call.
    pub(crate) async fn load(&self, spec: LoadSpec) -> Result<(), EngineError> {
        match self.ask(Task::Load(spec)).await? {
            Answer::Loaded(loaded) => self.loaded.set(*loaded).map_err(|_| EngineError::OutOfTurn),
            _ => Err(EngineError::OutOfTurn),
        }
    }

    /// What loading would take; instead of loading.
    pub(crate) async fn estimate(&self, spec: LoadSpec) -> Result<Memory, EngineError> {
        match self.ask(Task::Estimate(spec)).await? {
            Answer::Memory(memory) => Ok(memory),
            _ => Err(EngineError::OutOfTurn),
        }
    }

    /// What is loaded.
    ///
    /// # Panics
    ///
    /// Never for a host that a [`crate::Supervisor`] hands out: those have loaded.
    #[must_use]
    pub fn loaded(&self) -> &Loaded {
        self.loaded
            .get()
            .expect("hosts are handed out after loading")
    }

    /// Text to tokens.
    ///
    /// # Errors
    ///
    /// [`EngineError`].
    pub async fn tokenize(&self, tokenize: Tokenize) -> Result<Vec<i32>, EngineError> {
        match self.ask(Task::Tokenize(tokenize)).await? {
            Answer::Tokens(tokens) => Ok(tokens),
            _ => Err(EngineError::OutOfTurn),
        }
    }

    /// A conversation, as JSON text, as the model's prompt.
    ///
    /// # Errors
    ///
    /// [`EngineError`].
    pub async fn render(&self, conversation: String) -> Result<Prompt, EngineError> {
        match self.ask(Task::Render(conversation)).await? {
            Answer::Prompt(prompt) => Ok(*prompt),
            _ => Err(EngineError::OutOfTurn),
        }
    }

    /// A reply taken apart, as JSON: content, reasoning, tool calls.
    ///
    /// # Errors
    ///
    /// [`EngineError`].
    pub async fn read(&self, reply: ReadReply) -> Result<String, EngineError> {
        match self.ask(Task::Read(reply)).await? {
            Answer::Text(message) => Ok(message),
            _ => Err(EngineError::OutOfTurn),
        }
    }

    /// The bytes of tokens, one piece a token; control tokens as their names.
    ///
    /// # Errors
    ///
    /// [`EngineError`].
    pub async fn detokenize(&self, tokens: Vec<i32>) -> Result<Vec<Vec<u8>>, EngineError> {
        match self.ask(Task::Detokenize(tokens)).await? {
            Answer::Pieces(pieces) => Ok(pieces.into_iter().map(Into::into).collect()),
            _ => Err(EngineError::OutOfTurn),
        }
    }

    /// Computes rows. A run with a burst, or with guesses, answers once a token.
    ///
    /// # Errors
    ///
    /// [`EngineError`] when the process is gone already; everything else comes as an answer.
    pub fn run(&self, run: Run, payload: &[u8]) -> Result<Answers, EngineError> {
        let answers = match run.output {
            Output::Token(draw) => (draw.burst as usize).max(run.guesses.len() + 1),
            _ => 1,
        };
        self.call(Task::Run(run), payload, answers)
    }

    /// Says how the tokens of a session are chosen, before its first run; it may run once this has returned.
    ///
    /// # Errors
    ///
    /// [`EngineError::Failed`] with words for people when a grammar, schema or value is refused; the session does not run then.
    pub async fn steer(&self, steer: Steer) -> Result<(), EngineError> {
        self.done(Task::Steer(steer)).await
    }

    /// Cuts a session's caches back; returns once the call is queued, behind all that were made before.
    ///
    /// # Errors
    ///
    /// [`EngineError`] when the process is gone already; everything else comes as an answer.
    pub fn trim(&self, trim: Trim) -> Result<Answers, EngineError> {
        self.call(Task::Trim(trim), &[], 1)
    }

    /// Loads a LoRA adapter from a file in [`LoadSpec::adapters_dir`], for runs to name. It is gone when the process ends.
    ///
    /// # Errors
    ///
    /// [`EngineError`].
    pub async fn load_adapter(&self, adapter: LoadAdapter) -> Result<(), EngineError> {
        self.done(Task::LoadAdapter(adapter)).await
    }

    /// Forgets an adapter; refused while a session uses it.
    ///
    /// # Errors
    ///
    /// [`EngineError`].
    pub async fn unload_adapter(&self, name: String) -> Result<(), EngineError> {
        self.done(Task::UnloadAdapter(name)).await
    }

    /// Embeddings of texts as tokens, one vector of length 1 a text.
    ///
    /// # Errors
    ///
    /// [`EngineError`].
    pub async fn embed(&self, texts: Vec<Vec<i32>>) -> Result<Vec<Vec<f32>>, EngineError> {
        let count = texts.len();
        let answer = self.call(Task::Embed(texts), &[], 1)?.only().await?;
        let (Answer::Rows(rows), payload) = answer else {
            return Err(EngineError::OutOfTurn);
        };
        let values = packet::f32_from_bytes(&payload).ok_or(EngineError::OutOfTurn)?;
        let width = values.len().checked_div(rows as usize).unwrap_or(0);
        if rows as usize != count || width == 0 {
            return Err(EngineError::OutOfTurn);
        }
        Ok(values.chunks(width).map(<[f32]>::to_vec).collect())
    }

    /// The embedding of one text, a vector of length 1, from its activations as they enter the tail: a row of f32 values
    /// a token. The session is that of the rows, and to be dropped in any case.
    ///
    /// # Errors
    ///
    /// [`EngineError`].
    pub async fn embed_rows(
        &self,
        session: SessionId,
        rows: &[u8],
    ) -> Result<Vec<f32>, EngineError> {
        let row_bytes = self.loaded().embedding_length.max(1) as usize * size_of::<f32>();
        let most = (PAYLOAD_BYTES_MAX / row_bytes).max(1) * row_bytes;
        let mut pieces = rows.chunks(most).peekable();
        let mut newest = None;
        while let Some(piece) = pieces.next() {
            let last = pieces.peek().is_none();
            let task = Task::EmbedRows(EmbedRows { session, last });
            newest = Some(self.call(task, piece, 1)?.only().await?);
        }
        match newest {
            Some((Answer::Rows(1), payload)) => {
                packet::f32_from_bytes(&payload).ok_or(EngineError::OutOfTurn)
            }
            _ => Err(EngineError::OutOfTurn),
        }
    }

    async fn done(&self, task: Task) -> Result<(), EngineError> {
        match self.ask(task).await? {
            Answer::Done => Ok(()),
            _ => Err(EngineError::OutOfTurn),
        }
    }

    /// Forgets a session and frees its caches; returns at once.
    pub fn drop_session(&self, session: SessionId) {
        let id = self.next_id.fetch_add(1, Ordering::Relaxed);
        let bytes = packet::encode(
            &Call {
                id,
                task: Task::Drop(session),
            },
            &[],
        );
        // A full queue means that the process no longer reads; its sessions end with it.
        let _ = self.outbox.send(bytes.into(), DROPS_WAITING_MAX);
    }

    /// The host's figures.
    ///
    /// # Errors
    ///
    /// [`EngineError`].
    pub async fn stats(&self) -> Result<Stats, EngineError> {
        match self.ask(Task::Stats).await? {
            Answer::Stats(stats) => Ok(stats),
            _ => Err(EngineError::OutOfTurn),
        }
    }
}

async fn read_replies(pipe: OwnedReadHalf, waiting: &Waiting) -> io::Result<()> {
    let rubbish = |e: codec::DecodeError| io::Error::new(io::ErrorKind::InvalidData, e);
    let mut pipe = BufReader::with_capacity(64 << 10, pipe);
    loop {
        let mut prefix = [0; PREFIX_BYTES];
        pipe.read_exact(&mut prefix).await?;
        let prefix = Prefix::parse::<Reply>(prefix).map_err(rubbish)?;
        let mut bytes = vec![0; prefix.head_bytes + prefix.payload_bytes];
        pipe.read_exact(&mut bytes).await?;
        let mut bytes = Bytes::from(bytes);
        let reply: Reply =
            codec::from_slice(&bytes.split_to(prefix.head_bytes)).map_err(rubbish)?;
        deliver(waiting, reply, bytes);
    }
}

/// Puts an answer into its caller's mailbox. A caller that has gone away is skipped; one whose mailbox is full
/// got more answers than it asked for, which our own engine-host does not do.
fn deliver(waiting: &Waiting, Reply { id, more, answer }: Reply, payload: Bytes) {
    let Ok(mut waiting) = waiting.lock() else {
        return;
    };
    let Some(waiting) = waiting.as_mut() else {
        return;
    };
    let delivery = match answer {
        Answer::Failed(failed) => Err(EngineError::Failed(failed)),
        answer => Ok((answer, payload)),
    };
    if let Some(mailbox) = waiting.get(&id) {
        let _ = mailbox.try_send(delivery);
    }
    if !more {
        waiting.remove(&id);
    }
}
