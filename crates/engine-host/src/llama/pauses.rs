//! A look around while llama.cpp computes.
//!
//! A step can take seconds. Between two operations of it llama.cpp asks whether it is to go on; that is when the thread
//! that computes can do something short.

use std::cell::RefCell;
use std::ffi::c_void;
use std::time::{Duration, Instant};

/// The shortest time between two looks.
const LOOK_EVERY: Duration = Duration::from_millis(2);

struct Pauses {
    look: Box<dyn FnMut()>,
    last: Instant,
}

thread_local! {
    static PAUSES: RefCell<Option<Pauses>> = const { RefCell::new(None) };
}

/// Has `look` called now and then while this thread computes.
pub fn look_around(look: impl FnMut() + 'static) {
    let pauses = Pauses {
        look: Box::new(look),
        last: Instant::now(),
    };
    PAUSES.with(|at| *at.borrow_mut() = Some(pauses));
}

/// llama.cpp's question whether to stop, which is always answered with no.
pub(super) unsafe extern "C" fn paused(_: *mut c_void) -> bool {
    PAUSES.with(|at| {
        // A look that computed itself would find it in use.
        if let Ok(mut pauses) = at.try_borrow_mut()
            && let Some(pauses) = pauses.as_mut()
            && pauses.last.elapsed() >= LOOK_EVERY
        {
            (pauses.look)();
            pauses.last = Instant::now();
        }
    });
    false
}
