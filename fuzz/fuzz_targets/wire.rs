//! Any bytes as a structure of the wire, the disk or the pipe: read, write again, check.
#![no_main]

#[path = "../bodies/wire.rs"]
mod wire;

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    wire::run(data);
});
