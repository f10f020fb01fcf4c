//! What a step costs: rows a second for every number of sessions in a decode step, and for chunks of one prompt.
//!
//! ```sh
//! cargo run --release -p engine-host --example step_cost -- MODEL.gguf [exact|throughput] [THREADS] [CONTEXT]
//! ```
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a measurement, not a product"
)]

use engine_host::llama::{Input, Wanted};
use engine_host::parts::{Parts, SessionSlice};
use proto::host::{KvType, LoadSpec, Part, Role};
use proto::ids::SessionId;
use proto::model::Numerics;
use std::time::Instant;

const SESSIONS: u8 = 16;
const STEPS: u32 = 24;

fn slice(n: u8, position: u32, tokens: &[i32]) -> SessionSlice<'_> {
    SessionSlice {
        session: SessionId([n; 16]),
        position,
        input: Input::Tokens(tokens),
        wanted: Wanted::Last,
    }
}

fn step(parts: &mut Parts, slices: &[SessionSlice<'_>]) {
    for slice in slices {
        let Input::Tokens(tokens) = slice.input else {
            continue;
        };
        let rows = tokens.len() as u32;
        parts
            .admit(slice.session, Role::Whole, slice.position, rows)
            .unwrap();
    }
    parts.step(Role::Whole, slices).unwrap();
}

fn main() {
    let mut args = std::env::args().skip(1);
    let model = args.next().expect("a model file");
    let numerics = match args.next().as_deref() {
        Some("exact") => Numerics::Exact,
        _ => Numerics::Throughput,
    };
    let threads = args.next().map_or(2, |t| t.parse().unwrap());
    let context: u32 = args.next().map_or(200, |t| t.parse().unwrap());
    let part = Part {
        role: Role::Whole,
        files: vec![model],
    };
    let spec = LoadSpec {
        parts: vec![part],
        numerics,
        positions_max: 2048,
        sessions_max: u32::from(SESSIONS),
        step_rows_max: 512,
        threads: Some(threads),
        lanes: 1,
        memory_bytes_max: None,
        adapters_dir: None,
        kv: KvType::F16,
        rope_scale: None,
        kv_bytes_max: None,
    };
    let mut parts = Parts::load(&spec, threads).unwrap();
    parts.set_threads(threads);
    for chunk in [512usize, 256, 128, 64, 32, 16, 8, 4, 2] {
        let tokens: Vec<i32> = (0..chunk as i32).map(|i| 100 + i * 7 % 9000).collect();
        let begun = Instant::now();
        let mut position = 0;
        while position < 512 {
            step(&mut parts, &[slice(99, position, &tokens)]);
            position += chunk as u32;
        }
        let rate = 512.0 / begun.elapsed().as_secs_f64();
        println!("{numerics:?}, {threads} threads: chunks of {chunk}: {rate:.0} rows/s");
        parts.close(SessionId([99; 16]));
    }
    let prompt: Vec<i32> = (0..context as i32).map(|i| 100 + i * 11 % 9000).collect();
    for sessions in [1u8, 2, 4, 8, 16] {
        for n in 0..sessions {
            step(&mut parts, &[slice(n, 0, &prompt)]);
        }
        let token = [500];
        let begun = Instant::now();
        for at in 0..STEPS {
            let slices: Vec<_> = (0..sessions)
                .map(|n| slice(n, context + at, &token))
                .collect();
            step(&mut parts, &slices);
        }
        let rate = f64::from(STEPS * u32::from(sessions)) / begun.elapsed().as_secs_f64();
        println!(
            "{numerics:?}, {threads} threads: {sessions} sessions at {context}: {rate:.0} rows/s"
        );
        for n in 0..sessions {
            parts.close(SessionId([n; 16]));
        }
    }
}
