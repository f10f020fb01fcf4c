//! Rows of guesses, and rows that take their place.

use super::*;

impl Rig {
    /// A frame whose last rows are guesses.
    fn guesses(&mut self, position: u32, rows: u32, guessed: u32, value: f32) {
        let rows = Rows {
            session: SESSION,
            epoch: 1,
            position,
            rows,
            chunk: 0,
            stage: 1,
            kind: RowsKind::Decode,
            guessed,
        };
        let payload = f32_to_bytes(&vec![value; rows.rows as usize]).into();
        self.event(Event::Rows { rows, payload });
    }
}

/// Four rows, and behind them one with two guesses.
fn guessed(rig: &mut Rig) {
    settled(rig);
    rig.guesses(4, 3, 2, 4.0);
    rig.done();
    rig.log.clear();
}

#[test]
fn others_take_their_place() {
    check(
        |rig| {
            guessed(rig);
            rig.frame(1, 5, 1, 9.0);
            rig.done();
            rig.frame(1, 6, 1, 8.0);
            rig.done();
        },
        "trim:5 compute:5+1 send:5+1=90@1 compute:6+1 send:6+1=80@1",
    );
    // Those that were right stay.
    check(
        |rig| {
            guessed(rig);
            rig.guesses(6, 2, 1, 9.0);
            rig.done();
        },
        "trim:6 compute:6+2 send:6+2=90@1",
    );
    check(
        |rig| {
            guessed(rig);
            rig.frame(1, 7, 1, 9.0);
            rig.done();
        },
        "compute:7+1 send:7+1=90@1",
    );
}

#[test]
fn nothing_else_may_be_replaced() {
    check(
        |rig| (guessed(rig), rig.frame(1, 4, 1, 9.0)).1,
        "Conflict@1",
    );
    check(
        |rig| {
            guessed(rig);
            rig.frame(1, 7, 1, 9.0);
            rig.done();
            rig.log.clear();
            rig.frame(1, 5, 1, 8.0);
        },
        "Conflict@1",
    );
    // Their outputs have not gone on.
    check(
        |rig| {
            settled(rig);
            rig.guesses(4, 3, 2, 4.0);
            rig.log.clear();
            rig.frame(1, 5, 1, 9.0);
        },
        "Conflict@1",
    );
}

#[test]
fn a_repeat_of_what_was_replaced_is_no_conflict() {
    check(
        |rig| {
            guessed(rig);
            rig.guesses(4, 3, 2, 4.0);
            rig.mark("|");
            rig.frame(1, 5, 1, 9.0);
            rig.done();
            rig.mark("|");
            rig.guesses(4, 3, 2, 4.0);
            rig.frame(1, 5, 1, 9.0);
            rig.mark("|");
            rig.guesses(4, 3, 2, 5.0);
        },
        "send:4+3=40@1 | trim:5 compute:5+1 send:5+1=90@1 | send:5+1=90@1 | Conflict@1",
    );
}

#[test]
fn a_new_epoch_knows_no_guesses() {
    check(
        |rig| {
            guessed(rig);
            rig.announce(2, Some(50));
            rig.resume(2, 5, 5, 5);
            rig.frame(2, 5, 1, 9.0);
            rig.done();
            rig.frame(2, 5, 1, 8.0);
        },
        "answer:7/0##@2 trim:5 compute:5+1 send:5+1=90@2 Conflict@2",
    );
}

#[test]
fn guesses_stand_behind_a_token() {
    check(
        |rig| (settled(rig), rig.log.clear(), rig.guesses(4, 3, 3, 4.0)).2,
        "BadShape@1",
    );
}
