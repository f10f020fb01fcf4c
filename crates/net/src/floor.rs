//! A floor under congestion control.
//!
//! A ring is silent for minutes and then sends a prompt's activations at once. noq 1.4's BBR3 takes the few bytes of
//! heartbeats for the bandwidth of the path (every other one is not marked as limited by the application), so after half a
//! minute it paced 80 kB over one or two seconds on loopback. Whatever the controller believes, a sender may therefore
//! begin with what any path of a home carries, and losses still slow it down to that.

use iroh::endpoint::{Controller, ControllerFactory, ControllerMetrics, RttEstimator};
use std::any::Any;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Bytes in flight that are always allowed: a burst that the queue of a home router takes.
pub(crate) const WINDOW_FLOOR_BYTES: u64 = 64 << 10;
/// The slowest pace, in bytes a second: 10 Mbit/s, the upstream of a slow home line.
pub(crate) const PACE_FLOOR_BYTES: u64 = 1_250_000;

/// Makes controllers with a floor from those of another factory.
pub(crate) struct FloorConfig(pub(crate) Arc<dyn ControllerFactory + Send + Sync>);

impl ControllerFactory for FloorConfig {
    fn build(self: Arc<Self>, now: Instant, current_mtu: u16) -> Box<dyn Controller> {
        Box::new(Floor(Arc::clone(&self.0).build(now, current_mtu)))
    }
}

#[derive(Debug)]
struct Floor(Box<dyn Controller>);

impl Controller for Floor {
    fn on_sent(&mut self, now: Instant, bytes: u64, largest_pn: u64) {
        self.0.on_sent(now, bytes, largest_pn);
    }

    fn on_packet_sent(&mut self, now: Instant, bytes: u16, pn: u64) {
        self.0.on_packet_sent(now, bytes, pn);
    }

    fn on_cwnd_limited(&mut self) {
        self.0.on_cwnd_limited();
    }

    fn on_ack(
        &mut self,
        now: Instant,
        sent: Instant,
        bytes: u64,
        pn: u64,
        app_limited: bool,
        rtt: &RttEstimator,
    ) {
        self.0.on_ack(now, sent, bytes, pn, app_limited, rtt);
    }

    fn on_end_acks(
        &mut self,
        now: Instant,
        in_flight: u64,
        app_limited: bool,
        largest: Option<u64>,
    ) {
        self.0.on_end_acks(now, in_flight, app_limited, largest);
    }

    fn on_congestion_event(
        &mut self,
        now: Instant,
        sent: Instant,
        persistent: bool,
        ecn: bool,
        lost_bytes: u64,
        largest_lost: u64,
    ) {
        self.0
            .on_congestion_event(now, sent, persistent, ecn, lost_bytes, largest_lost);
    }

    fn on_packet_lost(&mut self, lost_bytes: u16, pn: u64, now: Instant) {
        self.0.on_packet_lost(lost_bytes, pn, now);
    }

    fn on_spurious_congestion_event(&mut self) {
        self.0.on_spurious_congestion_event();
    }

    fn on_mtu_update(&mut self, new_mtu: u16) {
        self.0.on_mtu_update(new_mtu);
    }

    fn on_ack_frequency_update(&mut self, threshold: u64, max_ack_delay: Duration) {
        self.0.on_ack_frequency_update(threshold, max_ack_delay);
    }

    fn window(&self) -> u64 {
        self.0.window().max(WINDOW_FLOOR_BYTES)
    }

    fn metrics(&self) -> ControllerMetrics {
        let mut metrics = self.0.metrics();
        metrics.congestion_window = metrics.congestion_window.max(WINDOW_FLOOR_BYTES);
        metrics.pacing_rate = metrics.pacing_rate.map(|rate| rate.max(PACE_FLOOR_BYTES));
        metrics
    }

    fn clone_box(&self) -> Box<dyn Controller> {
        Box::new(Self(self.0.clone_box()))
    }

    fn initial_window(&self) -> u64 {
        self.0.initial_window().max(WINDOW_FLOOR_BYTES)
    }

    fn into_any(self: Box<Self>) -> Box<dyn Any> {
        self.0.into_any()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A controller whose estimate is what it was made with.
    #[derive(Debug, Clone)]
    struct Believes(u64);

    impl Controller for Believes {
        fn on_congestion_event(
            &mut self,
            _: Instant,
            _: Instant,
            _: bool,
            _: bool,
            _: u64,
            _: u64,
        ) {
        }
        fn on_mtu_update(&mut self, _: u16) {}
        fn window(&self) -> u64 {
            self.0
        }
        fn metrics(&self) -> ControllerMetrics {
            let mut metrics = ControllerMetrics::default();
            metrics.congestion_window = self.0;
            metrics.pacing_rate = Some(self.0);
            metrics
        }
        fn clone_box(&self) -> Box<dyn Controller> {
            Box::new(self.clone())
        }
        fn initial_window(&self) -> u64 {
            self.0
        }
        fn into_any(self: Box<Self>) -> Box<dyn Any> {
            self
        }
    }

    fn check(believed: u64, window: u64, pace: u64) {
        let floor = Floor(Box::new(Believes(believed)));
        for controller in [&floor as &dyn Controller, floor.clone_box().as_ref()] {
            assert_eq!(controller.window(), window);
            assert_eq!(controller.metrics().congestion_window, window);
            assert_eq!(controller.metrics().pacing_rate, Some(pace));
        }
    }

    #[test]
    fn a_collapsed_estimate_is_lifted_and_a_good_one_is_kept() {
        check(5_600, WINDOW_FLOOR_BYTES, PACE_FLOOR_BYTES);
        check(9_000_000, 9_000_000, 9_000_000);
    }
}
