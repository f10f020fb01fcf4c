//! The one thread pool of the process.

use llama_cpp_sys_2 as sys;
use std::ptr::NonNull;

/// The most threads of one pool.
pub(super) const THREADS_MAX: u32 = 256;

/// ggml's own worker threads, shared by every context of the process.
///
/// They never poll between graphs: a polling pool takes the core away from everything else on the machine,
/// and two polling pools on the same cores strangle each other.
#[derive(Debug)]
pub struct Pool {
    raw: NonNull<sys::ggml_threadpool>,
    threads_max: u32,
}

impl Pool {
    /// Starts a pool of at most `threads` threads (the calling thread counts as one).
    ///
    /// # Panics
    ///
    /// When the system refuses to start threads: nothing can be computed without.
    #[must_use]
    pub fn new(threads: u32) -> Self {
        let threads_max = threads.clamp(1, THREADS_MAX);
        // SAFETY: the parameters are plain data, initialised by ggml itself before we change one.
        let raw = unsafe {
            let mut params = sys::ggml_threadpool_params_default(threads_max as i32);
            params.poll = 0;
            sys::ggml_threadpool_new(&mut params)
        };
        Self {
            raw: NonNull::new(raw).expect("the system starts worker threads"),
            threads_max,
        }
    }

    /// How many threads the pool has.
    #[must_use]
    pub fn threads_max(&self) -> u32 {
        self.threads_max
    }

    pub(super) fn raw(&self) -> *mut sys::ggml_threadpool {
        self.raw.as_ptr()
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        // SAFETY: made by `ggml_threadpool_new`; contexts hold an `Rc` of the pool and are gone.
        unsafe { sys::ggml_threadpool_free(self.raw.as_ptr()) }
    }
}
