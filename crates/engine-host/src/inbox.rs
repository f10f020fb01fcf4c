//! The calls that have come: taken by the thread that computes, between its steps and, for what is no step's work, within them.

use crate::chat::Desk;
use crate::pipe::{Calls, ReadError, Received};
use std::cell::RefCell;
use std::collections::VecDeque;
use std::io;
use std::rc::Rc;

/// Calls that are taken early at most; the pipe holds back the rest.
const EARLY_MAX: usize = 1_024;

/// Where calls come in.
#[derive(Debug)]
pub(crate) struct Inbox {
    calls: Calls,
    /// Taken while a step was computed.
    early: VecDeque<Result<Received, ReadError>>,
    desk: Option<Desk>,
}

impl Inbox {
    pub(crate) fn new(calls: Calls) -> Self {
        Self {
            calls,
            early: VecDeque::new(),
            desk: None,
        }
    }

    /// From now on `desk` gets what is for it.
    pub(crate) fn open(inbox: &Rc<RefCell<Self>>, desk: Desk) {
        inbox.borrow_mut().desk = Some(desk);
        let inbox = Rc::downgrade(inbox);
        crate::llama::look_around(move || {
            if let Some(inbox) = inbox.upgrade()
                && let Ok(mut inbox) = inbox.try_borrow_mut()
            {
                inbox.look();
            }
        });
    }

    /// The next call that is not for the desk; waits for one if `wait` says so. `None` is none for now.
    pub(crate) fn next(&mut self, wait: bool) -> Result<Option<Received>, ReadError> {
        loop {
            let next = match self.early.pop_front() {
                Some(early) => Some(early?),
                None => self.calls.next(wait)?,
            };
            match next {
                Some(received) => {
                    if let Some(received) = self.hand_on(received)? {
                        return Ok(Some(received));
                    }
                }
                None => return Ok(None),
            }
        }
    }

    /// Gives the desk what is for it.
    fn hand_on(&self, received: Received) -> io::Result<Option<Received>> {
        match &self.desk {
            Some(desk) if Desk::takes(&received.call.task) => {
                desk.take(received.call.id, received.call.task)?;
                Ok(None)
            }
            _ => Ok(Some(received)),
        }
    }

    /// Takes what has come while a step is computed.
    fn look(&mut self) {
        while self.early.len() < EARLY_MAX {
            let next = self.calls.next(false).transpose();
            let Some(next) = next else { return };
            let next = next.and_then(|received| Ok(self.hand_on(received)?));
            let last = next.is_err();
            self.early.extend(next.transpose());
            if last {
                return;
            }
        }
    }
}
