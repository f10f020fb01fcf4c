//! Numbers that steer the draw, and texts that end an answer.

use super::lenient::Texts;
use crate::fault::Fault;
use serde_json::{Map, Number, Value};
use std::ops::RangeInclusive;

/// The most stop strings in one request. OpenAI takes 4.
pub const STOPS_MAX: usize = 16;
/// The longest stop string, in bytes.
pub const STOP_BYTES_MAX: usize = 1024;
/// The highest temperature.
pub(crate) const TEMPERATURE_MAX: f64 = 2.0;
/// The most answers to one request.
pub const CHOICES_MAX: u32 = 16;
/// The most tokens that a logit bias may name.
pub const LOGIT_BIAS_MAX: usize = 1024;
/// The most alternatives of a token whose probabilities are told.
pub const TOP_LOGPROBS_MAX: u32 = 20;

pub(crate) fn temperature(value: Option<f64>) -> Result<Option<f32>, Fault> {
    within("temperature", value, 0.0..=TEMPERATURE_MAX)
}

/// A number within a range.
pub(crate) fn within(
    param: &str,
    value: Option<f64>,
    range: RangeInclusive<f64>,
) -> Result<Option<f32>, Fault> {
    match value {
        Some(number) if !range.contains(&number) => {
            let (low, high) = range.into_inner();
            let message = format!("'{param}' is {number}; it must lie between {low} and {high}");
            Err(Fault::invalid(param, message))
        }
        fine => Ok(fine.map(|number| number as f32)),
    }
}

pub(crate) fn top_p(value: Option<f64>) -> Result<Option<f32>, Fault> {
    match value {
        Some(p) if !(p > 0.0 && p <= 1.0) => Err(Fault::invalid(
            "top_p",
            format!("'top_p' is {p}; it must lie above 0 and not above 1"),
        )),
        // A tiny number must not become 0 by rounding.
        fine => Ok(fine.map(|p| (p as f32).max(f32::MIN_POSITIVE))),
    }
}

pub(crate) fn top_k(value: Option<&Number>) -> Result<Option<u32>, Fault> {
    match value.map(whole) {
        None => Ok(None),
        // llama-server's way to say "all".
        Some(Some(-1)) => Ok(Some(0)),
        Some(Some(k)) if k >= 0 => Ok(Some(u32::try_from(k).unwrap_or(u32::MAX))),
        Some(_) => Err(Fault::invalid(
            "top_k",
            "'top_k' must be a whole number; 0 keeps all tokens",
        )),
    }
}

pub(crate) fn seed(value: Option<&Number>) -> Result<Option<u64>, Fault> {
    match value.map(whole) {
        None => Ok(None),
        Some(Some(seed)) => Ok(Some(seed as u64)),
        Some(None) => Err(Fault::invalid(
            "seed",
            "'seed' must be a whole number of at most 64 bits",
        )),
    }
}

/// The most tokens, from the first of these fields that is there.
pub(crate) fn max_tokens(fields: &[(&str, &Option<Number>)]) -> Result<Option<u32>, Fault> {
    let given = fields
        .iter()
        .find_map(|(name, v)| Some((name, v.as_ref()?)));
    let Some((param, value)) = given else {
        return Ok(None);
    };
    match whole(value) {
        Some(count) if count >= 1 => Ok(Some(u32::try_from(count).unwrap_or(u32::MAX))),
        _ => {
            let message = format!("'{param}' is {value}; it must be a whole number of at least 1");
            Err(Fault::invalid(*param, message))
        }
    }
}

/// A count within a range, with what it is if it is missing.
pub(crate) fn count(
    param: &str,
    value: Option<&Number>,
    missing: u32,
    range: RangeInclusive<u32>,
) -> Result<u32, Fault> {
    let Some(value) = value else {
        return Ok(missing);
    };
    let count = whole(value).and_then(|count| u32::try_from(count).ok());
    count.filter(|count| range.contains(count)).ok_or_else(|| {
        let (low, high) = range.into_inner();
        let message =
            format!("'{param}' is {value}; it must be a whole number between {low} and {high}");
        Fault::invalid(param, message)
    })
}

/// A whole number of 64 bits; also when it is written like `10.0`, as some clients do.
fn whole(number: &Number) -> Option<i128> {
    const EXACT_MAX: f64 = 9_007_199_254_740_992.0; // 2^53: up to here every whole f64 is exact
    match number.as_i128() {
        Some(whole) => Some(whole),
        None => number
            .as_f64()
            .filter(|f| f.fract() == 0.0 && f.abs() <= EXACT_MAX)
            .map(|f| f as i128),
    }
}

/// `{"token": bias}`, as pairs.
pub(crate) fn logit_bias(value: Option<Map<String, Value>>) -> Result<Vec<(i32, f32)>, Fault> {
    let value = value.unwrap_or_default();
    if value.len() > LOGIT_BIAS_MAX {
        let message = format!("'logit_bias' names more than {LOGIT_BIAS_MAX} tokens");
        return Err(Fault::invalid("logit_bias", message));
    }
    let pair = |(token, bias): (String, Value)| {
        let token = token.parse().ok().filter(|token| *token >= 0);
        let bias = bias.as_f64().filter(|bias| bias.abs() <= 100.0);
        token.zip(bias.map(|bias| bias as f32))
    };
    let pairs: Option<Vec<_>> = value.into_iter().map(pair).collect();
    pairs.ok_or_else(|| {
        let message = "'logit_bias' maps numbers of tokens to numbers between -100 and 100";
        Fault::invalid("logit_bias", message)
    })
}

pub(crate) fn stops(param: &str, texts: Texts) -> Result<Vec<String>, Fault> {
    let Texts(stops) = texts;
    let refused = if stops.len() > STOPS_MAX {
        format!("has {} texts, at most {STOPS_MAX} are allowed", stops.len())
    } else if stops.iter().any(String::is_empty) {
        "has an empty text, which would end every answer".to_owned()
    } else if stops.iter().any(|stop| stop.len() > STOP_BYTES_MAX) {
        format!("has a text of more than {STOP_BYTES_MAX} bytes")
    } else {
        return Ok(stops);
    };
    Err(Fault::invalid(param, format!("'{param}' {refused}")))
}
