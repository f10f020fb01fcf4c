//! How much memory a context takes.

use super::Context;
use llama_cpp_sys_2 as sys;
use proto::host::Memory;

unsafe extern "C" {
    fn mz_memory(context: *const sys::llama_context, bytes: *mut u64) -> bool;
}

impl Context {
    /// Memory of the model, the caches and the steps, as llama.cpp counts it; zeros where it cannot.
    #[must_use]
    pub fn memory(&self) -> Memory {
        let mut bytes = [0; 3];
        // SAFETY: the context is alive; three numbers are written, and nothing is thrown.
        let counted = unsafe { mz_memory(self.raw(), bytes.as_mut_ptr()) };
        let [weights_bytes, cache_bytes, compute_bytes] = if counted { bytes } else { [0; 3] };
        Memory {
            weights_bytes,
            cache_bytes,
            compute_bytes,
            ..Memory::default()
        }
    }
}
