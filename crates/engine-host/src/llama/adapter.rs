//! LoRA adapters in memory.

use super::{Model, take_errors};
use llama_cpp_sys_2 as sys;
use std::ffi::CString;
use std::path::Path;
use std::ptr::NonNull;
use std::sync::Arc;

/// An adapter of a model.
#[derive(Debug)]
pub struct Adapter {
    raw: NonNull<sys::llama_adapter_lora>,
    _model: Arc<Model>,
}

impl Adapter {
    /// Loads an adapter for a model. The file's shape was checked: llama.cpp ends the process over some that are wrong.
    ///
    /// # Errors
    ///
    /// llama.cpp's own words.
    pub fn load(model: Arc<Model>, path: &Path) -> Result<Self, String> {
        let name = CString::new(path.as_os_str().as_encoded_bytes())
            .map_err(|_| "its name contains a zero byte".to_owned())?;
        take_errors();
        // SAFETY: the model is loaded and outlives the adapter, which holds it; the name is terminated.
        let raw = unsafe { sys::llama_adapter_lora_init(model.raw(), name.as_ptr()) };
        let raw = NonNull::new(raw).ok_or_else(take_errors)?;
        Ok(Self { raw, _model: model })
    }

    pub(super) fn raw(&self) -> *mut sys::llama_adapter_lora {
        self.raw.as_ptr()
    }
}

impl Drop for Adapter {
    fn drop(&mut self) {
        // SAFETY: made by `load`, freed once, before its model; contexts hold an `Rc` of what they use.
        unsafe { sys::llama_adapter_lora_free(self.raw()) }
    }
}
