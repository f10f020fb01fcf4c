//! How QUIC is set up: windows, streams, time-outs, congestion control.

use crate::floor::FloorConfig;
use crate::limits::{
    ACK_DELAY_MS, IDLE_MS, KEEP_ALIVE_MS, SEND_WINDOW_BYTES, STRANGER_WINDOW_BYTES, STREAMS_MAX,
    WINDOW_BYTES,
};
use iroh::endpoint::{
    AckFrequencyConfig, Connection, ControllerFactory, QuicTransportConfig, VarInt,
};
use noq_proto::congestion::{Bbr3Config, CubicConfig};
use std::sync::Arc;
use std::time::Duration;

/// What decides how fast to send.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Congestion {
    /// BBR version 3 (draft-ietf-ccwg-bbr): follows measured bandwidth, keeps its speed when packets get lost. With
    /// a floor (module `floor`), since its estimate collapses in silence.
    #[default]
    Bbr3,
    /// Cubic (RFC 9438): takes every loss for congestion. For comparison.
    Cubic,
}

/// The setting of every connection, incoming and outgoing.
///
/// A connection begins with the window for strangers; [`trust`] widens it.
pub(crate) fn config(congestion: Congestion) -> QuicTransportConfig {
    let factory: Arc<dyn ControllerFactory + Send + Sync> = match congestion {
        Congestion::Bbr3 => Arc::new(FloorConfig(Arc::new(Bbr3Config::default()))),
        Congestion::Cubic => Arc::new(CubicConfig::default()),
    };
    QuicTransportConfig::builder()
        .max_concurrent_bidi_streams(VarInt::from_u32(STREAMS_MAX))
        .max_concurrent_uni_streams(VarInt::from_u32(0))
        .datagram_receive_buffer_size(None)
        .stream_receive_window(VarInt::from_u32(WINDOW_BYTES))
        .receive_window(VarInt::from_u32(STRANGER_WINDOW_BYTES))
        .send_window(SEND_WINDOW_BYTES)
        .max_idle_timeout(Some(VarInt::from_u32(IDLE_MS).into()))
        .keep_alive_interval(Duration::from_millis(KEEP_ALIVE_MS))
        .ack_frequency_config(Some(early_acks()))
        .default_path_max_idle_timeout(Duration::from_millis(u64::from(IDLE_MS)))
        .default_path_keep_alive_interval(Duration::from_millis(KEEP_ALIVE_MS))
        .congestion_controller_factory(factory)
        .build()
}

/// Asks the other side to confirm a lone packet early (draft-ietf-quic-ack-frequency). A token is one packet or two, so the
/// ordinary 25 ms would be part of how long its loss goes unnoticed (RFC 9002, 6.2.1). Bulk is confirmed as ever.
fn early_acks() -> AckFrequencyConfig {
    let mut early = AckFrequencyConfig::default();
    early.max_ack_delay(Some(Duration::from_millis(ACK_DELAY_MS)));
    early
}

/// Widens the window of a connection whose other side has proven its membership.
pub(crate) fn trust(connection: &Connection) {
    connection.set_receive_window(VarInt::from_u32(WINDOW_BYTES));
}
