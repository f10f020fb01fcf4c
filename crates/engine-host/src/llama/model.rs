//! A loaded model file and its vocabulary.

use super::{start, take_errors};
use llama_cpp_sys_2 as sys;
use std::ffi::{CStr, CString, c_char};
use std::ptr::NonNull;

/// Why a model file was not loaded.
#[derive(Debug, thiserror::Error)]
#[error("llama.cpp cannot load {file}: {why}")]
pub struct LoadError {
    /// The first file.
    pub file: String,
    /// What llama.cpp said.
    pub why: String,
}

/// Why text could not be turned into tokens.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TextError {
    /// This stage has no vocabulary.
    #[error("this stage has no vocabulary")]
    NoVocabulary,
    /// More than `i32::MAX` tokens or bytes.
    #[error("the text is too long for the tokenizer")]
    TooLong,
}

/// What becomes of the weights in a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reading {
    /// They are mapped, to compute with.
    Mapped,
    /// Their memory is counted, and nothing is read or reserved.
    Counted,
}

/// A model in memory (mapped from its file).
#[derive(Debug)]
pub struct Model {
    raw: NonNull<sys::llama_model>,
}

// SAFETY: nothing here changes a loaded model, and llama.cpp's functions that take it as constant, or its vocabulary, only
// read it. Contexts and adapters, which write beside what these functions read, stay on one thread.
unsafe impl Send for Model {}
// SAFETY: as above.
unsafe impl Sync for Model {}

impl Model {
    /// Loads a model from its file, or from the splits of one in their order.
    ///
    /// # Errors
    ///
    /// [`LoadError`] with llama.cpp's own words.
    pub fn load(files: &[String], reading: Reading) -> Result<Self, LoadError> {
        start();
        let name = files.first().cloned().unwrap_or_default();
        let fault = |why: String| LoadError {
            file: name.clone(),
            why,
        };
        let paths: Vec<CString> = files
            .iter()
            .map(|file| CString::new(file.as_str()))
            .collect::<Result<_, _>>()
            .map_err(|_| fault("its name contains a zero byte".into()))?;
        let mut pointers: Vec<*const c_char> = paths.iter().map(|path| path.as_ptr()).collect();
        take_errors();
        // SAFETY: the pointers refer to terminated strings that outlive the call.
        let raw = unsafe {
            let mut params = sys::llama_model_default_params();
            params.n_gpu_layers = 0;
            if reading == Reading::Counted {
                params.no_alloc = true;
                params.load_mode = sys::LLAMA_LOAD_MODE_NONE;
            }
            match pointers.as_mut_slice() {
                [] => return Err(fault("no file was named".into())),
                [one] => sys::llama_model_load_from_file(*one, params),
                many => sys::llama_model_load_from_splits(many.as_mut_ptr(), many.len(), params),
            }
        };
        NonNull::new(raw)
            .map(|raw| Self { raw })
            .ok_or_else(|| fault(take_errors()))
    }

    pub(crate) fn raw(&self) -> *mut sys::llama_model {
        self.raw.as_ptr()
    }

    pub(crate) fn vocab(&self) -> *const sys::llama_vocab {
        // SAFETY: the model is loaded; the vocabulary lives as long as it.
        unsafe { sys::llama_model_get_vocab(self.raw()) }
    }

    /// `general.architecture`.
    #[must_use]
    pub fn architecture(&self) -> String {
        self.meta("general.architecture").unwrap_or_default()
    }

    fn meta(&self, key: &str) -> Option<String> {
        let key = CString::new(key).ok()?;
        let mut buffer = [0u8; 256];
        // SAFETY: writes at most the given length, terminated.
        let length = unsafe {
            sys::llama_model_meta_val_str(
                self.raw(),
                key.as_ptr(),
                buffer.as_mut_ptr().cast(),
                buffer.len(),
            )
        };
        let text = buffer.get(..usize::try_from(length).ok()?)?;
        Some(String::from_utf8_lossy(text).into_owned())
    }

    /// How many layers the file holds.
    #[must_use]
    pub fn layers(&self) -> u32 {
        // SAFETY: the model is loaded.
        unsafe { sys::llama_model_n_layer(self.raw()) as u32 }
    }

    /// Numbers in an activation row.
    #[must_use]
    pub fn embedding_length(&self) -> u32 {
        // SAFETY: the model is loaded.
        unsafe { sys::llama_model_n_embd(self.raw()) as u32 }
    }

    /// Numbers in an embedding.
    #[must_use]
    pub fn embedding_out(&self) -> u32 {
        // SAFETY: the model is loaded.
        unsafe { sys::llama_model_n_embd_out(self.raw()) as u32 }
    }

    /// Whether the file says how the rows of a text become one embedding.
    #[must_use]
    pub fn pools(&self) -> bool {
        let said = self.meta(&format!("{}.pooling_type", self.architecture()));
        said.is_some_and(|kind| kind != "0")
    }

    /// Positions that the model was trained for.
    #[must_use]
    pub fn positions_trained(&self) -> u32 {
        // SAFETY: the model is loaded.
        unsafe { sys::llama_model_n_ctx_train(self.raw()) as u32 }
    }

    /// Whether positions can be stretched: they are rotations, and the file does not stretch them already.
    #[must_use]
    pub fn stretches(&self) -> bool {
        // SAFETY: the model is loaded.
        unsafe {
            let rotates = sys::llama_model_rope_type(self.raw()) != sys::LLAMA_ROPE_TYPE_NONE;
            rotates && sys::llama_model_rope_freq_scale_train(self.raw()) == 1.0
        }
    }

    /// Whether a cache can be cut back to any length.
    #[must_use]
    pub fn trims(&self) -> bool {
        // SAFETY: the model is loaded.
        unsafe {
            !sys::llama_model_is_recurrent(self.raw()) && !sys::llama_model_is_hybrid(self.raw())
        }
    }

    /// Numbers in a row of logits; 0 without a vocabulary.
    #[must_use]
    pub fn vocabulary(&self) -> u32 {
        // SAFETY: the vocabulary belongs to the loaded model.
        unsafe {
            match sys::llama_vocab_type(self.vocab()) {
                sys::LLAMA_VOCAB_TYPE_NONE => 0,
                _ => sys::llama_vocab_n_tokens(self.vocab()) as u32,
            }
        }
    }

    /// Text to tokens.
    ///
    /// # Errors
    ///
    /// [`TextError`] without a vocabulary, or for text over 2 GiB.
    pub fn tokenize(&self, text: &str, special: bool, parse: bool) -> Result<Vec<i32>, TextError> {
        if self.vocabulary() == 0 {
            return Err(TextError::NoVocabulary);
        }
        let bytes = i32::try_from(text.len()).map_err(|_| TextError::TooLong)?;
        // A token takes at least one byte of text, but for the special ones at the ends.
        let mut tokens = vec![0i32; text.len() + 8];
        let room = i32::try_from(tokens.len()).map_err(|_| TextError::TooLong)?;
        // SAFETY: writes at most `room` tokens; the text's length is given.
        let count = unsafe {
            let start = text.as_ptr().cast();
            let out = tokens.as_mut_ptr();
            sys::llama_tokenize(self.vocab(), start, bytes, out, room, special, parse)
        };
        tokens.truncate(usize::try_from(count).map_err(|_| TextError::TooLong)?);
        Ok(tokens)
    }

    /// The bytes of a token's text; empty for control tokens.
    #[must_use]
    pub fn piece(&self, token: i32) -> Vec<u8> {
        self.text(token, false)
    }

    /// The bytes of a token's text, or a control token's name.
    #[must_use]
    pub fn name(&self, token: i32) -> Vec<u8> {
        self.text(token, true)
    }

    fn text(&self, token: i32, control: bool) -> Vec<u8> {
        let mut buffer = vec![0u8; 64];
        loop {
            let room = buffer.len() as i32;
            // SAFETY: writes at most `room` bytes.
            let count = unsafe {
                let out = buffer.as_mut_ptr().cast();
                sys::llama_token_to_piece(self.vocab(), token, out, room, 0, control)
            };
            match usize::try_from(count) {
                Ok(count) => {
                    buffer.truncate(count);
                    return buffer;
                }
                Err(_) => buffer.resize(count.unsigned_abs() as usize, 0),
            }
        }
    }

    /// Whether a token is in the vocabulary.
    #[must_use]
    pub fn knows(&self, token: i32) -> bool {
        u32::try_from(token).is_ok_and(|token| token < self.vocabulary())
    }

    /// Whether a token ends a generation.
    #[must_use]
    pub fn ends(&self, token: i32) -> bool {
        // SAFETY: the token came from this vocabulary.
        unsafe { sys::llama_vocab_is_eog(self.vocab(), token) }
    }

    /// Whether the file brings a chat template.
    #[must_use]
    pub fn has_template(&self) -> bool {
        let names = [std::ptr::null(), c"tool_use".as_ptr()];
        // SAFETY: the model is loaded; a name is null or terminated.
        names
            .into_iter()
            .any(|name| unsafe { !sys::llama_model_chat_template(self.raw(), name).is_null() })
    }

    /// The texts of tokens that are more than text, and whether they are found only where control tokens are looked for.
    #[must_use]
    pub fn special_texts(&self) -> Vec<(String, bool)> {
        let text = |token: i32| {
            // SAFETY: the token is in the vocabulary; its text is terminated and lives as long as the vocabulary.
            let (attributes, text) = unsafe {
                let text = CStr::from_ptr(sys::llama_vocab_get_text(self.vocab(), token));
                (sys::llama_vocab_get_attr(self.vocab(), token), text)
            };
            let is = |attribute: sys::llama_token_attr| attributes & attribute != 0;
            let control = is(sys::LLAMA_TOKEN_ATTR_CONTROL) || is(sys::LLAMA_TOKEN_ATTR_UNKNOWN);
            let special = control || is(sys::LLAMA_TOKEN_ATTR_USER_DEFINED);
            special.then(|| (text.to_string_lossy().into_owned(), control))
        };
        (0..self.vocabulary() as i32).filter_map(text).collect()
    }

    /// Text within a longer one to tokens: without the space that some vocabularies put in front of a text.
    ///
    /// # Errors
    ///
    /// As [`Self::tokenize`].
    pub fn tokenize_within(&self, text: &str, parse: bool) -> Result<Vec<i32>, TextError> {
        // SAFETY: the vocabulary belongs to the loaded model.
        let spaces = unsafe { sys::llama_vocab_type(self.vocab()) } == sys::LLAMA_VOCAB_TYPE_SPM;
        if !spaces {
            return self.tokenize(text, false, parse);
        }
        // The space goes before the line, which is a token of its own in these vocabularies.
        let line = self.tokenize("\n", false, false)?;
        let with = self.tokenize(&format!("\n{text}"), false, parse)?;
        match with.strip_prefix(line.as_slice()) {
            Some(tokens) => Ok(tokens.to_vec()),
            None => self.tokenize(text, false, parse),
        }
    }

    /// The text of a C string that llama.cpp made.
    pub(super) fn type_name(kind: sys::ggml_type) -> String {
        // SAFETY: returns a terminated string in static storage for every type.
        unsafe { CStr::from_ptr(sys::ggml_type_name(kind)) }
            .to_string_lossy()
            .into_owned()
    }
}

impl Drop for Model {
    fn drop(&mut self) {
        // SAFETY: made by a load function; contexts hold an `Rc` of the model and are gone.
        unsafe { sys::llama_model_free(self.raw.as_ptr()) }
    }
}
