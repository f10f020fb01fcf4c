//! The limits of what one node remembers of others, and how often it speaks.

use proto::ad::{AD_LIFE_MAX_S, AD_LIFE_MIN_S, AD_LINKS_MAX};

/// The most members that one node knows.
pub const MEMBERS_MAX: usize = 8_192;
/// Members without a link to us that may name one host: an IPv4 address, or a network of IPv6 addresses.
pub const HOST_UNLINKED_MAX: u32 = 16;
/// Leading bits of IPv6 addresses that make a host: what a provider gives to one household.
pub const HOST_V6_BITS: u32 = 56;
/// Members without a link to us that may be reached through one relay only.
pub const RELAYED_UNLINKED_MAX: u32 = 256;
/// Members without a link to us that one member may have let in, directly or through others. The founder may let in
/// any number.
pub const INTRODUCED_UNLINKED_MAX: u32 = 1_024;
/// Members whose lies are kept as evidence.
pub const SHUNNED_MAX: usize = 256;
/// Members that are gone and whose last ad is remembered, so that it cannot be played back.
pub const TOMBS_MAX: usize = 8_192;
/// Links whose state is kept.
pub const LINKS_KEPT_MAX: usize = 1_024;
/// Members whose own measurements are kept.
pub const MEASURED_MAX: usize = 1_024;
/// The most members of a circle.
pub const CIRCLE_MAX: usize = 256;
/// Branches of the commons that must have lost a member before it is suspected on hearsay.
pub const LOST_VOICES: usize = 2;
/// Branches that must have measured a member before their median counts.
pub const SPEED_VOICES: usize = 2;

/// Ads a second that all members together may send while they only renew.
pub const ADS_PER_S: u64 = 10;
/// The shortest time between two renewals, in milliseconds: an ad is renewed twice before it ends.
pub const RENEW_MIN_MS: u64 = AD_LIFE_MIN_S as u64 * 1_000 / 3;
/// The longest time between two renewals, in milliseconds.
pub const RENEW_MAX_MS: u64 = AD_LIFE_MAX_S as u64 * 1_000 / 3;
/// News may come by this factor more often than renewals.
pub const NEWS_FACTOR: u64 = 4;
/// The shortest time between any two ads, in milliseconds.
pub const AD_PAUSE_MS: u64 = 1_000;
/// How long a lost neighbour stays in our ads, in milliseconds, unless it comes back.
pub const LOST_KEPT_MS: u64 = 120_000;

/// Links that a node wants to have soon.
pub const LINKS_WANTED: usize = 8;
/// Links up to which it goes on to call members that it never measured.
pub const LINKS_EXPLORED: usize = 24;
/// Between two calls while links are missing, in milliseconds.
pub const CALL_PAUSE_MS: u64 = 5_000;
/// Between two calls of members that were never measured, in milliseconds.
pub const EXPLORE_PAUSE_MS: u64 = 30_000;
/// Members that are looked at for one call.
pub const CALL_LOOKS_MAX: usize = 64;
/// How long a member that could not be reached is left alone, in milliseconds; doubles with every failure.
pub const FAILED_PAUSE_MS: u64 = 30_000;
/// How often that doubles at most.
pub const FAILED_DOUBLINGS_MAX: u32 = 5;

/// How long a member that refused a stage is not planned with, in milliseconds; doubles with every refusal in a row.
pub const REFUSED_PAUSE_MS: u64 = 10_000;
/// How often that doubles at most.
pub const REFUSED_DOUBLINGS_MAX: u32 = 6;
/// How long nothing is asked of a member that sent false bytes of a model, in milliseconds.
pub const FALSE_PAUSE_MS: u64 = 3_600_000;
/// Members of whom is remembered that they did.
pub const FALSE_KEPT_MAX: usize = 256;

/// What is assumed of a way that nobody measured, there and back, in microseconds.
pub const ASSUMED_RTT_US: u64 = 200_000;
/// What is assumed of a layer that nobody measured, in microseconds.
pub const ASSUMED_LAYER_US: u64 = 50_000;
/// A member that announces its own speed counts as slower by half.
pub const ANNOUNCED_PERCENT: u64 = 150;
/// A member that announces nothing counts as slower than what is usual.
pub const UNKNOWN_PERCENT: u64 = 200;
/// From here on a measured time is called slower than announced, in percent.
pub const BOAST_PERCENT: u64 = 125;

/// The time between two renewals in a commons of so many members, in milliseconds: longer in a large one, so that what a
/// node hears a second stays the same.
#[must_use]
pub fn renew_ms(members: usize) -> u64 {
    (members as u64 * 1_000 / ADS_PER_S).clamp(RENEW_MIN_MS, RENEW_MAX_MS)
}

const _: () = assert!(RENEW_MIN_MS * 3 <= AD_LIFE_MIN_S as u64 * 1_000);
const _: () = assert!(RENEW_MIN_MS / NEWS_FACTOR >= AD_PAUSE_MS);
const _: () = assert!(LINKS_WANTED <= LINKS_EXPLORED && LINKS_EXPLORED <= LINKS_KEPT_MAX);
const _: () = assert!(AD_LINKS_MAX <= MEASURED_MAX);
const _: () = assert!((INTRODUCED_UNLINKED_MAX as usize) < MEMBERS_MAX);
