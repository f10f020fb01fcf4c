//! A file on the Hugging Face hub, or on a server that speaks its protocol.
//!
//! `hf-hub` knows addresses, redirects, tokens and what the hub says about a file. The bytes themselves we take through
//! its client as one stream with a range: so they are hashed on the way, and a cut download goes on at the byte where
//! it was cut instead of at the start of a 10 MB chunk.

use super::{Expected, FetchError, Mismatch, Staged};
use crate::blocking::{Stop, blocking};
use crate::durable::{PRIVATE, remove_file, replace};
use crate::intake::{Intake, WriteError};
use crate::progress::{Meter, Span};
use crate::reference::HubFile;
use crate::staging::{HUB_PART, HUB_TAG, Staging};
use hf_hub::api::tokio::{Api, ApiBuilder, ApiError};
use hf_hub::{Cache, Repo, RepoType};
use proto::ids::Hash;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::timeout;

/// The hub, unless `HF_ENDPOINT` names another.
pub const HUB_ENDPOINT: &str = "https://huggingface.co";
/// The largest model file that is fetched without a catalogue entry, in bytes: 2 TiB.
const HUB_BYTES_MAX: u64 = 2 << 40;
/// How long the hub may be silent, before its answer or within a file.
const SILENCE: Duration = Duration::from_secs(30);
/// How often one pull goes on by itself after a cut, as long as each attempt brought something.
const RESUMES_MAX: u32 = 3;
/// How many pieces may wait between network and disk; the network hands them out in some 16 kB.
const PIECES_WAITING_MAX: usize = 64;

/// How the hub is reached.
#[derive(Clone)]
pub struct Hub {
    endpoint: String,
    token: Option<String>,
}

impl std::fmt::Debug for Hub {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let token = self.token.as_ref().map(|_| "…");
        f.debug_struct("Hub")
            .field("endpoint", &self.endpoint)
            .field("token", &token)
            .finish()
    }
}

/// Why the hub did not deliver.
#[derive(Debug, thiserror::Error)]
pub enum HubError {
    /// The address or the token cannot be used.
    #[error("the hub client cannot be set up: {0}; see HF_ENDPOINT and HF_TOKEN")]
    Setup(String),
    /// Nobody answered, or what answered is not a hub.
    #[error("{endpoint} did not answer as a hub does: {why}")]
    NoAnswer {
        /// The hub.
        endpoint: String,
        /// What happened.
        why: String,
    },
    /// It answered no.
    #[error("{endpoint} answered {status} for {file}: {}", meaning(*status))]
    Refused {
        /// The hub.
        endpoint: String,
        /// The HTTP status.
        status: u16,
        /// The file.
        file: String,
    },
    /// The stream ended early.
    #[error(
        "the download was cut at {at} of {bytes} bytes ({why}); the same command goes on from there"
    )]
    Cut {
        /// Bytes that are here.
        at: u64,
        /// Bytes in all.
        bytes: u64,
        /// What happened.
        why: String,
    },
    /// The file is larger than anything sensible.
    #[error("the file has {bytes} bytes, at most {HUB_BYTES_MAX} are fetched")]
    TooLarge {
        /// Its size.
        bytes: u64,
    },
}

fn meaning(status: u16) -> &'static str {
    match status {
        401 | 403 => "access is refused; ask for access to the repository and set HF_TOKEN",
        404 => "there is no such file; check owner, repository, path and revision",
        429 => "too many requests; wait a while, or set HF_TOKEN",
        500.. => "the hub has a fault; try again later",
        _ => "that is not what a hub answers",
    }
}

/// What the hub says about a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Remote {
    file: HubFile,
    pub(crate) bytes: u64,
    etag: String,
}

impl Remote {
    /// The file's SHA-256, where the hub names it: large files have it as their ETag.
    pub(crate) fn sha256(&self) -> Option<Hash> {
        self.etag.parse().ok()
    }
}

impl Hub {
    /// A hub at `endpoint`, asked with `token` if there is one.
    #[must_use]
    pub fn new(endpoint: &str, token: Option<String>) -> Self {
        Self {
            endpoint: endpoint.trim_end_matches('/').to_owned(),
            token,
        }
    }

    /// The hub that `HF_ENDPOINT` names, with the token from `HF_TOKEN`, or from the file that Hugging Face's own
    /// tools keep (`HF_TOKEN_PATH`, `$HF_HOME/token`, `~/.cache/huggingface/token`).
    #[must_use]
    pub fn from_env() -> Self {
        let var = |name: &str| {
            std::env::var(name)
                .ok()
                .filter(|value| !value.trim().is_empty())
        };
        let home = || Some(PathBuf::from(var("HOME")?).join(".cache/huggingface"));
        let kept = || {
            let file = var("HF_TOKEN_PATH").map(PathBuf::from);
            let text = file.and_then(|file| std::fs::read_to_string(file).ok());
            let text = text.map(|t| t.trim().to_owned()).filter(|t| !t.is_empty());
            text.or_else(|| {
                let dir = var("HF_HOME").map(PathBuf::from).or_else(home)?;
                Cache::new(dir.join("hub")).token()
            })
        };
        let token = var("HF_TOKEN")
            .map(|token| token.trim().to_owned())
            .or_else(kept);
        Self::new(
            &var("HF_ENDPOINT").unwrap_or_else(|| HUB_ENDPOINT.to_owned()),
            token,
        )
    }

    /// Where it is.
    pub(crate) fn endpoint(&self) -> &str {
        &self.endpoint
    }

    fn api(&self) -> Result<Api, HubError> {
        // The cache is never written to: only the client and the addresses are used.
        ApiBuilder::from_cache(Cache::new(PathBuf::from("unused/hub")))
            .with_endpoint(self.endpoint.clone())
            .with_token(self.token.clone())
            .with_progress(false)
            .with_user_agent("myzel", env!("CARGO_PKG_VERSION"))
            .build()
            .map_err(|error| HubError::Setup(error.to_string()))
    }

    fn url(&self, api: &Api, file: &HubFile) -> String {
        let repo = Repo::with_revision(file.repo.clone(), RepoType::Model, file.revision.clone());
        api.repo(repo).url(&file.path)
    }

    /// Asks the hub about a file.
    pub(crate) async fn describe(&self, file: &HubFile) -> Result<Remote, HubError> {
        let api = self.api()?;
        let url = self.url(&api, file);
        let no_answer = |why: String| HubError::NoAnswer {
            endpoint: self.endpoint.clone(),
            why,
        };
        // A task of its own: hf-hub panics over a redirect that leads nowhere.
        let mut asking = JoinSet::new();
        asking.spawn(async move { api.metadata(&url).await });
        let answer = timeout(SILENCE, asking.join_next()).await;
        let answer = answer.map_err(|_| no_answer(silence()))?;
        let answer = answer.expect("one task was spawned");
        let facts = answer
            .map_err(|_| no_answer("its redirect leads nowhere".to_owned()))?
            .map_err(|error| self.refusal(error, file))?;
        let bytes = facts.size() as u64;
        if bytes > HUB_BYTES_MAX {
            return Err(HubError::TooLarge { bytes });
        }
        Ok(Remote {
            file: file.clone(),
            bytes,
            etag: facts.etag().to_owned(),
        })
    }

    /// An answer of the hub's as an error. Addresses are left out: redirects carry signatures.
    fn refusal(&self, error: ApiError, file: &HubFile) -> HubError {
        let endpoint = self.endpoint.clone();
        match error {
            ApiError::RequestError(error) => match error.status() {
                Some(status) => HubError::Refused {
                    endpoint,
                    status: status.as_u16(),
                    file: file.to_string(),
                },
                None => HubError::NoAnswer {
                    endpoint,
                    why: chain(&error.without_url()),
                },
            },
            other => HubError::NoAnswer {
                endpoint,
                why: other.to_string(),
            },
        }
    }

    /// Downloads a file, going on where an earlier download of the same version was cut.
    pub(crate) async fn fetch(
        &self,
        remote: &Remote,
        expected: &Expected,
        staging: &Arc<Staging>,
        meter: &Arc<Meter>,
    ) -> Result<Staged, FetchError> {
        early_check(expected, remote)?;
        let span =
            Arc::new(meter.span(&format!("fetching {}", remote.file), 0..1000, remote.bytes));
        let mut intake = open_part(remote, staging, &span).await?;
        let mut resumes = 0;
        while intake.bytes() < remote.bytes {
            let before = intake.bytes();
            let (grown, cut) = self.stream(remote, intake, staging, &span).await?;
            intake = grown;
            let Some(why) = cut.or_else(|| early_end(&intake, remote)) else {
                break;
            };
            resumes += 1;
            if intake.bytes() <= before || resumes > RESUMES_MAX {
                return Err(HubError::Cut {
                    at: intake.bytes(),
                    bytes: remote.bytes,
                    why,
                }
                .into());
            }
        }
        let held = Arc::clone(staging);
        let expected = expected.with(remote);
        blocking(move |_| {
            let digests = intake.finish()?;
            let path = held.path(HUB_PART);
            if let Err(mismatch) = expected.check(&digests) {
                remove_file(&path)?;
                return Err(mismatch.into());
            }
            Ok(Staged { path, digests })
        })
        .await
    }

    /// One request for what is missing, written as it comes; with the reason, if it was cut.
    async fn stream(
        &self,
        remote: &Remote,
        mut intake: Intake,
        staging: &Arc<Staging>,
        span: &Arc<Span>,
    ) -> Result<(Intake, Option<String>), FetchError> {
        let api = self.api()?;
        let from = intake.bytes();
        let range = format!("bytes={from}-");
        let request = api
            .client()
            .get(self.url(&api, &remote.file))
            .header("range", range)
            .send();
        let mut response = match timeout(SILENCE, request).await {
            Ok(Ok(response)) => response,
            Ok(Err(error)) => return Ok((intake, Some(chain(&error.without_url())))),
            Err(_) => return Ok((intake, Some(silence()))),
        };
        let range = response
            .headers()
            .get("content-range")
            .and_then(|r| r.to_str().ok());
        match response.status().as_u16() {
            206 if range.is_some_and(|r| r.starts_with(&format!("bytes {from}-"))) => {}
            200 if from == 0 => {}
            // The server knows no ranges: everything comes again.
            200 => intake = intake.restart()?,
            status => {
                let (endpoint, file) = (self.endpoint.clone(), remote.file.to_string());
                return Err(HubError::Refused {
                    endpoint,
                    status,
                    file,
                }
                .into());
            }
        }
        let (sender, receiver) = mpsc::channel(PIECES_WAITING_MAX);
        let read = async move {
            loop {
                match timeout(SILENCE, response.chunk()).await {
                    Ok(Ok(Some(piece))) => {
                        if sender.send(piece).await.is_err() {
                            // The writer ended: its error is the one that counts.
                            return None;
                        }
                    }
                    Ok(Ok(None)) => return None,
                    Ok(Err(error)) => return Some(chain(&error.without_url())),
                    Err(_) => return Some(silence()),
                }
            }
        };
        let (held, span) = (Arc::clone(staging), Arc::clone(span));
        let write = blocking(move |stop| {
            let written = write_pieces(&mut intake, receiver, &span, stop);
            drop(held);
            written.map(|()| intake)
        });
        let (cut, written) = tokio::join!(read, write);
        Ok((written?, cut))
    }
}

fn early_end(intake: &Intake, remote: &Remote) -> Option<String> {
    (intake.bytes() < remote.bytes).then(|| "the stream ended early".to_owned())
}

fn silence() -> String {
    format!("it was silent for {} s", SILENCE.as_secs())
}

/// An error with all its causes.
fn chain(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(Some(error), |e| e.source());
    causes
        .map(ToString::to_string)
        .collect::<Vec<_>>()
        .join(": ")
}

impl Expected {
    /// With what the hub itself says about the file, where we do not know better.
    fn with(&self, remote: &Remote) -> Self {
        Self {
            bytes: self.bytes.or(Some(remote.bytes)),
            sha256: self.sha256.or_else(|| remote.sha256()),
            blake3: self.blake3,
        }
    }
}

/// Refuses a file that the hub itself describes as another one, before it is downloaded.
fn early_check(expected: &Expected, remote: &Remote) -> Result<(), Mismatch> {
    if let Some(bytes) = expected.bytes.filter(|bytes| *bytes != remote.bytes) {
        let text = |n: u64| format!("{n} bytes");
        return Err(Mismatch {
            what: "size",
            expected: text(bytes),
            got: text(remote.bytes),
        });
    }
    match (expected.sha256, remote.sha256()) {
        (Some(expected), Some(got)) if expected != got => {
            let (expected, got) = (expected.to_string(), got.to_string());
            Err(Mismatch {
                what: "SHA-256",
                expected,
                got,
            })
        }
        _ => Ok(()),
    }
}

/// The half-written file of the same version, or a new one.
async fn open_part(
    remote: &Remote,
    staging: &Arc<Staging>,
    span: &Arc<Span>,
) -> Result<Intake, FetchError> {
    let tag = format!("{}\n{}\n{}\n", remote.file, remote.bytes, remote.etag);
    let (held, span, bytes) = (Arc::clone(staging), Arc::clone(span), remote.bytes);
    blocking(move |stop| {
        let (part, tag_path) = (held.path(HUB_PART), held.path(HUB_TAG));
        if std::fs::read_to_string(&tag_path).is_ok_and(|kept| kept == tag) {
            return Ok(Intake::resume(&part, bytes, stop, |at| span.at(at))?);
        }
        remove_file(&part)?;
        replace(&tag_path, tag.as_bytes(), PRIVATE)?;
        Ok(Intake::begin(&part, bytes)?)
    })
    .await
}

fn write_pieces(
    intake: &mut Intake,
    mut pieces: mpsc::Receiver<impl AsRef<[u8]>>,
    span: &Span,
    stop: &Stop,
) -> Result<(), WriteError> {
    while let Some(piece) = pieces.blocking_recv() {
        if stop.asked() {
            return Err(WriteError::Stopped);
        }
        intake.write(piece.as_ref())?;
        span.at(intake.bytes());
    }
    Ok(())
}
