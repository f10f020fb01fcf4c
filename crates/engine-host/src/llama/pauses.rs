//! A look around while llama.cpp computes.
//!
//! A step can take seconds. Between two operations of it llama.cpp asks whether it is to go on; that is when the thread
//! that computes can do something short.

use std::cell::RefCell;
use std::ffi::c_void;
use std::time::{Duration, Instant};

/// The shortest time between two looks.
const LOOK_EVERY: Duration = Duration::from_millis(2);
/// Operations between two looks at the clock: a step of a small model has a thousand, of a few microseconds each.
const CLOCK_EVERY: u32 = 8;

struct Pauses {
    look: Box<dyn FnMut()>,
    last: Instant,
    operations: u32,
}

thread_local! {
    static PAUSES: RefCell<Option<Pauses>> = const { RefCell::new(None) };
}

/// Has `look` called now and then while this thread computes.
pub fn look_around(look: impl FnMut() + 'static) {
    let pauses = Pauses {
        look: Box::new(look),
        last: Instant::now(),
        operations: 0,
    };
    PAUSES.with(|at| *at.borrow_mut() = Some(pauses));
}

/// llama.cpp's question whether to stop, which is always answered with no.
pub(super) unsafe extern "C" fn paused(_: *mut c_void) -> bool {
    PAUSES.with(|at| {
        // A look that computed itself would find it in use.
        let Ok(mut pauses) = at.try_borrow_mut() else {
            return;
        };
        let Some(pauses) = pauses.as_mut() else {
            return;
        };
        pauses.operations = pauses.operations.wrapping_add(1);
        if pauses.operations.is_multiple_of(CLOCK_EVERY) && pauses.last.elapsed() >= LOOK_EVERY {
            (pauses.look)();
            pauses.last = Instant::now();
        }
    });
    false
}
