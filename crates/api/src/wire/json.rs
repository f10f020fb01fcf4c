//! Bytes to a typed structure, with errors that say where.

use super::lenient::Shape;
use crate::fault::Fault;
use serde::Deserialize;
use serde_json::error::Category;
use std::collections::HashMap;

/// How deep lists and objects of a request may be nested.
pub const DEPTH_MAX: usize = 64;
/// How many values a request may consist of, nearly: a list of numbers takes twenty times its text in memory.
pub const VALUES_MAX: usize = 1 << 19;
/// The longest explanation of a type error, in characters.
const MESSAGE_CHARS_MAX: usize = 300;

/// Reads one JSON document.
///
/// # Errors
///
/// 400 with line and column for text that is not JSON, and with the field for a value of the wrong type.
pub(crate) fn read<'a, T: Deserialize<'a>>(body: &'a [u8]) -> Result<T, Fault> {
    let text = std::str::from_utf8(body).map_err(|error| {
        let at = error.valid_up_to();
        Fault::bad_request(
            "invalid_utf8",
            format!("the body is not UTF-8: see byte {at}"),
        )
    })?;
    limit_extent(text)?;
    let mut reader = serde_json::Deserializer::from_str(text);
    let value = serde_path_to_error::deserialize(&mut reader).map_err(|error| explain(&error))?;
    reader.end().map_err(|error| not_json(&error))?;
    Ok(value)
}

/// Fields that would change the answer and are not supported, each with the number besides "nothing" that changes none.
pub(crate) type Refused<'a> = &'a [(&'a str, f64)];

/// Reads a document like [`read`], and refuses it if one of these fields at its top says anything.
///
/// # Errors
///
/// Those of [`read`], and 400 with the field.
pub(crate) fn read_without<'a, T: Deserialize<'a>>(
    body: &'a [u8],
    refused: Refused<'_>,
) -> Result<T, Fault> {
    let shapes: HashMap<String, Shape> = read(body)?;
    refuse(&shapes, refused)?;
    read(body)
}

/// Refuses these fields if they say anything.
///
/// # Errors
///
/// 400 with the field.
pub(crate) fn refuse(shapes: &HashMap<String, Shape>, refused: Refused<'_>) -> Result<(), Fault> {
    for (name, neutral) in refused {
        let shape = shapes.get(*name).unwrap_or(&Shape::Nothing);
        if *shape != Shape::Nothing && *shape != Shape::Number(*neutral) {
            return Err(not_supported(name, &format!("'{name}' with this value")));
        }
    }
    Ok(())
}

/// What would change the answer and cannot be done.
pub(crate) fn not_supported(param: &str, what: &str) -> Fault {
    let message = format!(
        "{what} is not supported by this server and would change the answer; leave '{param}' out"
    );
    Fault::unsupported(param, message)
}

/// A client's text for an error message: its beginning.
pub(crate) fn shortened(text: &str) -> &str {
    const CHARS_MAX: usize = 40;
    text.char_indices()
        .nth(CHARS_MAX)
        .map_or(text, |(end, _)| &text[..end])
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

/// Refuses deep nesting and very many values before any reader sees them. What is in strings does not count.
fn limit_extent(text: &str) -> Result<(), Fault> {
    let (mut depth, mut values, mut in_string, mut escaped) = (0_usize, 0_usize, false, false);
    for byte in text.bytes() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if in_string => escaped = true,
            b'"' => in_string = !in_string,
            _ if in_string => {}
            b'[' | b'{' => {
                depth += 1;
                values += 1;
            }
            b']' | b'}' => depth = depth.saturating_sub(1),
            b',' => values += 1,
            _ => {}
        }
        if depth > DEPTH_MAX {
            let message = format!("lists and objects are nested more than {DEPTH_MAX} deep");
            return Err(Fault::bad_request("json_too_deep", message));
        }
        if values > VALUES_MAX {
            let message = format!("the body consists of more than {VALUES_MAX} values");
            return Err(Fault::bad_request("json_too_many_values", message));
        }
    }
    Ok(())
}
