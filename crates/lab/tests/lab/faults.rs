//! Faults of machines and processes: each is shown to strike, and to end.

use std::io::{ErrorKind, Write};
use std::net::UdpSocket;
use std::time::Duration;

use lab::{Machine, Process, Shape, wait};

use crate::world;

/// The deadline of waits whose length is not what is tested.
const PATIENCE: Duration = Duration::from_secs(20);

/// Something that writes lines until it is ended, and has written one.
fn chatterer(machine: &Machine) -> Process {
    let mut command = machine.command("sh");
    command.args(["-c", "while :; do echo x; sleep 0.01; done"]);
    let process = machine.start("chatterer", &mut command).unwrap();
    grows(&process);
    process
}

/// Waits until a process has written more than it has now.
fn grows(process: &Process) {
    let before = process.printed().unwrap().len();
    let look = || Ok((process.printed()?.len() > before).then_some(()));
    wait::until(PATIENCE, "it writes a line", look).unwrap();
}

fn state(pid: i32) -> char {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    stat.rsplit_once(") ").unwrap().1.chars().next().unwrap()
}

#[test]
fn a_partition_parts_two_groups_and_heals() {
    let Some(mut world) = world(1) else { return };
    let [a, b, c] = world.machines(["a", "b", "c"]).unwrap();
    let clear = Shape::default();
    let partition = world.partition(&[&a, &b], &[&c]).unwrap();
    assert_eq!(partition.dropped().unwrap(), 0);
    for (from, to) in [(&a, &c), (&c, &a), (&b, &c), (&c, &b)] {
        let before = partition.dropped().unwrap();
        let measured = world.measure(from, to, &clear).unwrap();
        assert_eq!(measured.loss, 1.0);
        let dropped = partition.dropped().unwrap() - before;
        assert_eq!(dropped, measured.probes as u64, "its rule has dropped them");
    }
    world.calibrate(&a, &b).unwrap();
    partition.heal().unwrap();
    world.calibrate(&a, &c).unwrap();
}

#[test]
fn a_frozen_machine_stands_still_and_goes_on() {
    let Some(mut world) = world(2) else { return };
    let [a, b] = world.machines(["a", "b"]).unwrap();
    let (here, there) = (chatterer(&a), chatterer(&b));
    assert!(a.freeze().unwrap() >= 1);
    assert!(a.pids().into_iter().all(|pid| state(pid) == 'T'));
    let written = here.printed().unwrap();
    for _ in 0..10 {
        grows(&there);
    }
    assert_eq!(here.printed().unwrap(), written, "it wrote while frozen");
    assert!(a.thaw().unwrap() >= 1);
    grows(&here);

    there.freeze().unwrap();
    assert_eq!(state(there.pid()), 'T');
    there.thaw().unwrap();
    grows(&there);
}

#[test]
fn what_is_killed_is_gone_with_all_that_it_started_on_its_machine() {
    let Some(mut world) = world(3) else { return };
    let [a, b] = world.machines(["a", "b"]).unwrap();
    let mut process = chatterer(&a);
    process.kill().unwrap();
    assert!(!process.lives());
    let status = process.ended().unwrap().unwrap();
    assert!(!status.success() && status.code().is_none(), "{status}");

    let mut command = b.command("sh");
    command.args(["-c", "sleep 1000 & sleep 1000 & echo two >&2; wait"]);
    let parent = b.start("parent", &mut command).unwrap();
    let look = || Ok((b.pids().len() == 3 && parent.said() == "two\n").then_some(()));
    wait::until(PATIENCE, "three processes are there", look).unwrap();
    assert_eq!(b.kill().unwrap(), 3);
    assert!(!parent.lives() && b.pids().is_empty());
}

#[test]
fn a_disk_is_full_when_its_bytes_are_written() {
    let Some(mut world) = world(4) else { return };
    let a = world.machine("a").unwrap();
    let disk = a.disk("disk", 256 << 10).unwrap();
    let mut file = std::fs::File::create(disk.join("large")).unwrap();
    file.write_all(&[1; 128 << 10]).unwrap();
    let error = file.write_all(&[1; 256 << 10]).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::StorageFull, "{error}");
}

#[test]
fn a_failed_disk_answers_nothing_and_its_replacement_has_what_was_synchronised() {
    let Some(mut world) = world(6) else { return };
    let a = world.machine("a").unwrap();
    let mut disk = a.failing_disk("disk", 16 << 20).unwrap();
    let path = disk.path().join("kept");
    std::fs::File::create(&path)
        .and_then(|mut file| {
            file.write_all(b"kept")?;
            file.sync_all()
        })
        .unwrap();
    let mut lost = std::fs::File::create(disk.path().join("lost")).unwrap();
    lost.write_all(b"lost").unwrap();
    disk.fail().unwrap();
    let eio = |error: std::io::Error| assert_eq!(error.raw_os_error(), Some(5), "{error}");
    eio(lost.write_all(b"more").unwrap_err());
    eio(std::fs::read(&path).unwrap_err());
    eio(std::fs::File::create(disk.path().join("new")).unwrap_err());
    disk.replace().unwrap();
    assert_eq!(std::fs::read(&path).unwrap(), b"kept");
    std::fs::write(disk.path().join("new"), b"new").unwrap();
}

#[test]
fn a_machine_with_another_address_is_there_and_nowhere_else() {
    let Some(mut world) = world(7) else { return };
    let [a, b] = world.machines(["a", "b"]).unwrap();
    let (from, to) = (
        a.inside(|| UdpSocket::bind("0.0.0.0:0")).unwrap().unwrap(),
        b.inside(|| UdpSocket::bind("0.0.0.0:77")).unwrap().unwrap(),
    );
    to.set_read_timeout(Some(Duration::from_millis(500)))
        .unwrap();
    let arrives = |addr| {
        from.send_to(b"x", (addr, 77)).unwrap();
        to.recv_from(&mut [0; 9]).is_ok()
    };
    let old = b.addr();
    assert!(arrives(old));
    let new = world.readdress(&b).unwrap();
    assert!(new == b.addr() && new != old);
    assert!(arrives(new) && !arrives(old));
    // And back.
    let (_, a_seen) = {
        from.send_to(b"x", (new, 77)).unwrap();
        to.recv_from(&mut [0; 9]).unwrap()
    };
    to.send_to(b"y", a_seen).unwrap();
    from.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    let (_, b_seen) = from.recv_from(&mut [0; 9]).unwrap();
    assert_eq!(b_seen.ip(), std::net::IpAddr::from(new));
}

#[test]
fn a_starved_machine_is_held_back_until_it_is_not() {
    let Some(mut world) = world(5) else { return };
    let a = world.machine("a").unwrap();
    let mut command = a.command("sh");
    let process = a
        .start("busy", command.args(["-c", "while :; do :; done"]))
        .unwrap();
    let look = || Ok((a.pids() == [process.pid()]).then_some(()));
    wait::until(PATIENCE, "it runs there", look).unwrap();
    let starved = a.starve(0.1).unwrap();
    let look = || Ok((starved.held_back()? >= 5).then_some(()));
    wait::until(PATIENCE, "the system holds it back", look).unwrap();
    let group = std::fs::read_to_string(format!("/proc/{}/cgroup", process.pid())).unwrap();
    assert!(group.contains(a.netns()), "{group}");
    drop(starved);
    let group = std::fs::read_to_string(format!("/proc/{}/cgroup", process.pid())).unwrap();
    assert!(!group.contains(a.netns()), "{group}");
}
