//! The numerics contract of exact mode: a row's bits depend only on the model, the build and the tokens before it; never
//! on chunk size, thread count, neighbouring sequences or the cells that its cache happens to have.

use crate::support::{POSITIONS, bits, load, run, session, tokens};
use engine_host::llama::{Input, Wanted};
use engine_host::parts::{Parts, SessionSlice};
use proto::host::Role;
use proto::ids::Hash;
use proto::model::Numerics;
use specimen::Family;
use std::path::Path;

/// Positions that are measured on the starter.
const LENGTH: usize = 1_500;
/// Positions that are measured on each tiny family: behind every size at which a kernel was seen to switch but one.
const LENGTH_TINY: usize = 270;
/// Positions of each of three sessions that are computed together.
const LENGTH_TOGETHER: usize = 220;
/// Rows of one measurement in the slow variants.
const WINDOW: usize = 12;
/// Where the slow variants measure: the first rows, both sides of every power of two that a kernel could switch at,
/// and the end.
const STARTS: [usize; 8] = [0, 26, 58, 122, 250, 506, 1_018, LENGTH - WINDOW];

struct Subject {
    parts: Parts,
    width: usize,
    tokens: Vec<i32>,
}

impl Subject {
    fn load(model: &Path, threads: u32) -> Self {
        let parts = load(Role::Whole, model, Numerics::Exact, threads);
        let width = parts.row_length(Role::Whole).unwrap();
        let tokens = tokens(POSITIONS as usize, width as u32);
        Self {
            parts,
            width,
            tokens,
        }
    }

    /// Rows `from..to` in chunks; their bits.
    fn chunks(&mut self, from: usize, to: usize, chunk: usize) -> Vec<Hash> {
        let mut out = Vec::new();
        let mut position = from;
        while position < to {
            let count = chunk.min(to - position);
            let input = Input::Tokens(&self.tokens[position..position + count]);
            let (at, rows) = (position as u32, count as u32);
            let values = run(&mut self.parts, Role::Whole, session(1), at, input, rows);
            out.extend(values.chunks(self.width).map(bits));
            position += count;
        }
        out
    }

    /// Rows `from..to` one by one, each in a step together with `neighbours` other sessions that go their own ways.
    fn beside(&mut self, from: usize, to: usize, neighbours: u8) -> Vec<Hash> {
        let mut out = Vec::new();
        for position in from..to {
            let mine = [self.tokens[position]];
            let theirs: Vec<(u8, u32, [i32; 1])> = (2..2 + neighbours)
                .map(|n| {
                    let at = self.parts.length(session(n), Role::Whole);
                    (
                        n,
                        at,
                        [self.tokens[(at as usize * 3 + usize::from(n)) % self.tokens.len()]],
                    )
                })
                .collect();
            let mut slices = vec![slice(1, position as u32, &mine)];
            slices.extend(theirs.iter().map(|(n, at, token)| slice(*n, *at, token)));
            for slice in &slices {
                self.parts
                    .admit(slice.session, Role::Whole, slice.position, 1)
                    .unwrap();
            }
            out.push(bits(&self.parts.step(Role::Whole, &slices).unwrap()[0]));
        }
        out
    }

    /// Rows `from..to` in chunks, each in a step together with longer ones of two other sessions; their bits.
    fn together(&mut self, from: usize, to: usize, chunk: usize) -> Vec<Hash> {
        let mut out = Vec::new();
        for position in (from..to).step_by(chunk) {
            let mine = &self.tokens[position..to.min(position + chunk)];
            let others: Vec<(u8, u32)> = [2, 3]
                .map(|n| (n, self.parts.length(session(n), Role::Whole)))
                .into();
            let mut slices = vec![slice(1, position as u32, mine)];
            for (n, at) in others {
                let count = mine.len() + usize::from(n);
                let begin = usize::from(n) + at as usize;
                slices.push(slice(n, at, &self.tokens[begin..begin + count]));
            }
            for slice in &slices {
                let Input::Tokens(tokens) = slice.input else {
                    unreachable!("made above")
                };
                let rows = tokens.len() as u32;
                self.parts
                    .admit(slice.session, Role::Whole, slice.position, rows)
                    .unwrap();
            }
            let rows = &self.parts.step(Role::Whole, &slices).unwrap()[0];
            out.extend(rows.chunks(self.width).map(bits));
        }
        out
    }

    fn forget(&mut self) {
        self.parts.close(session(1));
    }
}

fn slice<'a>(n: u8, position: u32, tokens: &'a [i32]) -> SessionSlice<'a> {
    SessionSlice {
        session: session(n),
        position,
        input: Input::Tokens(tokens),
        wanted: Wanted::All,
    }
}

fn same(name: &str, reference: &[Hash], got: &[Hash]) {
    assert_eq!(reference.len(), got.len(), "{name}");
    let first = reference.iter().zip(got).position(|(a, b)| a != b);
    assert_eq!(first, None, "{name}: the first row that differs");
}

fn check(model: &Path, length: usize) {
    let mut two = Subject::load(model, 2);
    let reference = two.chunks(0, length, 512);
    for chunk in [256, 100, 64, 33, 7] {
        two.forget();
        same(
            &format!("chunks of {chunk}"),
            &reference,
            &two.chunks(0, length, chunk),
        );
    }
    for chunk in [150, 64, 33, 7] {
        (1..=3).for_each(|n| two.parts.close(session(n)));
        let rows = two.together(0, LENGTH_TOGETHER, chunk);
        same(
            &format!("chunks of {chunk} together with others"),
            &reference[..LENGTH_TOGETHER],
            &rows,
        );
    }
    (2..=3).for_each(|n| two.parts.close(session(n)));
    let mut one = Subject::load(model, 1);
    same("one thread", &reference, &one.chunks(0, length, 256));
    one.forget();
    let runs: [(&mut Subject, u32, &[u8]); 2] =
        [(&mut two, 2, &[0, 1, 2, 3]), (&mut one, 1, &[0, 3])];
    for (subject, threads, beside) in runs {
        for &neighbours in beside {
            subject.forget();
            let mut from = 0;
            for start in STARTS.into_iter().filter(|start| start + WINDOW <= length) {
                // An odd chunk on the way: the grid must not matter.
                let way = subject.chunks(from, start, 197);
                let name = format!("{threads} threads, {neighbours} neighbours, from {start}");
                same(
                    &format!("{name}, the way there"),
                    &reference[from..start],
                    &way,
                );
                let rows = subject.beside(start, start + WINDOW, neighbours);
                same(&name, &reference[start..start + WINDOW], &rows);
                from = start + WINDOW;
            }
        }
    }
}

/// Caches that were cut back, and cells that others used before, change nothing either.
fn check_used_cells(model: &Path) {
    let mut subject = Subject::load(model, 2);
    let reference = subject.chunks(0, 300, 512);
    for n in 2..=4 {
        subject.parts.close(session(n));
    }
    subject.beside(300, 330, 3);
    subject.parts.trim(session(1), 111).unwrap();
    same(
        "after a trim",
        &reference[111..],
        &subject.chunks(111, 300, 50),
    );
    // The measured session moves to cells that a neighbour had.
    subject.forget();
    subject.parts.close(session(3));
    subject.parts.close(session(2));
    let other = slice(9, 0, &[5]);
    subject
        .parts
        .admit(other.session, Role::Whole, 0, 1)
        .unwrap();
    subject.parts.step(Role::Whole, &[other]).unwrap();
    same("in used cells", &reference, &subject.chunks(0, 300, 64));
}

#[test]
fn starter() {
    check(&specimen::starter(), LENGTH);
}

#[test]
fn starter_in_used_cells() {
    check_used_cells(&specimen::starter());
}

fn check_family(family: Family) {
    let dir = tempfile::tempdir().unwrap();
    let model = dir.path().join("model.gguf");
    specimen::write(&model, family, 3).unwrap();
    check(&model, LENGTH_TINY);
    check_used_cells(&model);
}

#[test]
fn llama() {
    check_family(Family::Llama);
}

#[test]
fn qwen2() {
    check_family(Family::Qwen2);
}

#[test]
fn qwen3() {
    check_family(Family::Qwen3);
}

#[test]
fn gemma3() {
    check_family(Family::Gemma3);
}

#[test]
fn phi3() {
    check_family(Family::Phi3);
}

#[test]
fn qwen3moe() {
    check_family(Family::Qwen3Moe);
}

#[test]
fn qwen2moe() {
    check_family(Family::Qwen2Moe);
}

#[test]
fn gpt_oss() {
    check_family(Family::GptOss);
}

/// The comparison can fail: one other token, far back, changes every row behind it.
#[test]
fn another_past_gives_other_bits() {
    let dir = tempfile::tempdir().unwrap();
    let model = dir.path().join("model.gguf");
    specimen::write(&model, Family::Llama, 3).unwrap();
    let mut subject = Subject::load(&model, 2);
    let reference = subject.chunks(0, 200, 64);
    subject.forget();
    subject.tokens[10] += 1;
    let other = subject.chunks(0, 200, 64);
    let equal = reference.iter().zip(&other).filter(|(a, b)| a == b).count();
    assert_eq!(equal, 10, "only the rows before the token are the same");
}
