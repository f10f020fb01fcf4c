//! The border to the shim in `shim/`: bytes in, bytes or an error text out.

use llama_cpp_sys_2 as sys;
use std::ffi::c_char;

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
