//! Links do what is asked, and calibration notices when they do not.

use std::net::{Ipv4Addr, UdpSocket};
use std::time::Duration;

use lab::Shape;

use crate::world;

const MS: Duration = Duration::from_millis(1);

/// Conditions of every kind, alone and together.
fn shapes() -> Vec<Shape> {
    let clear = Shape::default();
    let far = Shape {
        delay: 20 * MS,
        ..clear
    };
    vec![
        clear,
        far,
        Shape {
            delay: 100 * MS,
            jitter: 15 * MS,
            ..clear
        },
        Shape {
            delay: 50 * MS,
            jitter: 30 * MS,
            reorders: true,
            ..clear
        },
        Shape {
            loss: 0.05,
            ..clear
        },
        Shape { loss: 0.3, ..far },
        Shape {
            rate_bits: Some(1_000_000),
            ..clear
        },
        Shape {
            rate_bits: Some(10_000_000),
            loss: 0.02,
            ..far
        },
        Shape {
            is_cut: true,
            ..clear
        },
    ]
}

#[test]
fn a_way_is_what_was_asked_and_its_way_back_is_not_touched() {
    let Some(mut world) = world(5) else { return };
    let [a, b] = world.machines(["a", "b"]).unwrap();
    for shape in shapes() {
        world.way(&a, &b).shape(shape);
        world.confirm(&a, &b, &shape).unwrap();
        world.confirm(&b, &a, &Shape::default()).unwrap();
    }
    let (there, back) = (world.way(&a, &b).counts(), world.way(&b, &a).counts());
    assert!(there.lost > 0 && there.cut > 0, "{there:?}");
    assert_eq!(back.sent, back.delivered, "{back:?}");
}

#[test]
fn what_is_not_as_asked_is_caught_and_named() {
    let Some(mut world) = world(6) else { return };
    let [a, b] = world.machines(["a", "b"]).unwrap();
    let clear = Shape::default();
    let far = |ms: u32| Shape {
        delay: ms * MS,
        ..clear
    };
    let lossy = Shape { loss: 0.1, ..clear };
    let narrow = Shape {
        rate_bits: Some(2_000_000),
        ..clear
    };
    let cut = Shape {
        is_cut: true,
        ..clear
    };
    let unsteady = Shape {
        jitter: 10 * MS,
        ..far(20)
    };
    for (is, asked, named) in [
        (far(10), far(20), "where 20.00 ± "),
        (far(23), far(20), "where 20.00 ± "),
        (clear, lossy, "where 10.0 ± "),
        (lossy, clear, "% of 60 packets were lost"),
        (clear, narrow, "where 2000 were asked"),
        (far(20), unsteady, "90 % of the packets"),
        (clear, cut, "through a cut"),
        (cut, clear, "no packet arrived"),
    ] {
        world.way(&a, &b).shape(is);
        let error = world.confirm(&a, &b, &asked).unwrap_err().to_string();
        assert!(error.contains(named), "{named:?} is not in: {error}");
    }
}

#[test]
fn a_full_queue_drops_what_does_not_fit() {
    let Some(mut world) = world(7) else { return };
    let [a, b] = world.machines(["a", "b"]).unwrap();
    world.link(&a, &b).rate_kbit(1_000).queue_bytes(10_000);
    let measured = world.measure(&a, &b, &world.way(&a, &b).asked()).unwrap();
    let counts = world.way(&a, &b).counts();
    assert!(counts.overflowed > 0, "{counts:?}");
    assert_eq!(
        counts.sent,
        counts.delivered + counts.overflowed,
        "{measured}"
    );
}

#[test]
fn one_way_is_cut_while_the_other_hears_and_both_mend() {
    let Some(mut world) = world(8) else { return };
    let [a, b, c] = world.machines(["a", "b", "c"]).unwrap();
    world.links().delay_ms(5);
    world.way(&a, &b).cut();
    world.calibrate(&a, &b).unwrap();
    world.calibrate(&a, &c).unwrap();
    let counts = world.way(&a, &b).counts();
    assert_eq!(
        (counts.sent, counts.delivered),
        (counts.cut, 0),
        "{counts:?}"
    );
    world.cut(&b, &c);
    world.calibrate(&b, &c).unwrap();
    assert!(world.link(&b, &c).asked().is_cut);
    world.mend(&a, &b);
    world.mend(&b, &c);
    for (from, to) in [(&a, &b), (&b, &c)] {
        assert_eq!(world.way(from, to).asked().delay, 5 * MS);
        world.calibrate(from, to).unwrap();
    }
}

#[test]
fn what_is_sent_to_a_group_reaches_every_other_machine() {
    let Some(mut world) = world(9) else { return };
    let [a, b, c] = world.machines(["a", "b", "c"]).unwrap();
    let group = Ipv4Addr::new(224, 0, 0, 251);
    let open = |machine: &lab::Machine| {
        let open = || UdpSocket::bind(("0.0.0.0", 5_353));
        let socket = machine.inside(open).unwrap().unwrap();
        socket.join_multicast_v4(&group, &machine.addr()).unwrap();
        socket
            .set_read_timeout(Some(Duration::from_secs(10)))
            .unwrap();
        socket
    };
    let (from, others) = (open(&a), [open(&b), open(&c)]);
    from.send_to(b"who is there?", (group, 5_353)).unwrap();
    for socket in others {
        let mut heard = [0; 64];
        let (length, sender) = socket.recv_from(&mut heard).unwrap();
        assert_eq!(&heard[..length], b"who is there?");
        assert_eq!(sender.ip(), a.addr());
    }
}
