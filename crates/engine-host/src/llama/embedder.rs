//! One vector for a whole text.

use super::{Input, Model, Pool, take_errors};
use llama_cpp_sys_2 as sys;
use proto::host::EMBED_TOKENS_MAX;
use proto::model::Numerics;
use std::ptr::NonNull;
use std::rc::Rc;
use std::sync::Arc;

/// A context that keeps nothing between texts.
#[derive(Debug)]
pub struct Embedder {
    raw: NonNull<sys::llama_context>,
    tokens_max: u32,
    model: Arc<Model>,
    _pool: Rc<Pool>,
}

impl Embedder {
    /// Makes one over a model, computing on a pool.
    ///
    /// # Errors
    ///
    /// What llama.cpp said, or that the model gives scores instead of vectors.
    pub fn new(model: Arc<Model>, pool: Rc<Pool>, numerics: Numerics) -> Result<Self, String> {
        let tokens_max = model.positions_trained().clamp(1, EMBED_TOKENS_MAX);
        take_errors();
        // SAFETY: the parameters are plain data; model and pool are kept alive by `self`.
        let raw = unsafe {
            let mut params = sys::llama_context_default_params();
            params.n_ctx = tokens_max;
            params.n_seq_max = 1;
            // A text is pooled within one batch.
            params.n_batch = tokens_max;
            params.n_ubatch = tokens_max;
            params.embeddings = true;
            params.no_perf = true;
            params.flash_attn_type = match numerics {
                Numerics::Exact => sys::LLAMA_FLASH_ATTN_TYPE_DISABLED,
                Numerics::Throughput => sys::LLAMA_FLASH_ATTN_TYPE_ENABLED,
            };
            if !model.pools() {
                params.pooling_type = sys::LLAMA_POOLING_TYPE_MEAN;
            }
            sys::llama_init_from_model(model.raw(), params)
        };
        let raw = NonNull::new(raw).ok_or_else(take_errors)?;
        let this = Self {
            raw,
            tokens_max,
            model,
            _pool: pool.clone(),
        };
        // SAFETY: the context is alive, and the pool outlives it.
        let pooling = unsafe {
            sys::llama_attach_threadpool(raw.as_ptr(), pool.raw(), pool.raw());
            sys::llama_pooling_type(raw.as_ptr())
        };
        match pooling {
            sys::LLAMA_POOLING_TYPE_RANK => Err("it ranks texts and has no vectors".to_owned()),
            _ => Ok(this),
        }
    }

    /// Tokens of a text at most.
    #[must_use]
    pub fn tokens_max(&self) -> u32 {
        self.tokens_max
    }

    /// The vector of a text, of length 1.
    ///
    /// # Errors
    ///
    /// What llama.cpp said, or that the vector has no direction.
    pub fn embed(&mut self, text: Input<'_>, threads: u32) -> Result<Vec<f32>, String> {
        let (mut tokens, mut rows) = (Vec::new(), Vec::new());
        let count = match text {
            Input::Tokens(text) => {
                tokens.extend_from_slice(text);
                text.len()
            }
            Input::Rows(values) => {
                rows.extend_from_slice(values);
                values.len() / self.model.embedding_length() as usize
            }
        };
        assert!(
            (1..=self.tokens_max as usize).contains(&count),
            "texts are measured before they are computed"
        );
        let context = self.raw.as_ptr();
        take_errors();
        // SAFETY: the context is alive; the batch borrows `tokens` or `rows`, one of them null, and both outlive the call.
        // The embedding belongs to the context until the next call and has as many numbers as an activation row.
        let row = unsafe {
            sys::llama_set_n_threads(context, threads as i32, threads as i32);
            let memory = sys::llama_get_memory(context);
            if !memory.is_null() {
                sys::llama_memory_clear(memory, false);
            }
            let mut batch = sys::llama_batch_get_one(std::ptr::null_mut(), count as i32);
            if rows.is_empty() {
                batch.token = tokens.as_mut_ptr();
            } else {
                batch.embd = rows.as_mut_ptr();
            }
            if sys::llama_decode(context, batch) != 0 {
                return Err(take_errors());
            }
            let start = sys::llama_get_embeddings_seq(context, 0);
            if start.is_null() {
                return Err("no embedding came out".to_owned());
            }
            std::slice::from_raw_parts(start, self.model.embedding_out() as usize)
        };
        let squares = row.iter().map(|v| f64::from(*v) * f64::from(*v));
        let length = squares.sum::<f64>().sqrt();
        if !length.is_normal() {
            return Err("the embedding has no direction".to_owned());
        }
        Ok(row
            .iter()
            .map(|v| (f64::from(*v) / length) as f32)
            .collect())
    }
}

impl Drop for Embedder {
    fn drop(&mut self) {
        // SAFETY: made in `new`, freed once.
        unsafe { sys::llama_free(self.raw.as_ptr()) }
    }
}
