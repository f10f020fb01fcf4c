//! The proving ground itself is put to the test: each fault is shown to strike, and a lie about a link to be caught.
#![allow(clippy::unwrap_used)]

mod cleaning;
mod faults;
mod links;

use std::io::Write;

use lab::World;

/// Set this to leave these tests out where one is not root.
const LEAVE_OUT: &str = "MYZEL_TEST_WITHOUT_ROOT";

/// A world; or nothing, said aloud, where somebody without root has asked for that.
///
/// # Panics
///
/// When no world can be made: these tests are not skipped silently.
fn world(seed: u64) -> Option<World> {
    if !nix::unistd::geteuid().is_root() && std::env::var_os(LEAVE_OUT).is_some() {
        // Past the test runner, which would keep it to itself.
        let mut terminal = std::io::stderr();
        writeln!(
            terminal,
            "SKIPPED, since this is not root and {LEAVE_OUT} is set: nothing was tested here"
        )
        .unwrap();
        return None;
    }
    let world = World::new(seed);
    Some(
        world.unwrap_or_else(|error| {
            panic!("{error:#}; or set {LEAVE_OUT}=1 to leave this test out")
        }),
    )
}
