//! What can go wrong with models, one type per operation.

use crate::blocks::BlocksError;
use crate::durable::{DiskFull, FileError, parent};
use crate::intake::WriteError;
use crate::sources::{FetchError, Mismatch};
use proto::gguf::GgufError;
use proto::ids::{Hash, NodeId};
use std::fmt::Write as _;
use std::path::PathBuf;

/// A model that cannot be found or used.
#[derive(Debug, thiserror::Error)]
pub enum ResolveError {
    /// Neither store nor catalogue knows it.
    #[error(
        "no model {wanted}; known are: {known}. See `myzel model list`, or give the path of a GGUF file"
    )]
    Unknown {
        /// What was asked for.
        wanted: String,
        /// The names of the catalogue and the store.
        known: String,
    },
    /// It is known, and not here.
    #[error("{wanted} is not on this machine; fetch it with: myzel model pull {wanted}")]
    NotPulled {
        /// What was asked for.
        wanted: String,
    },
    /// Its file has another size than its record says.
    #[error(
        "the file of {name}, {}, has {got} bytes instead of {expected}; fetch it anew with: \
         myzel model rm {name} && myzel model pull {name}", path.display()
    )]
    WrongSize {
        /// The model.
        name: String,
        /// Its file.
        path: PathBuf,
        /// Bytes by its record.
        expected: u64,
        /// Bytes there are.
        got: u64,
    },
    /// The preflight refuses the file.
    #[error("{} is not a usable model: {source}", path.display())]
    NotAModel {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        source: GgufError,
    },
    /// The file cannot be read.
    #[error(transparent)]
    Read(#[from] WriteError),
    /// The file cannot be found.
    #[error(transparent)]
    File(#[from] FileError),
}

/// A model that is not what its record says, or cannot be checked.
#[derive(Debug, thiserror::Error)]
pub enum VerifyError {
    /// No such model.
    #[error(transparent)]
    Resolve(#[from] ResolveError),
    /// The file cannot be read.
    #[error(transparent)]
    Read(#[from] WriteError),
    /// The file changed since it was stored.
    #[error(
        "the file of {name}, {}, is damaged: {}; fetch it anew with: myzel model rm {name} && myzel model pull {name}",
        path.display(), list(differs)
    )]
    Damaged {
        /// The model.
        name: String,
        /// Its file.
        path: PathBuf,
        /// Each difference between record and file.
        differs: Vec<Mismatch>,
    },
}

fn list(differs: &[Mismatch]) -> String {
    let one = |m: &Mismatch| format!("{} is {}, expected {}", m.what, m.got, m.expected);
    differs.iter().map(one).collect::<Vec<_>>().join("; ")
}

/// A model that cannot be removed.
#[derive(Debug, thiserror::Error)]
pub enum RemoveError {
    /// No such model.
    #[error(transparent)]
    Resolve(#[from] ResolveError),
    /// It belongs to another store.
    #[error("{name} is in another store, {}; remove it there: myzel --data-dir {} model rm {name}", dir.display(), parent(dir).display())]
    Shared {
        /// The model.
        name: String,
        /// The other store.
        dir: PathBuf,
    },
    /// The file cannot be removed.
    #[error(transparent)]
    File(#[from] FileError),
}

/// A model that did not come.
#[derive(Debug, thiserror::Error)]
pub enum PullError {
    /// Nobody knows where to get it.
    #[error(transparent)]
    Unknown(ResolveError),
    /// The name that it should get is not a name.
    #[error("{name:?} cannot be a model's name: {why}")]
    BadName {
        /// The name.
        name: String,
        /// What is wrong.
        why: String,
    },
    /// Another file has the name.
    #[error(
        "another model is called {name} (BLAKE3 {there}); remove it with `myzel model rm {name}`, \
         or give this one another name"
    )]
    NameTaken {
        /// The name.
        name: String,
        /// The file that has it.
        there: Hash,
    },
    /// The same model is being pulled by another process, or another task.
    #[error("{name} is being pulled already; wait until that is done")]
    Busy {
        /// The model.
        name: String,
    },
    /// No room.
    #[error(transparent)]
    Full(DiskFull),
    /// The preflight refuses the file.
    #[error("{what} is not a usable model: {source}; nothing was stored")]
    NotAModel {
        /// Where it came from.
        what: String,
        /// What is wrong.
        source: GgufError,
    },
    /// The file changed while it was read.
    #[error("{} changed while it was read; try again when nobody writes to it", path.display())]
    Changed {
        /// The file.
        path: PathBuf,
    },
    /// No source delivered.
    #[error("{}", all_failed(name, tried))]
    AllFailed {
        /// The model.
        name: String,
        /// Each source and why it did not deliver.
        tried: Vec<(String, FetchError)>,
    },
    /// The blocks of a model cannot be read.
    #[error(transparent)]
    Blocks(#[from] BlocksError),
    /// The blocks that a manifest names, each as it should be, are not the model together.
    #[error(
        "the blocks that the node {} names are not {name}; nothing was stored; do not believe that node's manifests",
        maker.short()
    )]
    FalseManifest {
        /// The model.
        name: String,
        /// Who made the manifest.
        maker: NodeId,
    },
    /// A file could not be read or written.
    #[error(transparent)]
    Write(WriteError),
    /// The store could not be changed.
    #[error(transparent)]
    File(#[from] FileError),
}

impl From<WriteError> for PullError {
    fn from(error: WriteError) -> Self {
        match error {
            WriteError::Full(full) => Self::Full(full),
            other => Self::Write(other),
        }
    }
}

fn all_failed(name: &str, tried: &[(String, FetchError)]) -> String {
    let mut text = format!("{name} could not be fetched.");
    for (source, error) in tried {
        write!(text, "\n  {source}: {error}").expect("writing to memory cannot fail");
    }
    text.push_str(
        "\nTry again later, or fetch the file by hand and run: myzel model pull /path/to/file.gguf",
    );
    text
}
