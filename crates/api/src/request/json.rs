//! Bytes to a typed structure, with errors that say where.

use crate::fault::Fault;
use serde::Deserialize;
use serde_json::error::Category;

/// How deep lists and objects of a request may be nested.
pub const DEPTH_MAX: usize = 64;
/// The longest explanation of a type error, in characters.
const MESSAGE_CHARS_MAX: usize = 300;

/// Reads one JSON document.
///
/// # Errors
///
/// 400 with line and column for text that is not JSON, and with the field for a value of the wrong type.
pub(super) fn read<'a, T: Deserialize<'a>>(body: &'a [u8]) -> Result<T, Fault> {
    let text = std::str::from_utf8(body).map_err(|error| {
        let at = error.valid_up_to();
        Fault::bad_request(
            "invalid_utf8",
            format!("the body is not UTF-8: see byte {at}"),
        )
    })?;
    limit_depth(text)?;
    let mut reader = serde_json::Deserializer::from_str(text);
    let value = serde_path_to_error::deserialize(&mut reader).map_err(|error| explain(&error))?;
    reader.end().map_err(|error| not_json(&error))?;
    Ok(value)
}

fn explain(error: &serde_path_to_error::Error<serde_json::Error>) -> Fault {
    if error.inner().classify() != Category::Data {
        return not_json(error.inner());
    }
    let fault = Fault::bad_request("invalid_type", bounded(error.inner()));
    match error.path().to_string() {
        path if path == "." => fault,
        path => fault.about(path),
    }
}

/// The error's text, which quotes the client's value: shortened if that is long.
fn bounded(error: &serde_json::Error) -> String {
    let text = error.to_string();
    match text.char_indices().nth(MESSAGE_CHARS_MAX) {
        None => text,
        Some((end, _)) => {
            format!(
                "{}… at line {} column {}",
                &text[..end],
                error.line(),
                error.column()
            )
        }
    }
}

fn not_json(error: &serde_json::Error) -> Fault {
    Fault::bad_request("invalid_json", format!("the body is not JSON: {error}"))
}

/// Refuses deep nesting before any recursive reader sees it. Brackets in strings do not count.
fn limit_depth(text: &str) -> Result<(), Fault> {
    let (mut depth, mut in_string, mut escaped) = (0_usize, false, false);
    for byte in text.bytes() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if in_string => escaped = true,
            b'"' => in_string = !in_string,
            b'[' | b'{' if !in_string => depth += 1,
            b']' | b'}' if !in_string => depth = depth.saturating_sub(1),
            _ => {}
        }
        if depth > DEPTH_MAX {
            let message = format!("lists and objects are nested more than {DEPTH_MAX} deep");
            return Err(Fault::bad_request("json_too_deep", message));
        }
    }
    Ok(())
}
