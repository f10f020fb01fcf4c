//! What people see while they wait.

use super::print_error;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use std::io::IsTerminal;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use store::progress::{Event, Progress};

/// How often a line is printed where there is no terminal to draw on.
const LINE_EVERY: Duration = Duration::from_secs(2);

/// Says on standard error what is being done.
pub fn say(text: &str) {
    print_error(text);
}

/// A progress bar on a terminal, or a line every two seconds elsewhere.
#[derive(Debug)]
pub struct Bar {
    bar: ProgressBar,
    /// When the last line was printed, where there is no terminal.
    lines: Option<Mutex<Instant>>,
}

impl Bar {
    /// A bar that appears with its first report.
    #[must_use]
    pub fn new() -> Arc<Self> {
        let terminal = std::io::stderr().is_terminal();
        let target = if terminal {
            ProgressDrawTarget::stderr()
        } else {
            ProgressDrawTarget::hidden()
        };
        let bar = ProgressBar::with_draw_target(Some(0), target);
        let style = "{msg} [{wide_bar}] {bytes}/{total_bytes} {eta}";
        bar.set_style(ProgressStyle::with_template(style).expect("the template is valid"));
        let lines = (!terminal).then(|| Mutex::new(Instant::now()));
        Arc::new(Self { bar, lines })
    }

    /// Takes the bar away.
    pub fn finish(&self) {
        self.bar.finish_and_clear();
    }
}

impl Progress for Bar {
    fn report(&self, event: &Event<'_>) {
        if let Some(last) = &self.lines {
            let mut last = last.lock().unwrap_or_else(PoisonError::into_inner);
            if last.elapsed() >= LINE_EVERY {
                *last = Instant::now();
                let percent = (event.done * 100).checked_div(event.total).unwrap_or(0);
                say(&format!("{}: {percent} %", event.phase));
            }
            return;
        }
        self.bar.set_message(event.phase.to_owned());
        self.bar.set_length(event.total);
        self.bar.set_position(event.done);
    }
}
