//! The border to the shim in `shim/`: bytes in, bytes or an error text out.

use crate::llama::Model;
use llama_cpp_sys_2 as sys;
use std::ffi::c_char;
use std::ptr::NonNull;

/// Bytes of ours.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub(super) struct In {
    bytes: *const c_char,
    length: usize,
}

impl From<&str> for In {
    fn from(text: &str) -> Self {
        Self {
            bytes: text.as_ptr().cast(),
            length: text.len(),
        }
    }
}

/// Bytes of the shim's.
#[repr(C)]
#[derive(Debug)]
pub(super) struct Text {
    bytes: *mut c_char,
    length: usize,
}

impl Text {
    pub(super) const NONE: Self = Self {
        bytes: std::ptr::null_mut(),
        length: 0,
    };

    /// What it says; bytes that are not UTF-8 become U+FFFD.
    pub(super) fn take(self) -> String {
        if self.bytes.is_null() {
            return String::new();
        }
        // SAFETY: the shim gives so many bytes, which nobody else refers to until they are freed below.
        let bytes = unsafe { std::slice::from_raw_parts(self.bytes.cast::<u8>(), self.length) };
        String::from_utf8_lossy(bytes).into_owned()
    }
}

impl Drop for Text {
    fn drop(&mut self) {
        // SAFETY: the shim's own bytes, or null.
        unsafe { mz_text_free(self) }
    }
}

/// A grammar of the shim's.
#[repr(C)]
#[derive(Debug)]
pub(super) struct RawGrammar {
    _private: [u8; 0],
}

unsafe extern "C" {
    fn mz_text_free(text: *mut Text);

    pub(super) fn mz_grammar_new(
        vocab: *const sys::llama_vocab,
        spec: In,
        why: *mut Text,
    ) -> *mut RawGrammar;
    pub(super) fn mz_grammar_free(grammar: *mut RawGrammar);
    pub(super) fn mz_grammar_copy(grammar: *const RawGrammar, why: *mut Text) -> *mut RawGrammar;
    pub(super) fn mz_grammar_waits(grammar: *const RawGrammar) -> bool;
    pub(super) fn mz_grammar_mask(
        grammar: *mut RawGrammar,
        logits: *mut f32,
        count: usize,
        why: *mut Text,
    ) -> bool;
    pub(super) fn mz_grammar_allows(
        grammar: *mut RawGrammar,
        token: i32,
        allows: *mut bool,
        why: *mut Text,
    ) -> bool;
    pub(super) fn mz_grammar_accept(grammar: *mut RawGrammar, token: i32, why: *mut Text) -> bool;
}

/// A handle of the shim's that is freed with its owner.
macro_rules! handle {
    ($(#[$doc:meta])* $name:ident, $raw:ident, $free:ident) => {
        #[repr(C)]
        #[derive(Debug)]
        struct $raw {
            _private: [u8; 0],
        }

        $(#[$doc])*
        #[derive(Debug)]
        pub(super) struct $name(NonNull<$raw>);

        // SAFETY: it belongs to one owner, and what it refers to beside itself any thread may read.
        unsafe impl Send for $name {}

        impl Drop for $name {
            fn drop(&mut self) {
                // SAFETY: made by the shim, and nobody else refers to it.
                unsafe { $free(self.0.as_ptr()) }
            }
        }
    };
}

handle!(
    /// The chat templates of a model.
    Templates, RawTemplates, mz_templates_free
);
handle!(
    /// What takes replies of one form apart.
    Parser, RawParser, mz_parser_free
);

/// The text of a call, or its error.
fn outcome(call: impl FnOnce(*mut Text) -> bool) -> Result<String, String> {
    let mut out = Text::NONE;
    if call(&mut out) {
        Ok(out.take())
    } else {
        Err(out.take())
    }
}

impl Templates {
    /// Those of the model's file, or of a source instead.
    pub(super) fn new(model: &Model, source: &str) -> Result<Self, String> {
        let mut why = Text::NONE;
        // SAFETY: what the shim keeps of the model are copies; the texts outlive the call.
        let raw = unsafe {
            let none = In::from("");
            mz_templates_new(model.raw(), source.into(), none, none, &mut why)
        };
        NonNull::new(raw).map(Self).ok_or_else(|| why.take())
    }

    /// Their text.
    pub(super) fn source(&self) -> Result<String, String> {
        // SAFETY: they live, and are only read.
        outcome(|out| unsafe { mz_templates_source(self.0.as_ptr(), out) })
    }

    /// Renders a request of the shim's form (see `shim/chat.cpp`).
    pub(super) fn apply(&self, request: &str) -> Result<String, String> {
        // SAFETY: they live, and are only read; the text outlives the call.
        outcome(|out| unsafe { mz_templates_apply(self.0.as_ptr(), request.into(), out) })
    }
}

impl Parser {
    /// From a syntax of the shim's form (see `shim/chat.cpp`).
    pub(super) fn new(syntax: &str) -> Result<Self, String> {
        let mut why = Text::NONE;
        // SAFETY: the text outlives the call.
        let raw = unsafe { mz_parser_new(syntax.into(), &mut why) };
        NonNull::new(raw).map(Self).ok_or_else(|| why.take())
    }

    /// A message, as JSON.
    pub(super) fn read(&self, text: &str, partial: bool) -> Result<String, String> {
        // SAFETY: it lives, and is only read; the text outlives the call.
        outcome(|out| unsafe { mz_parser_read(self.0.as_ptr(), text.into(), partial, out) })
    }
}

/// The rules, in llama.cpp's notation, of a JSON schema.
pub(super) fn schema_rules(schema: &str) -> Result<String, String> {
    // SAFETY: the text outlives the call.
    outcome(|out| unsafe { mz_schema_rules(schema.into(), out) })
}

unsafe extern "C" {
    fn mz_templates_new(
        model: *const sys::llama_model,
        source: In,
        bos: In,
        eos: In,
        why: *mut Text,
    ) -> *mut RawTemplates;
    fn mz_templates_free(templates: *mut RawTemplates);
    fn mz_templates_source(templates: *const RawTemplates, out: *mut Text) -> bool;
    fn mz_templates_apply(templates: *const RawTemplates, request: In, out: *mut Text) -> bool;
    fn mz_schema_rules(schema: In, out: *mut Text) -> bool;
    fn mz_parser_new(syntax: In, why: *mut Text) -> *mut RawParser;
    fn mz_parser_free(parser: *mut RawParser);
    fn mz_parser_read(parser: *const RawParser, text: In, partial: bool, out: *mut Text) -> bool;
}
