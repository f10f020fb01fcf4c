//! LoRA adapters that sessions may use: loading, checking, and sets of them.
//!
//! llama.cpp computes a whole step with one set, so sessions with different sets never share a step; nor do they share
//! what earlier prompts left in the caches, since it was computed with other weights ([`AdapterSet::fold`]).

use crate::llama::{Adapter, Model};
use proto::gguf::{Header, Tensor, Value};
use proto::host::{ADAPTER_BYTES_MAX, ADAPTER_NAME_BYTES_MAX, ADAPTER_SCALE_MAX, ADAPTERS_MAX};
use proto::host::{AdapterUse, LoadAdapter};
use proto::ids::{Hash, ShareScope};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;

/// The types in which an adapter's matrices may be.
const TYPES: [&str; 4] = ["f32", "f16", "bf16", "q8_0"];

/// Why an adapter is not loaded or not used.
#[derive(Debug, thiserror::Error)]
pub enum AdapterError {
    /// No directory was named when the engine was started.
    #[error("this engine was started without a directory of adapters")]
    NoDirectory,
    /// The name of the adapter or of its file is not one.
    #[error(
        "{0:?} is not a name for this: an adapter's has 1 to {ADAPTER_NAME_BYTES_MAX} bytes, and its file lies directly in \
         the directory of adapters"
    )]
    Name(String),
    /// The name is taken.
    #[error("an adapter {0:?} is loaded already; unload it first")]
    Taken(String),
    /// No place is left.
    #[error("{ADAPTERS_MAX} adapters are loaded, which is the most; unload one first")]
    Full,
    /// No adapter of that name.
    #[error("no adapter {0:?} is loaded")]
    Unknown(String),
    /// Sessions use it.
    #[error("the adapter {0:?} is in use; wait until its requests have ended")]
    InUse(String),
    /// A set that makes no sense.
    #[error(
        "a request uses at most {ADAPTERS_MAX} adapters, each once and with a scale from -{ADAPTER_SCALE_MAX} to \
         {ADAPTER_SCALE_MAX}"
    )]
    Set,
    /// The session began with other adapters.
    #[error("the session was begun with other adapters")]
    Changed,
    /// The file is not an adapter that can be used.
    #[error("the adapter file {file:?} cannot be used: {why}")]
    File {
        /// Its name.
        file: String,
        /// What is wrong.
        why: String,
    },
}

/// The adapters that a session computes with, in the order of their names.
#[derive(Debug, Clone, Default)]
pub struct AdapterSet(Vec<(u64, Rc<Adapter>, f32)>);

impl PartialEq for AdapterSet {
    fn eq(&self, other: &Self) -> bool {
        self.key().eq(other.key())
    }
}

impl AdapterSet {
    fn key(&self) -> impl Iterator<Item = (u64, u32)> {
        let key = |(number, _, scale): &(u64, Rc<Adapter>, f32)| (*number, scale.to_bits());
        self.0.iter().map(key)
    }

    /// The adapters with their scales.
    #[must_use]
    pub fn pairs(&self) -> Vec<(Rc<Adapter>, f32)> {
        let pair = |(_, adapter, scale): &(u64, Rc<Adapter>, f32)| (adapter.clone(), *scale);
        self.0.iter().map(pair).collect()
    }

    /// The scope inside which a session with this set shares: with sessions of the same set alone.
    #[must_use]
    pub fn fold(&self, scope: ShareScope) -> ShareScope {
        if self.0.is_empty() {
            return scope;
        }
        let mut text = scope.0.to_vec();
        for (number, scale) in self.key() {
            text.extend(number.to_le_bytes());
            text.extend(scale.to_le_bytes());
        }
        let mut folded = ShareScope([0; 16]);
        let hash = Hash::of(&text).0;
        folded.0.copy_from_slice(&hash[..16]);
        folded
    }
}

/// The adapters that are loaded.
#[derive(Debug, Default)]
pub struct Shelf {
    dir: Option<PathBuf>,
    /// By name, with a number that no other adapter ever had: a name may be given again.
    loaded: BTreeMap<String, (u64, Rc<Adapter>)>,
    next: u64,
}

impl Shelf {
    /// An empty one; files come from `dir` alone.
    #[must_use]
    pub fn new(dir: Option<&String>) -> Self {
        Self {
            dir: dir.map(PathBuf::from),
            ..Self::default()
        }
    }

    /// Loads an adapter for a model.
    ///
    /// # Errors
    ///
    /// [`AdapterError`]; nothing has changed then.
    pub fn load(&mut self, model: Arc<Model>, what: LoadAdapter) -> Result<(), AdapterError> {
        let LoadAdapter { name, file } = what;
        let dir = self.dir.as_ref().ok_or(AdapterError::NoDirectory)?;
        if name.is_empty() || name.len() > ADAPTER_NAME_BYTES_MAX {
            return Err(AdapterError::Name(name));
        }
        // One plain part: no directory, neither this one nor the one above, and no drive or root.
        if Path::new(&file)
            .file_name()
            .is_none_or(|plain| plain != file.as_str())
        {
            return Err(AdapterError::Name(file));
        }
        if self.loaded.contains_key(&name) {
            return Err(AdapterError::Taken(name));
        }
        if self.loaded.len() >= ADAPTERS_MAX {
            return Err(AdapterError::Full);
        }
        let path = dir.join(&file);
        let adapter = check(&path, &model.architecture())
            .and_then(|()| Adapter::load(model, &path))
            .map_err(|why| AdapterError::File { file, why })?;
        self.next += 1;
        self.loaded.insert(name, (self.next, Rc::new(adapter)));
        Ok(())
    }

    /// Forgets an adapter that none of `sets` uses.
    ///
    /// # Errors
    ///
    /// [`AdapterError::Unknown`] or [`AdapterError::InUse`].
    pub fn unload<'a>(
        &mut self,
        name: &str,
        mut sets: impl Iterator<Item = &'a AdapterSet>,
    ) -> Result<(), AdapterError> {
        let unknown = || AdapterError::Unknown(name.to_owned());
        let number = self.loaded.get(name).ok_or_else(unknown)?.0;
        if sets.any(|set| set.key().any(|(used, _)| used == number)) {
            return Err(AdapterError::InUse(name.to_owned()));
        }
        self.loaded.remove(name);
        Ok(())
    }

    /// The set that a run names.
    ///
    /// # Errors
    ///
    /// [`AdapterError::Unknown`] or [`AdapterError::Set`].
    pub fn set(&self, uses: &[AdapterUse]) -> Result<AdapterSet, AdapterError> {
        let mut set = BTreeMap::new();
        for AdapterUse { name, scale } in uses {
            let unknown = || AdapterError::Unknown(name.clone());
            let (number, adapter) = self.loaded.get(name).ok_or_else(unknown)?;
            let sane = (-ADAPTER_SCALE_MAX..=ADAPTER_SCALE_MAX).contains(scale);
            let once = set
                .insert(name, (*number, adapter.clone(), *scale))
                .is_none();
            if !sane || !once {
                return Err(AdapterError::Set);
            }
        }
        // A scale of nothing is no adapter.
        let used = set.into_values().filter(|(_, _, scale)| *scale != 0.0);
        Ok(AdapterSet(used.collect()))
    }
}

/// Checks what llama.cpp does not, or checks with an assert.
fn check(path: &Path, architecture: &str) -> Result<(), String> {
    let kind = std::fs::symlink_metadata(path).map_err(|error| error.to_string())?;
    if !kind.is_file() {
        return Err("it is not a plain file".to_owned());
    }
    if kind.len() > ADAPTER_BYTES_MAX {
        let bytes = kind.len();
        return Err(format!(
            "it has {bytes} bytes, and {ADAPTER_BYTES_MAX} are the most"
        ));
    }
    let file = std::fs::File::open(path).map_err(|error| error.to_string())?;
    let header = Header::read_adapter(std::io::BufReader::new(file), kind.len());
    check_header(&header.map_err(|error| error.to_string())?, architecture)
}

fn check_header(header: &Header, architecture: &str) -> Result<(), String> {
    let is = |key: &str, wanted: &str| match header.metadata().text(key) {
        Some(text) if text == wanted => Ok(()),
        got => Err(format!("its {key} is {got:?}, not {wanted:?}")),
    };
    is("general.type", "adapter")?;
    is("adapter.type", "lora")?;
    is("general.architecture", architecture)?;
    match header.metadata().get("adapter.lora.alpha") {
        Some(Value::F32(alpha)) if alpha.is_finite() => {}
        _ => return Err("it has no adapter.lora.alpha that is a 32-bit float".to_owned()),
    }
    if header
        .metadata()
        .get("adapter.alora.invocation_tokens")
        .is_some()
    {
        return Err(
            "adapters that begin in the middle of a prompt (aLoRA) are not known here".to_owned(),
        );
    }
    if header.tensors().is_empty() {
        return Err("it has no tensors".to_owned());
    }
    header.tensors().iter().try_for_each(check_tensor)
}

fn check_tensor(tensor: &Tensor) -> Result<(), String> {
    let Tensor {
        name, dims, kind, ..
    } = tensor;
    let pair = [".weight.lora_a", ".weight.lora_b"];
    if !name.starts_with("blk.") || !pair.iter().any(|end| name.ends_with(end)) {
        return Err(format!(
            "it changes {name:?}, and only the matrices of layers can be adapted"
        ));
    }
    if dims.len() != 2 || name.contains("_exps.") {
        return Err(format!(
            "{name:?} is no plain matrix; adapted experts are not known here"
        ));
    }
    if !TYPES.contains(&kind.name()) {
        return Err(format!(
            "{name:?} is of type {}, which adapters are not made of",
            kind.name()
        ));
    }
    Ok(())
}
