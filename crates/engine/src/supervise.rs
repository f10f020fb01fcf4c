//! Keeping one engine-host alive.

use crate::process::{self, Launch};
use crate::ward::Patient;
use crate::{EngineError, Host};
use proto::host::{Failed, LoadSpec, Memory};
use std::collections::VecDeque;
use std::io;
use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, ChildStderr};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tracing::{info, warn};

/// The pause before the first restart.
const PAUSE_MIN: Duration = Duration::from_millis(200);
/// The longest pause before a restart.
const PAUSE_MAX: Duration = Duration::from_secs(10);
/// A host that lived this long starts again with the shortest pause.
const HEALTHY: Duration = Duration::from_secs(30);
/// How many lines of a host's standard error are kept to explain its end.
const LAST_WORDS_LINES: usize = 8;
/// The longest line of standard error that is kept, in bytes.
const LINE_BYTES_MAX: usize = 400;

/// What an engine-host is doing.
#[derive(Debug, Clone)]
pub enum State {
    /// Its process starts and loads.
    Starting,
    /// It serves.
    Up(Arc<Host>),
    /// It died, and starts again after a pause.
    Down(String),
    /// It cannot load what it was told; it is not started again.
    Refused(Failed),
    /// Too many died with its model; it starts again once the model is released.
    Quarantined(String),
}

/// One engine-host, kept alive until this is dropped.
#[derive(Debug)]
pub struct Supervisor {
    state: watch::Receiver<State>,
    task: JoinHandle<()>,
}

impl Supervisor {
    /// Starts an engine-host that loads `spec`, which is `patient`. Returns at once; [`Supervisor::ready`] waits.
    #[must_use]
    pub fn start(launch: Launch, spec: LoadSpec, patient: Patient) -> Self {
        let (publish, state) = watch::channel(State::Starting);
        let task = tokio::spawn(keep_alive(launch, spec, patient, publish));
        Self { state, task }
    }

    /// Waits until the host serves for the first time.
    ///
    /// # Errors
    ///
    /// [`EngineError::Failed`] when it cannot load, [`EngineError::Down`] when it died while loading,
    /// [`EngineError::Quarantined`] when that happened too often.
    pub async fn ready(&self) -> Result<Arc<Host>, EngineError> {
        let mut state = self.state.clone();
        let settled = state
            .wait_for(|state| !matches!(state, State::Starting))
            .await;
        drop(settled.map_err(|_| EngineError::Down("it was stopped".into()))?);
        self.host()
    }

    /// The living host.
    ///
    /// # Errors
    ///
    /// [`EngineError`] that says why there is none right now.
    pub fn host(&self) -> Result<Arc<Host>, EngineError> {
        match &*self.state.borrow() {
            State::Up(host) => Ok(host.clone()),
            State::Starting => Err(EngineError::Down("it is starting".into())),
            State::Down(why) => Err(EngineError::Down(why.clone())),
            State::Refused(failed) => Err(EngineError::Failed(failed.clone())),
            State::Quarantined(why) => Err(EngineError::Quarantined(why.clone())),
        }
    }

    /// What the host is doing, and every change of it.
    #[must_use]
    pub fn watch(&self) -> watch::Receiver<State> {
        self.state.clone()
    }
}

impl Drop for Supervisor {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Runs one life of an engine-host after the other.
async fn keep_alive(
    launch: Launch,
    spec: LoadSpec,
    patient: Patient,
    publish: watch::Sender<State>,
) {
    let mut pause = PAUSE_MIN;
    loop {
        if let Some(why) = patient.quarantined() {
            warn!(%why, "no engine-host is started");
            publish.send_replace(State::Quarantined(why));
            patient.released().await;
            pause = PAUSE_MIN;
            publish.send_replace(State::Starting);
        }
        let begun = Instant::now();
        match live(&launch, &spec, &patient, &publish).await {
            End::Refused(failed) => {
                publish.send_replace(State::Refused(failed));
                return;
            }
            // Published above, with the way out.
            End::Died(_) if patient.quarantined().is_some() => continue,
            End::Died(why) => {
                warn!(%why, ?pause, "an engine-host ended; it starts again");
                publish.send_replace(State::Down(why));
            }
        }
        if begun.elapsed() > HEALTHY {
            pause = PAUSE_MIN;
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(PAUSE_MAX);
        publish.send_replace(State::Starting);
    }
}

/// What loading a specification would take, as an engine-host of its own finds out without reading a weight. The files
/// named need no more than their headers.
///
/// # Errors
///
/// [`EngineError`] when the files cannot be used, or the process died over them.
pub async fn estimate(launch: &Launch, spec: LoadSpec) -> Result<Memory, EngineError> {
    let (mut child, words, host, serve) = begin(launch).await.map_err(EngineError::Down)?;
    let _bury = Bury(host.clone());
    let answered = tokio::select! {
        answered = host.estimate(spec) => Some(answered),
        _ = serve => None,
    };
    match answered {
        Some(answered) => answered,
        None => Err(EngineError::Died(explain(&mut child, words).await.1)),
    }
}

/// A process without a model, the collector of its last words, and its pipe with the future that serves it.
///
/// # Errors
///
/// Why it cannot be started.
async fn begin(
    launch: &Launch,
) -> Result<
    (
        Child,
        Option<Words>,
        Arc<Host>,
        impl Future<Output = io::Result<()>>,
    ),
    String,
> {
    let started = process::start(launch).await;
    let (mut child, pipe) =
        started.map_err(|error| format!("its process cannot be started: {error}"))?;
    let said = child.stderr.take();
    let words = said.map(|stderr| tokio::spawn(last_words(stderr)));
    let (host, serve) = Host::over(pipe);
    Ok((child, words, host, serve))
}

/// What a process wrote last, once it has ended.
type Words = JoinHandle<VecDeque<String>>;

enum End {
    Refused(Failed),
    Died(String),
}

/// One life of an engine-host.
async fn live(
    launch: &Launch,
    spec: &LoadSpec,
    patient: &Patient,
    publish: &watch::Sender<State>,
) -> End {
    let (mut child, words, host, serve) = match begin(launch).await {
        Ok(begun) => begun,
        Err(why) => return End::Died(why),
    };
    let _bury = Bury(host.clone());
    let load = async {
        match host.load(spec.clone()).await {
            Ok(()) => {
                info!(pid = child.id(), "an engine-host is ready");
                publish.send_replace(State::Up(host.clone()));
                std::future::pending().await
            }
            Err(error) => error,
        }
    };
    // Whatever ends first ends this life: a refused load, or the pipe (which closes when the process ends).
    let refused = tokio::select! {
        error = load => Some(error),
        _ = serve => None,
    };
    let busy = host.busy();
    let (status, why) = explain(&mut child, words).await;
    let refused = match refused {
        Some(EngineError::Failed(failed)) => Some(failed),
        _ => None,
    };
    if refused.is_none() && busy && !is_nobodys_fault(status) {
        patient.died(&why);
    }
    host.bury(&why);
    refused.map_or(End::Died(why), End::Refused)
}

/// Whether the model is not to blame: somebody told the process to end, as a terminal does to a whole group at once, or it
/// ended itself over a caller's text, for which an engine-host takes SIGXCPU.
fn is_nobodys_fault(status: Option<ExitStatus>) -> bool {
    use nix::sys::signal::Signal::{self, SIGHUP, SIGINT, SIGTERM, SIGXCPU};
    let signal = status.and_then(|status| Signal::try_from(status.signal()?).ok());
    matches!(signal, Some(SIGHUP | SIGINT | SIGTERM | SIGXCPU))
}

/// Callers must not wait for ever when the supervisor is dropped in the middle of a life.
struct Bury(Arc<Host>);

impl Drop for Bury {
    fn drop(&mut self) {
        self.0.bury("it was stopped");
    }
}

/// Ends the child if it still lives, and says how it ended.
async fn explain(child: &mut Child, words: Option<Words>) -> (Option<ExitStatus>, String) {
    let status = match tokio::time::timeout(PAUSE_MIN, child.wait()).await {
        Ok(status) => status,
        Err(_) => {
            let _ = child.start_kill();
            child.wait().await
        }
    };
    let ended = status.as_ref().ok().copied();
    let how = status.map_or_else(|error| error.to_string(), how_it_ended);
    let words = match words {
        Some(task) => tokio::time::timeout(PAUSE_MIN, task)
            .await
            .ok()
            .and_then(Result::ok),
        None => None,
    };
    let why = match words {
        Some(words) if !words.is_empty() => {
            format!("{how}; it said: {}", Vec::from(words).join(" / "))
        }
        _ => how,
    };
    (ended, why)
}

fn how_it_ended(status: ExitStatus) -> String {
    match status.signal().map(nix::sys::signal::Signal::try_from) {
        Some(Ok(nix::sys::signal::Signal::SIGILL)) => {
            "signal SIGILL: it was built for another CPU; build Myzel on this machine".to_owned()
        }
        Some(Ok(signal)) => format!("signal {signal}"),
        _ => status.to_string(),
    }
}

async fn last_words(stderr: ChildStderr) -> VecDeque<String> {
    let mut lines = BufReader::new(stderr).lines();
    let mut kept = VecDeque::new();
    while let Ok(Some(line)) = lines.next_line().await {
        tracing::debug!(line, "engine-host");
        if kept.len() == LAST_WORDS_LINES {
            kept.pop_front();
        }
        kept.push_back(line.chars().take(LINE_BYTES_MAX).collect());
    }
    kept
}
