use super::*;
use proto::ids::{CommonsId, NodeId, TicketId};

fn ticket(addrs: usize) -> Ticket {
    Ticket {
        commons: CommonsId([1; 32]),
        introducer: NodeId([2; 32]),
        addrs: vec!["[2001:db8:1234:5678:9abc:def0:1234:5678]:47717".into(); addrs],
        not_after_s: u64::MAX,
        nonce: [3; 16],
        uses_max: Some(u32::MAX),
        signature: [4; 64],
        relays: Some(vec!["198.51.100.123:47717".into(); 2]),
    }
}

/// Modules on a side; ISO/IEC 18004 allows 177.
fn modules(text: &str) -> usize {
    QrCode::with_error_correction_level(text, EcLevel::L)
        .unwrap()
        .width()
}

#[test]
fn every_ticket_fits_a_qr_code_and_capitals_make_it_smaller() {
    for addrs in [1, 3, 16] {
        let ticket = ticket(addrs);
        let (small, large) = (modules(&ticket.to_qr_text()), modules(&ticket.to_text()));
        assert!(small < large && large <= 177, "{addrs}: {small}, {large}");
    }
    // As wide as a usual terminal has columns, with four light modules on either side.
    assert!(modules(&ticket(1).to_qr_text()) + 8 <= 80);
}

#[test]
fn the_drawing_has_two_modules_a_character_and_a_light_border() {
    let ticket = ticket(1);
    let side = modules(&ticket.to_qr_text()) + 8;
    let drawn = qr(&ticket, false).unwrap();
    assert_eq!(drawn.lines().count(), side.div_ceil(2));
    assert!(drawn.lines().all(|line| line.chars().count() == side));
    let border = drawn.lines().next().unwrap();
    assert!(border.chars().all(|c| c == ' '), "{border:?}");
    let coloured = qr(&ticket, true).unwrap();
    assert!(
        coloured
            .lines()
            .all(|line| line.starts_with(BLACK_ON_WHITE))
    );
}

#[test]
fn a_line_says_how_a_ticket_stands() {
    let status = TicketStatus {
        id: TicketId([7; 16]),
        state: "open".to_owned(),
        issued_s: 0,
        not_after_s: 7200,
        uses: 1,
        uses_max: Some(3),
    };
    let name = "07".repeat(16);
    assert_eq!(
        line(&status, 3600),
        format!("{name} open    1 of 3 uses, ends in 1.0 h")
    );
    let endless = TicketStatus {
        uses_max: None,
        ..status
    };
    assert_eq!(
        line(&endless, 9000),
        format!("{name} open    1 of any number uses, ended 0.5 h ago")
    );
}
