//! Any bytes as a GGUF file: read, write again, cut.
#![no_main]

#[path = "../bodies/gguf.rs"]
mod gguf;

libfuzzer_sys::fuzz_target!(|data: &[u8]| gguf::run(data));
