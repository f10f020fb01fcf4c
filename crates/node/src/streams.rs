//! The journals of streamed answers, as the HTTP face wants them.

use crate::status::JournalStatus;
use api::{Fault, Journal, Journals, KeptStream, Lost};
use futures::FutureExt;
use futures::future::BoxFuture;
use proto::ids::{Hash, StreamId};
use proto::journal::{StreamBatch, StreamStart};
use std::sync::Arc;
use store::journal::{self, JournalError, Resumed};

/// The node's journals.
#[derive(Debug, Clone)]
pub struct Streams(journal::Journals);

/// One of them.
#[derive(Debug)]
struct Stream(journal::Journal);

impl Streams {
    /// Over what is on disk.
    #[must_use]
    pub fn new(journals: journal::Journals) -> Self {
        Self(journals)
    }

    /// How they stand.
    #[must_use]
    pub fn status(&self) -> JournalStatus {
        let figures = self.0.figures();
        JournalStatus {
            streams: figures.streams,
            bytes: figures.bytes,
            without: figures.without,
            why: figures.why,
        }
    }
}

impl Journals for Streams {
    fn begin(&self, start: StreamStart) -> BoxFuture<'_, Option<Arc<dyn Journal>>> {
        async move {
            // Why there is none is logged and counted where it is known.
            let journal = self.0.begin(start).await.ok()?;
            Some(Arc::new(Stream(journal)) as Arc<dyn Journal>)
        }
        .boxed()
    }

    fn resume(
        &self,
        stream: StreamId,
        owner: Hash,
    ) -> BoxFuture<'_, Result<Option<KeptStream>, Fault>> {
        async move {
            match self.0.resume(stream, owner).await {
                Ok(Resumed {
                    start,
                    batches,
                    journal,
                }) => Ok(Some(KeptStream {
                    start,
                    batches,
                    journal: Arc::new(Stream(journal)),
                })),
                Err(JournalError::Unknown) => Ok(None),
                Err(error) => Err(Fault::internal(error.to_string())),
            }
        }
        .boxed()
    }
}

impl Journal for Stream {
    fn stream(&self) -> StreamId {
        self.0.stream()
    }

    fn append<'a>(&'a self, batch: &'a StreamBatch) -> BoxFuture<'a, Result<(), Lost>> {
        async move {
            self.0.append(batch).await.map_err(|error| match error {
                JournalError::Taken => Lost::Taken,
                _ => Lost::Gone,
            })
        }
        .boxed()
    }

    fn taken(&self) -> BoxFuture<'static, ()> {
        self.0.taken().boxed()
    }

    fn end(&self) {
        self.0.end();
    }
}
