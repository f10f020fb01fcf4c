//! Safe wrappers around the part of llama.cpp that Myzel uses.
//!
//! *Invariants:* a [`Context`] keeps its [`Model`] alive and stays on the thread that made it (it is neither `Send` nor
//! `Sync`); a [`Model`] is only read once it is loaded, by any thread. Errors of llama.cpp that are return codes become values; its asserts abort the process, which is
//! why this is a process.

mod adapter;
mod context;
mod embedder;
mod memory;
mod model;
mod pauses;
mod pool;

pub use adapter::Adapter;
pub use context::{Context, ContextSpec, Input, Slice, StepError, Wanted};
pub use embedder::Embedder;
pub use model::{LoadError, Model, Reading, TextError};
pub use pauses::look_around;
pub use pool::Pool;

use llama_cpp_sys_2 as sys;
use std::ffi::{CStr, c_char, c_void};
use std::sync::{Mutex, Once};

/// The exact engine that is linked, and the build options that change bits.
pub const BUILD: &str = "llama-cpp-sys-2 0.1.161, llamafile off, openmp off";
/// The build as an engine-host names it that stretches positions by a factor, if it does: that changes bits, too.
#[must_use]
pub fn build(rope_scale: Option<f32>) -> String {
    match rope_scale.filter(|scale| *scale > 1.0) {
        Some(scale) => format!("{BUILD}; positions stretched by {scale}"),
        None => BUILD.to_owned(),
    }
}

/// How many bytes of llama.cpp's own error messages are kept for our error messages.
const LOG_BYTES_MAX: usize = 2048;

static LAST_ERRORS: Mutex<String> = Mutex::new(String::new());
static START: Once = Once::new();

/// Prepares llama.cpp; every entry point calls it.
pub fn start() {
    // SAFETY: both functions take no state of ours but a function pointer that lives for ever.
    START.call_once(|| unsafe {
        sys::llama_log_set(Some(keep_errors), std::ptr::null_mut());
        sys::llama_backend_init();
    });
}

/// Keeps llama.cpp's warnings and errors, so that ours can say what it said.
unsafe extern "C" fn keep_errors(level: sys::ggml_log_level, text: *const c_char, _: *mut c_void) {
    if level < sys::GGML_LOG_LEVEL_WARN || level == sys::GGML_LOG_LEVEL_CONT {
        return;
    }
    // SAFETY: llama.cpp passes a terminated string that lives during the call.
    let text = unsafe { CStr::from_ptr(text) }.to_string_lossy();
    if let Ok(mut kept) = LAST_ERRORS.lock()
        && kept.len() + text.len() <= LOG_BYTES_MAX
    {
        kept.push_str(&text);
    }
}

/// Takes what llama.cpp complained of since the last time, in one line.
fn take_errors() -> String {
    let kept = LAST_ERRORS
        .lock()
        .map(|mut kept| std::mem::take(&mut *kept))
        .unwrap_or_default();
    let lines: Vec<&str> = kept
        .lines()
        .map(str::trim)
        .filter(|line| !line.is_empty())
        .collect();
    if lines.is_empty() {
        "llama.cpp gave no reason".to_owned()
    } else {
        lines.join("; ")
    }
}

/// The CPU features that this build of llama.cpp uses, as it reports them.
#[must_use]
pub fn cpu_class() -> String {
    start();
    // SAFETY: returns a terminated string in static storage.
    let info = unsafe { CStr::from_ptr(sys::llama_print_system_info()) }.to_string_lossy();
    let features: Vec<&str> = info
        .split(['|', ':'])
        .filter_map(|part| part.trim().strip_suffix("= 1"))
        .map(str::trim)
        .collect();
    format!("{} {}", std::env::consts::ARCH, features.join(" "))
}
