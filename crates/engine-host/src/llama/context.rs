//! A context: a model's caches and the computation of steps.

use super::{Adapter, Model, Pool, take_errors};
use llama_cpp_sys_2 as sys;
use proto::host::KvType;
use proto::model::Numerics;
use std::ffi::{CString, c_void};
use std::fmt;
use std::ptr::NonNull;
use std::rc::Rc;
use std::sync::Arc;

/// How a context is to be made.
#[derive(Debug, Clone, Copy)]
pub struct ContextSpec {
    /// The numerics mode.
    pub numerics: Numerics,
    /// Positions of each sequence's cache.
    pub positions_max: u32,
    /// Sequences at once.
    pub sequences: u32,
    /// Rows of one step at most.
    pub step_rows_max: u32,
    /// Whether activations leave the last layer; else logits leave the output head.
    pub activations_out: bool,
    /// How cache entries are kept.
    pub kv: KvType,
    /// How far positions are stretched; 1 leaves them as the model was trained.
    pub rope_scale: f32,
    /// Rows of one step whose logits are wanted, at most, where memory is only counted; 0 is all of them. llama.cpp
    /// reserves addresses for all, but only those that are written become memory.
    pub outputs_max: u32,
}

/// What a slice's rows are computed from.
#[derive(Debug, Clone, Copy)]
pub enum Input<'a> {
    /// Tokens, one a row.
    Tokens(&'a [i32]),
    /// Activations, embedding length numbers a row.
    Rows(&'a [f32]),
}

/// What a slice wants to know. Contexts with activations out always answer every row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wanted {
    /// Nothing: only the cache matters.
    Nothing,
    /// The last row.
    Last,
    /// Every row.
    All,
}

/// Consecutive rows of one sequence in a step.
#[derive(Debug, Clone, Copy)]
pub struct Slice<'a> {
    /// The sequence's index in the context.
    pub sequence: u32,
    /// The position of the first row.
    pub position: u32,
    /// The rows.
    pub input: Input<'a>,
    /// What comes out.
    pub wanted: Wanted,
}

/// Why a step was not computed.
#[derive(Debug, thiserror::Error)]
pub enum StepError {
    /// No free cells in the cache.
    #[error("the KV cache has no free cells")]
    NoRoom,
    /// llama.cpp refused or failed.
    #[error("llama.cpp failed with code {code}: {why}")]
    Failed {
        /// Its return code.
        code: i32,
        /// Its words.
        why: String,
    },
    /// Another number of rows came out than went in: this model family cannot be tapped.
    #[error("{got} activation rows came out of a step of {expected}: this model cannot be staged")]
    Untapped {
        /// Rows that went in.
        expected: usize,
        /// Rows that came out.
        got: usize,
    },
}

/// What the evaluation callback watches and gathers.
struct Tap {
    name: CString,
    values: Vec<f32>,
}

/// A model's caches for several sequences, and the steps over them.
pub struct Context {
    raw: NonNull<sys::llama_context>,
    batch: sys::llama_batch,
    /// The activations that go in, side by side.
    staged: Vec<f32>,
    tap: Option<Box<Tap>>,
    embedding_length: usize,
    vocabulary: usize,
    spec: ContextSpec,
    kv_type: String,
    /// The adapters of the newest step, kept alive for llama.cpp, which holds pointers to them.
    adapters: Vec<(Rc<Adapter>, f32)>,
    model: Arc<Model>,
    _pool: Rc<Pool>,
}

impl fmt::Debug for Context {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Context")
            .field("spec", &self.spec)
            .finish_non_exhaustive()
    }
}

/// Copies the watched tensor out and ends the graph there: norm and head behind it are not wanted.
unsafe extern "C" fn tap(tensor: *mut sys::ggml_tensor, ask: bool, data: *mut c_void) -> bool {
    // SAFETY: `data` is the `Tap` that the context owns and that outlives it; llama.cpp calls us only inside
    // `llama_decode`, on the thread that holds the context mutably, and nobody else has a reference then.
    let tap = unsafe { &mut *data.cast::<Tap>() };
    // SAFETY: ggml terminates tensor names.
    let hit = unsafe { std::ffi::CStr::from_ptr((*tensor).name.as_ptr()) } == tap.name.as_c_str();
    if ask || !hit {
        return if ask { hit } else { true };
    }
    // SAFETY: the tensor is computed (ask is false), contiguous f32 of that many elements.
    unsafe {
        let count = sys::ggml_nelements(tensor) as usize;
        let start = tap.values.len();
        tap.values.resize(start + count, 0.0);
        let out = tap.values[start..].as_mut_ptr().cast();
        sys::ggml_backend_tensor_get(tensor, out, 0, count * size_of::<f32>());
    }
    false
}

impl Context {
    /// Makes a context over a model, computing on a pool.
    ///
    /// # Errors
    ///
    /// What llama.cpp said, most often that memory is short.
    pub fn new(model: Arc<Model>, pool: Rc<Pool>, spec: ContextSpec) -> Result<Self, String> {
        let mut tap_data = spec.activations_out.then(|| {
            let name = CString::new(format!("l_out-{}", model.layers().saturating_sub(1)));
            Box::new(Tap {
                name: name.expect("digits"),
                values: Vec::new(),
            })
        });
        take_errors();
        let mut params = Self::params(&spec);
        let kv_type = Model::type_name(params.type_k);
        if let Some(data) = &mut tap_data {
            params.cb_eval = Some(tap);
            params.cb_eval_user_data = std::ptr::from_mut::<Tap>(data.as_mut()).cast();
        }
        // SAFETY: the model is loaded and kept alive by `self.model`, the tap by `self.tap`, the pool by `self._pool`.
        let raw = unsafe { sys::llama_init_from_model(model.raw(), params) };
        let raw = NonNull::new(raw).ok_or_else(take_errors)?;
        let embedding_length = model.embedding_length() as usize;
        // SAFETY: plain allocation by llama.cpp, freed in `Drop`; activations are in `staged` instead.
        let batch = unsafe {
            sys::llama_attach_threadpool(raw.as_ptr(), pool.raw(), pool.raw());
            let nothing = std::ptr::null_mut();
            sys::llama_set_abort_callback(raw.as_ptr(), Some(super::pauses::paused), nothing);
            sys::llama_batch_init(spec.step_rows_max as i32, 0, 1)
        };
        Ok(Self {
            raw,
            batch,
            staged: Vec::new(),
            tap: tap_data,
            embedding_length,
            vocabulary: model.vocabulary() as usize,
            spec,
            kv_type,
            adapters: Vec::new(),
            model,
            _pool: pool,
        })
    }

    fn params(spec: &ContextSpec) -> sys::llama_context_params {
        // SAFETY: returns plain data.
        let mut params = unsafe { sys::llama_context_default_params() };
        params.n_ctx = spec.positions_max.saturating_mul(spec.sequences);
        params.n_seq_max = spec.sequences;
        params.n_batch = spec.step_rows_max;
        params.n_ubatch = spec.step_rows_max;
        params.n_outputs_max = spec.outputs_max;
        params.no_perf = true;
        // Caches must be cut back to any length; a sliding-window cache of minimal size could not be.
        params.swa_full = true;
        // One stream a sequence: with a unified cache a row's bits depend on its neighbours.
        params.kv_unified = false;
        params.flash_attn_type = match spec.numerics {
            Numerics::Exact => sys::LLAMA_FLASH_ATTN_TYPE_DISABLED,
            Numerics::Throughput => sys::LLAMA_FLASH_ATTN_TYPE_ENABLED,
        };
        let kv = match spec.kv {
            KvType::F16 => sys::GGML_TYPE_F16,
            KvType::Q8_0 => sys::GGML_TYPE_Q8_0,
            KvType::Q4_0 => sys::GGML_TYPE_Q4_0,
        };
        (params.type_k, params.type_v) = (kv, kv);
        if spec.rope_scale > 1.0 {
            // The other numbers of YaRN are the model's own, or its paper's.
            params.rope_scaling_type = sys::LLAMA_ROPE_SCALING_TYPE_YARN;
            params.rope_freq_scale = 1.0 / spec.rope_scale;
        }
        params
    }

    /// The model.
    #[must_use]
    pub fn model(&self) -> &Model {
        &self.model
    }

    /// The model, to be shared.
    #[must_use]
    pub fn shared_model(&self) -> Arc<Model> {
        self.model.clone()
    }

    /// Computes the next steps with these adapters, each with its scale, and no others.
    pub fn set_adapters(&mut self, adapters: &[(Rc<Adapter>, f32)]) {
        let mut pointers: Vec<_> = adapters.iter().map(|(adapter, _)| adapter.raw()).collect();
        let mut scales: Vec<f32> = adapters.iter().map(|(_, scale)| *scale).collect();
        let (first, scale) = (pointers.as_mut_ptr(), scales.as_mut_ptr());
        // SAFETY: both lists are as long as said and only read; the adapters live in `self.adapters` as long as
        // llama.cpp points to them: the old ones are let go only after it has forgotten them.
        unsafe { sys::llama_set_adapters_lora(self.raw.as_ptr(), first, adapters.len(), scale) };
        self.adapters = adapters.to_vec();
    }

    pub(super) fn raw(&self) -> *const sys::llama_context {
        self.raw.as_ptr()
    }

    /// The type of cache entries, in ggml's words.
    #[must_use]
    pub fn kv_type(&self) -> &str {
        &self.kv_type
    }

    /// Numbers in a row that comes out.
    #[must_use]
    pub fn row_length(&self) -> usize {
        if self.tap.is_some() {
            self.embedding_length
        } else {
            self.vocabulary
        }
    }

    /// Sets how many threads of the pool the next steps use.
    pub fn set_threads(&mut self, threads: u32) {
        // SAFETY: the context is alive; the pool has at least one thread.
        unsafe { sys::llama_set_n_threads(self.raw.as_ptr(), threads as i32, threads as i32) }
    }

    /// Computes one step and returns each slice's rows that were wanted, one after the other.
    ///
    /// Slices come in growing order of their sequences. Where activations leave, a step is either one slice of any
    /// length, or several slices of one row each: only then does llama.cpp keep the rows in our order, which the tap
    /// relies on.
    ///
    /// # Errors
    ///
    /// [`StepError`]; the caches are then as before, but for the slices' own positions, which the caller trims.
    ///
    /// # Panics
    ///
    /// When the slices break the rule above or are longer than `step_rows_max`: our own bug.
    pub fn step(&mut self, slices: &[Slice<'_>]) -> Result<Vec<Vec<f32>>, StepError> {
        let rows = self.fill(slices);
        if let Some(tap) = &mut self.tap {
            tap.values.clear();
        }
        take_errors();
        // llama.cpp takes either tokens or activations and looks at which pointer is set.
        let mut batch = self.batch;
        if !self.staged.is_empty() {
            batch.token = std::ptr::null_mut();
            batch.embd = self.staged.as_mut_ptr();
        }
        // SAFETY: the batch holds `rows` rows, filled above; its buffers live in `self`.
        match unsafe { sys::llama_decode(self.raw.as_ptr(), batch) } {
            0 => self.gather(slices, rows),
            1 => Err(StepError::NoRoom),
            code => Err(StepError::Failed {
                code,
                why: take_errors(),
            }),
        }
    }

    /// Fills the batch and returns its number of rows.
    fn fill(&mut self, slices: &[Slice<'_>]) -> usize {
        let ordered = slices.windows(2).all(|w| w[0].sequence < w[1].sequence);
        let mut row = 0usize;
        self.staged.clear();
        for slice in slices {
            if let Input::Rows(values) = slice.input {
                self.staged.extend_from_slice(values);
            }
            let count = self.rows_of(slice);
            assert!(
                slices.len() == 1 || (ordered && (count == 1 || self.tap.is_none())),
                "a step mixes long slices"
            );
            assert!(
                row + count <= self.spec.step_rows_max as usize,
                "a step is too long"
            );
            for i in 0..count {
                let out = match slice.wanted {
                    _ if self.tap.is_some() => true,
                    Wanted::Nothing => false,
                    Wanted::Last => i + 1 == count,
                    Wanted::All => true,
                };
                // SAFETY: `row < step_rows_max`, the size that the batch was made with.
                unsafe {
                    *self.batch.pos.add(row) = (slice.position as usize + i) as i32;
                    *self.batch.n_seq_id.add(row) = 1;
                    **self.batch.seq_id.add(row) = slice.sequence as i32;
                    *self.batch.logits.add(row) = i8::from(out);
                    if let Input::Tokens(tokens) = slice.input {
                        *self.batch.token.add(row) = tokens[i];
                    }
                }
                row += 1;
            }
        }
        self.batch.n_tokens = row as i32;
        row
    }

    /// How many rows a slice has.
    pub(crate) fn rows_of(&self, slice: &Slice<'_>) -> usize {
        match slice.input {
            Input::Tokens(tokens) => tokens.len(),
            Input::Rows(values) => values.len() / self.embedding_length,
        }
    }

    fn gather(&self, slices: &[Slice<'_>], rows: usize) -> Result<Vec<Vec<f32>>, StepError> {
        if let Some(tap) = &self.tap {
            let got = tap.values.len() / self.embedding_length;
            if got != rows {
                return Err(StepError::Untapped {
                    expected: rows,
                    got,
                });
            }
            let mut rest = tap.values.as_slice();
            let cut = |slice| {
                let (mine, behind) = rest.split_at(self.rows_of(slice) * self.embedding_length);
                rest = behind;
                mine.to_vec()
            };
            return Ok(slices.iter().map(cut).collect());
        }
        let mut row = 0;
        let take = |slice: &Slice<'_>| {
            let count = self.rows_of(slice);
            row += count;
            let wanted = match slice.wanted {
                Wanted::Nothing => row..row,
                Wanted::Last => row - 1..row,
                Wanted::All => row - count..row,
            };
            let mut values = Vec::with_capacity(wanted.len() * self.vocabulary);
            for i in wanted {
                values.extend_from_slice(self.logits(i));
            }
            values
        };
        Ok(slices.iter().map(take).collect())
    }

    /// The logits of a row of the newest step that was marked as an output.
    fn logits(&self, row: usize) -> &[f32] {
        // SAFETY: the row was marked as an output, so llama.cpp holds `vocabulary` values for it until the next step.
        unsafe {
            let start = sys::llama_get_logits_ith(self.raw.as_ptr(), row as i32);
            assert!(!start.is_null(), "row {row} was marked as an output");
            std::slice::from_raw_parts(start, self.vocabulary)
        }
    }

    /// Copies a sequence's whole cache over another's; computed with the next step.
    pub fn copy(&mut self, from: u32, to: u32) {
        // SAFETY: the context is alive; both sequences are below `n_seq_max`, and each has a stream of its own, for
        // which llama.cpp copies only whole caches: the negative bounds say all positions.
        unsafe {
            let memory = sys::llama_get_memory(self.raw.as_ptr());
            sys::llama_memory_seq_cp(memory, from as i32, to as i32, -1, -1);
        }
    }

    /// Forgets a sequence's positions from `length` on; says whether the cache could be cut there.
    pub fn trim(&mut self, sequence: u32, length: u32) -> bool {
        // SAFETY: the context is alive; sequences are below `n_seq_max`.
        unsafe {
            let memory = sys::llama_get_memory(self.raw.as_ptr());
            sys::llama_memory_seq_rm(memory, sequence as i32, length as i32, -1)
        }
    }
}

impl Drop for Context {
    fn drop(&mut self) {
        // SAFETY: both were made by llama.cpp in `new` and are freed once; rows were only borrowed during a step.
        unsafe {
            sys::llama_batch_free(self.batch);
            sys::llama_free(self.raw.as_ptr());
        }
    }
}
