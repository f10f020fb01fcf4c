//! Measuring a way, and holding the figures against what was asked.
//!
//! Both ends of a way are sockets of this process, so one clock sees a packet leave and arrive: delays are of one way, not
//! half of a round trip. The arrival is the kernel's own time stamp, taken when the interface got the packet, so
//! a reader that the system wakes late does no harm.

use std::fmt;
use std::io::IoSliceMut;
use std::net::UdpSocket;
use std::os::fd::{AsFd, AsRawFd};
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context, Result};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::sockopt::{RcvBufForce, ReceiveTimestampns};
use nix::sys::socket::{ControlMessageOwned, MsgFlags, recvmsg, setsockopt};
use nix::sys::time::TimeSpec;

use super::shape::Shape;
use crate::wait;

/// A median delay may differ by this much from the delay asked,
pub const DELAY_TOLERANCE: Duration = Duration::from_millis(1);
/// and by this share of it.
pub const DELAY_TOLERANCE_SHARE: f64 = 0.02;
/// A rate may differ by this share from the rate asked.
pub const RATE_TOLERANCE_SHARE: f64 = 0.05;
/// A share of lost packets may differ by so many standard deviations of their number,
const LOSS_TOLERANCE_SIGMAS: f64 = 4.0;
/// and by this much: a packet of a long row.
const LOSS_TOLERANCE: f64 = 0.005;

/// Bytes of IP and UDP headers.
const HEADER_BYTES: usize = 28;
/// Bytes of a packet that measures delay, and of one that measures a rate; headers included.
const PROBE_BYTES: usize = 128;
const STREAM_BYTES: usize = 1_228;
/// Packets that measure a delay, and those that measure a share of losses.
const PROBES: usize = 60;
const LOSS_PROBES: usize = 1_000;
/// Pauses between them.
const PROBE_GAP: Duration = Duration::from_millis(2);
const LOSS_PROBE_GAP: Duration = Duration::from_micros(200);
/// What a stream offers, as a multiple of the rate; and for how long, unless jitter asks for more.
const OFFERED: f64 = 1.5;
const STREAM: Duration = Duration::from_millis(700);
const STREAM_JITTERS: u32 = 60;
/// How long after the last packet could have arrived we still listen.
const LINGER: Duration = Duration::from_millis(300);
/// Room for packets that have arrived and were not read, in bytes.
const RECEIVE_BYTES: usize = 16 << 20;

/// How long the kernel may take until it puts times on packets.
const STAMPS_MAX: Duration = Duration::from_secs(10);
/// How long a packet lies until it is read, to see whether its time is that of its arrival or of its reading.
const STAMP_LIES: Duration = Duration::from_millis(5);

/// Keeps the kernel putting times on packets as they arrive. It does so only while a socket wants that, begins some time
/// after the first one does, and until then gives a packet the time at which it is read.
#[derive(Debug)]
pub(crate) struct Stamps(UdpSocket);

impl Stamps {
    /// Returns when the kernel does.
    ///
    /// # Errors
    ///
    /// When it never does.
    pub(crate) fn keep() -> Result<Self> {
        let stamps = Self(UdpSocket::bind(("127.0.0.1", 0))?);
        setsockopt(&stamps.0, ReceiveTimestampns, &true)?;
        wait::until(STAMPS_MAX, "the kernel puts times on packets", || {
            let mut flights = Flights::default();
            stamps.0.send_to(&[0; 8], stamps.0.local_addr()?)?;
            std::thread::sleep(STAMP_LIES);
            flights.gather(&stamps.0)?;
            let lay = flights
                .arrived
                .first()
                .map(|(_, at)| since(*at, SystemTime::now()));
            Ok(lay.filter(|lay| *lay >= STAMP_LIES / 2).map(drop))
        })?;
        Ok(stamps)
    }
}

/// What was measured of one way.
#[derive(Debug, Clone, PartialEq)]
pub struct Measured {
    /// Packets that measured delay and losses.
    pub probes: usize,
    /// Delay of the packet in the middle; `None` when none arrived.
    pub delay: Option<Duration>,
    /// Delays that 5 % and 95 % of the packets stayed below.
    pub band: (Duration, Duration),
    /// The share of packets that did not arrive.
    pub loss: f64,
    /// How often a packet arrived before one that was sent earlier.
    pub overtakes: usize,
    /// Bits a second that came through when more was offered; only where a rate was asked.
    pub rate_bits: Option<f64>,
}

/// Packets of a row: how long each took, and the order of arrival.
#[derive(Debug, Default)]
struct Flights {
    sent: Vec<SystemTime>,
    /// Number and time of arrival, in the order of arrival.
    arrived: Vec<(usize, SystemTime)>,
}

/// Measures the way between two sockets. `shape` is what was asked, and decides only how long and with what we look.
///
/// # Errors
///
/// When the sockets fail.
pub(crate) fn measure(from: &UdpSocket, to: &UdpSocket, shape: &Shape) -> Result<Measured> {
    setsockopt(to, ReceiveTimestampns, &true)?;
    setsockopt(to, RcvBufForce, &RECEIVE_BYTES)?;
    to.set_nonblocking(true)?;
    from.connect(to.local_addr()?)?;
    let (probes, gap) = if shape.loss > 0.0 {
        (LOSS_PROBES, LOSS_PROBE_GAP)
    } else {
        (PROBES, PROBE_GAP)
    };
    let gap = gap.max(shape.sending(PROBE_BYTES as u64) * 2);
    let flights = Flights::of(from, to, shape, (probes, PROBE_BYTES, gap))?;
    let rate_bits = match shape.rate_bits {
        Some(rate) if !shape.is_cut => stream(from, to, shape, rate as f64)?,
        _ => None,
    };
    Ok(flights.measured(rate_bits))
}

/// Offers more than the rate, and returns what came through.
fn stream(from: &UdpSocket, to: &UdpSocket, shape: &Shape, rate: f64) -> Result<Option<f64>> {
    let gap = Duration::from_secs_f64(STREAM_BYTES as f64 * 8.0 / (rate * OFFERED));
    let length = STREAM.max(shape.jitter * STREAM_JITTERS);
    let count = (length.as_secs_f64() / gap.as_secs_f64()).ceil() as usize;
    let flights = Flights::of(from, to, shape, (count.max(2), STREAM_BYTES, gap))?;
    let times = flights.arrived.iter().map(|(_, at)| *at);
    let (Some(first), Some(last)) = (times.clone().min(), times.max()) else {
        return Ok(None);
    };
    // The first packet's bytes were sent before it arrived.
    let bits = (flights.arrived.len() - 1) as f64 * STREAM_BYTES as f64 * 8.0;
    Ok(Some(bits / since(first, last).as_secs_f64().max(1e-9)))
}

/// The clock of the system may be set back meanwhile; that makes one figure wrong, and the median is not it.
fn since(earlier: SystemTime, later: SystemTime) -> Duration {
    later.duration_since(earlier).unwrap_or_default()
}

impl Flights {
    fn of(
        from: &UdpSocket,
        to: &UdpSocket,
        shape: &Shape,
        (count, bytes, gap): (usize, usize, Duration),
    ) -> Result<Self> {
        let mut flights = Self::default();
        let begun = Instant::now();
        let mut payload = vec![0; bytes - HEADER_BYTES];
        for number in 0..count {
            payload[..8].copy_from_slice(&(number as u64).to_le_bytes());
            flights.sent.push(SystemTime::now());
            // A firewall of the sender may refuse what it would drop; the packet is lost either way.
            let _ = from.send(&payload);
            flights.gather(to)?;
            let next = gap * (number as u32 + 1);
            std::thread::sleep(next.saturating_sub(begun.elapsed()));
        }
        let longest = shape.delay + shape.jitter + shape.sending(shape.queue_bytes) + LINGER;
        let ends = Instant::now() + longest;
        while flights.arrived.len() < count && Instant::now() < ends {
            let left = ends.saturating_duration_since(Instant::now());
            let timeout = PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX);
            let mut polled = [PollFd::new(to.as_fd(), PollFlags::POLLIN)];
            // Interrupted by a signal, it is asked again.
            let _ = poll(&mut polled, timeout);
            flights.gather(to)?;
        }
        Ok(flights)
    }

    /// Takes what has arrived.
    fn gather(&mut self, to: &UdpSocket) -> Result<()> {
        let mut control = nix::cmsg_space!(TimeSpec);
        let mut number = [0; 8];
        loop {
            let mut parts = [IoSliceMut::new(&mut number)];
            let control = Some(control.as_mut_slice());
            let got = recvmsg::<()>(to.as_raw_fd(), &mut parts, control, MsgFlags::MSG_DONTWAIT);
            let at = match got {
                Ok(message) => message.cmsgs()?.find_map(arrival),
                Err(Errno::EAGAIN) => return Ok(()),
                Err(error) => return Err(error).context("reading a packet"),
            };
            let at = at.context("the kernel put no time on a packet")?;
            self.arrived.push((u64::from_le_bytes(number) as usize, at));
        }
    }

    fn measured(&self, rate_bits: Option<f64>) -> Measured {
        // A packet of an earlier row that came late would have a number beyond this one's.
        let known = self
            .arrived
            .iter()
            .filter(|(number, _)| *number < self.sent.len());
        let mut delays: Vec<Duration> = known
            .clone()
            .map(|(number, at)| since(self.sent[*number], *at))
            .collect();
        delays.sort_unstable();
        let quantile = |share: f64| {
            let last = delays.len().saturating_sub(1) as f64;
            delays.get((last * share).round() as usize).copied()
        };
        let order: Vec<usize> = known.map(|(number, _)| *number).collect();
        Measured {
            probes: self.sent.len(),
            delay: quantile(0.5),
            band: (
                quantile(0.05).unwrap_or_default(),
                quantile(0.95).unwrap_or_default(),
            ),
            loss: 1.0 - delays.len() as f64 / self.sent.len() as f64,
            overtakes: order.windows(2).filter(|two| two[1] < two[0]).count(),
            rate_bits,
        }
    }
}

fn arrival(message: ControlMessageOwned) -> Option<SystemTime> {
    match message {
        ControlMessageOwned::ScmTimestampns(time) => {
            Some(SystemTime::UNIX_EPOCH + Duration::from(time))
        }
        _ => None,
    }
}

impl Measured {
    /// In what this is not what was asked, each as a sentence; empty when it is.
    pub fn misses(&self, asked: &Shape) -> Vec<String> {
        if asked.is_cut {
            let arrived = (self.loss < 1.0).then(|| "packets go through a cut".to_owned());
            return arrived.into_iter().collect();
        }
        [
            self.delay_miss(asked),
            self.jitter_miss(asked),
            self.loss_miss(asked),
            self.rate_miss(asked),
        ]
        .into_iter()
        .flatten()
        .collect()
    }

    fn delay_miss(&self, asked: &Shape) -> Option<String> {
        let Some(delay) = self.delay else {
            return Some("no packet arrived".to_owned());
        };
        let expected = asked.delay + asked.sending(PROBE_BYTES as u64);
        let tolerance = tolerance(expected) + asked.jitter;
        (delay.abs_diff(expected) > tolerance).then(|| {
            format!(
                "a packet takes {:.2} ms where {:.2} ± {:.2} ms were asked",
                ms(delay),
                ms(expected),
                ms(tolerance)
            )
        })
    }

    fn jitter_miss(&self, asked: &Shape) -> Option<String> {
        if self.overtakes > 0 && !asked.reorders {
            let times = self.overtakes;
            return Some(format!("packets overtook others {times} times"));
        }
        let expected = asked.delay + asked.sending(PROBE_BYTES as u64);
        let slack = tolerance(expected);
        let (low, high) = self.band;
        let outside =
            low + slack + asked.jitter < expected || high > expected + asked.jitter + slack;
        let steady = high.saturating_sub(low) * 4 < asked.jitter;
        let is_missed = !asked.jitter.is_zero() && self.delay.is_some() && (outside || steady);
        is_missed.then(|| {
            format!(
                "90 % of the packets take {:.2} to {:.2} ms where {:.2} ± {:.2} ms were asked",
                ms(low),
                ms(high),
                ms(expected),
                ms(asked.jitter)
            )
        })
    }

    fn loss_miss(&self, asked: &Shape) -> Option<String> {
        let sigma = (asked.loss * (1.0 - asked.loss) / self.probes as f64).sqrt();
        let tolerance = LOSS_TOLERANCE_SIGMAS * sigma + LOSS_TOLERANCE;
        ((self.loss - asked.loss).abs() > tolerance).then(|| {
            format!(
                "{:.1} % of {} packets were lost where {:.1} ± {:.1} % were asked",
                self.loss * 100.0,
                self.probes,
                asked.loss * 100.0,
                tolerance * 100.0
            )
        })
    }

    fn rate_miss(&self, asked: &Shape) -> Option<String> {
        let expected = asked.rate_bits? as f64;
        let rate = self.rate_bits.unwrap_or(0.0);
        ((rate - expected).abs() > expected * RATE_TOLERANCE_SHARE).then(|| {
            format!(
                "{:.0} kbit/s come through where {:.0} were asked",
                rate / 1e3,
                expected / 1e3
            )
        })
    }
}

fn tolerance(delay: Duration) -> Duration {
    DELAY_TOLERANCE + delay.mul_f64(DELAY_TOLERANCE_SHARE)
}

fn ms(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

impl fmt::Display for Measured {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(delay) = self.delay else {
            return write!(f, "none of {} packets arrived", self.probes);
        };
        let (low, high) = (ms(self.band.0), ms(self.band.1));
        write!(f, "{:.2} ms ({low:.2}–{high:.2})", ms(delay))?;
        if self.loss > 0.0 {
            write!(f, ", {:.1} % lost", self.loss * 100.0)?;
        }
        if let Some(rate) = self.rate_bits {
            write!(f, ", {:.0} kbit/s", rate / 1e3)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    fn good() -> Measured {
        Measured {
            probes: 1_000,
            delay: Some(20 * MS),
            band: (19 * MS, 21 * MS),
            loss: 0.0,
            overtakes: 0,
            rate_bits: None,
        }
    }

    /// What is missed by these figures, if these conditions were asked: the beginnings of the sentences.
    #[track_caller]
    fn check(measured: Measured, asked: Shape, expected: &[&str]) {
        let misses = measured.misses(&asked);
        let fits = misses.len() == expected.len()
            && misses.iter().zip(expected).all(|(m, e)| m.contains(e));
        assert!(fits, "{asked}: {misses:?}, expected {expected:?}");
    }

    #[test]
    fn each_figure_is_held_against_what_was_asked() {
        let asked = Shape {
            delay: 20 * MS,
            ..Shape::default()
        };
        let late = Measured {
            delay: Some(22 * MS),
            ..good()
        };
        let early = Measured {
            delay: Some(10 * MS),
            ..good()
        };
        let lost = |loss| Measured { loss, ..good() };
        let jittery = Shape {
            jitter: 10 * MS,
            ..asked
        };
        let rate = |bits| Measured {
            rate_bits: bits,
            ..good()
        };
        let limited = Shape {
            rate_bits: Some(100_000_000),
            ..asked
        };
        let lossy = Shape { loss: 0.1, ..asked };
        let cut = Shape {
            is_cut: true,
            ..asked
        };
        let nothing = Measured {
            delay: None,
            loss: 1.0,
            ..good()
        };
        let overtaken = Measured {
            overtakes: 1,
            ..good()
        };
        check(good(), asked, &[]);
        check(late, asked, &["takes 22.00 ms"]);
        check(early, asked, &["takes 10.00 ms where 20.00"]);
        check(lost(0.01), asked, &["1.0 % of 1000 packets"]);
        check(lost(0.1), lossy, &[]);
        check(lost(0.2), lossy, &["20.0 %"]);
        check(lost(0.0), lossy, &["0.0 %"]);
        check(good(), jittery, &["90 % of the packets take 19"]);
        check(overtaken.clone(), asked, &["overtook"]);
        check(rate(Some(99e6)), limited, &[]);
        check(rate(Some(80e6)), limited, &["80000 kbit/s"]);
        check(rate(None), limited, &["0 kbit/s"]);
        check(nothing.clone(), cut, &[]);
        check(good(), cut, &["cut"]);
        check(nothing, asked, &["no packet", "100.0 %"]);
        let wide = Measured {
            band: (12 * MS, 28 * MS),
            ..overtaken
        };
        let reordering = Shape {
            reorders: true,
            ..jittery
        };
        check(wide, reordering, &[]);
    }
}
