//! A reply's grammar in llama.cpp's notation, token by token.

use super::shim::{self, RawGrammar, Text};
use crate::llama::Model;
use proto::host::Gbnf;
use std::ptr::NonNull;
use std::sync::Arc;

/// What a reply may look like, and how far it has come.
///
/// For every token: look with [`Self::allows`] whether the one that was drawn fits, or forbid all that do not with
/// [`Self::mask`], which takes longer the larger the vocabulary is; then [`Self::accept`] the one that is taken.
#[derive(Debug)]
pub struct GbnfGrammar {
    raw: NonNull<RawGrammar>,
    // Its vocabulary is used until the grammar is gone.
    model: Arc<Model>,
}

// SAFETY: a grammar refers to nothing but its model's vocabulary, which any thread may read.
unsafe impl Send for GbnfGrammar {}

impl GbnfGrammar {
    /// Reads a grammar.
    ///
    /// # Errors
    ///
    /// What is wrong with its rules or triggers, for people.
    pub fn new(model: &Arc<Model>, gbnf: &Gbnf) -> Result<Self, String> {
        if model.vocabulary() == 0 {
            return Err("this stage has no vocabulary".to_owned());
        }
        let spec = serde_json::json!({
            "rules": gbnf.rules,
            "triggers": gbnf.triggers,
            "trigger_tokens": gbnf.trigger_tokens,
            "prefix": gbnf.prefix,
            "thinking_start": gbnf.thinking_start,
            "thinking_ends": gbnf.thinking_ends,
        })
        .to_string();
        let mut why = Text::NONE;
        // SAFETY: the vocabulary lives as long as the model, which is kept; the texts outlive the call.
        let raw = unsafe { shim::mz_grammar_new(model.vocab(), spec.as_str().into(), &mut why) };
        Self::over(raw, model.clone(), why)
    }

    fn over(raw: *mut RawGrammar, model: Arc<Model>, why: Text) -> Result<Self, String> {
        NonNull::new(raw)
            .map(|raw| Self { raw, model })
            .ok_or_else(|| why.take())
    }

    /// The same grammar, as far as it has come. The rules are copied, so this is for whoever looks ahead.
    ///
    /// # Errors
    ///
    /// When there is no memory for it.
    pub fn try_clone(&self) -> Result<Self, String> {
        let mut why = Text::NONE;
        // SAFETY: the grammar lives, and is only read.
        let raw = unsafe { shim::mz_grammar_copy(self.raw.as_ptr(), &mut why) };
        Self::over(raw, self.model.clone(), why)
    }

    /// Whether the reply is still free, as no trigger has struck.
    #[must_use]
    pub fn waits(&self) -> bool {
        // SAFETY: the grammar lives.
        unsafe { shim::mz_grammar_waits(self.raw.as_ptr()) }
    }

    /// Whether a token may come next. One that is not in the vocabulary may not.
    #[must_use]
    pub fn allows(&self, token: i32) -> bool {
        let (mut allows, mut why) = (false, Text::NONE);
        // SAFETY: the grammar lives; llama.cpp reads it.
        let done =
            unsafe { shim::mz_grammar_allows(self.raw.as_ptr(), token, &mut allows, &mut why) };
        done && allows
    }

    /// Sets the logits of all tokens that may not come next to −∞; `logits` has one for each of the vocabulary.
    ///
    /// # Errors
    ///
    /// When `logits` has another length, or there is no memory for it; the logits are useless then.
    pub fn mask(&self, logits: &mut [f32]) -> Result<(), String> {
        if logits.len() != self.model.vocabulary() as usize {
            return Err("there must be one logit for each token of the vocabulary".to_owned());
        }
        let mut why = Text::NONE;
        // SAFETY: the grammar lives; the shim writes within the length given.
        let done = unsafe {
            let (start, count) = (logits.as_mut_ptr(), logits.len());
            shim::mz_grammar_mask(self.raw.as_ptr(), start, count, &mut why)
        };
        if done { Ok(()) } else { Err(why.take()) }
    }

    /// Goes on behind a token that was taken.
    ///
    /// # Errors
    ///
    /// When it may not come next. From then on nothing may.
    pub fn accept(&mut self, token: i32) -> Result<(), String> {
        let mut why = Text::NONE;
        // SAFETY: the grammar lives, and nobody else refers to it.
        let done = unsafe { shim::mz_grammar_accept(self.raw.as_ptr(), token, &mut why) };
        if done { Ok(()) } else { Err(why.take()) }
    }
}

impl Drop for GbnfGrammar {
    fn drop(&mut self) {
        // SAFETY: made by the shim, and nobody else refers to it.
        unsafe { shim::mz_grammar_free(self.raw.as_ptr()) }
    }
}
