//! Any bytes as events of a session or a stage.
#![no_main]

#[path = "../bodies/machines.rs"]
mod machines;

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    machines::run(data);
});
