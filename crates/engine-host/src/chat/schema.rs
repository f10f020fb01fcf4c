//! JSON schemas, bounded to what decoding can be bound by.
//!
//! A tool's schema is a stranger's text. Converters to grammars refuse some of JSON schema and are overwhelmed by more of it (a
//! string of up to a million letters is as many rules). What is left out here is not enforced while the model writes; the
//! model still reads the schema as it was sent.

use serde_json::{Map, Value, json};

/// The longest schema that decoding is bound by, in bytes; a longer one allows any object.
const SCHEMA_BYTES_MAX: usize = 64 << 10;
/// The deepest nesting of a schema; a deeper one is refused.
const DEPTH_MAX: usize = 48;
/// The largest count of letters or items that is enforced.
const COUNT_MAX: u64 = 256;
/// The largest number that is enforced as a limit: larger ones are not exact.
const LIMIT_MAX: f64 = 9_007_199_254_740_992.0;
/// Formats of strings that converters know.
const FORMATS: [&str; 4] = ["date", "time", "date-time", "uuid"];

/// A schema that allows any object.
pub(super) fn any_object() -> Value {
    json!({"type": "object"})
}

/// What of a schema is enforced.
///
/// # Errors
///
/// What is wrong with it, for people.
pub(super) fn bounded(schema: &Value) -> Result<Value, String> {
    let bounded = at_depth(schema, 0)?;
    if bounded.to_string().len() > SCHEMA_BYTES_MAX {
        return Ok(any_object());
    }
    Ok(bounded)
}

fn at_depth(schema: &Value, depth: usize) -> Result<Value, String> {
    if depth > DEPTH_MAX {
        return Err(format!(
            "its schema is nested deeper than {DEPTH_MAX} levels"
        ));
    }
    let Value::Object(map) = schema else {
        return Ok(json!({}));
    };
    let mut out = Map::new();
    for (key, value) in map {
        if let Some(kept) = kept(key, value, depth + 1)? {
            // Nothing is lost but that two alternatives may not fit at once.
            let key = if key == "oneOf" { "anyOf" } else { key };
            out.insert(key.to_owned(), kept);
        }
    }
    Ok(Value::Object(out))
}

fn kept(key: &str, value: &Value, depth: usize) -> Result<Option<Value>, String> {
    let same = |keep: bool| Ok(keep.then(|| value.clone()));
    match (key, value) {
        ("properties" | "$defs" | "definitions", Value::Object(map)) => {
            let one =
                |(name, schema): (&String, &Value)| Ok((name.clone(), at_depth(schema, depth)?));
            Ok(Some(Value::Object(
                map.iter().map(one).collect::<Result<_, String>>()?,
            )))
        }
        ("anyOf" | "oneOf" | "allOf" | "prefixItems", Value::Array(all)) if !all.is_empty() => {
            let all = all.iter().map(|schema| at_depth(schema, depth));
            Ok(Some(Value::Array(all.collect::<Result<_, _>>()?)))
        }
        ("additionalProperties", Value::Bool(_)) => same(true),
        ("items" | "additionalProperties", Value::Object(_)) => at_depth(value, depth).map(Some),
        ("const", _) => same(true),
        ("enum", Value::Array(values)) => same(!values.is_empty()),
        ("required", Value::Array(names)) => same(names.iter().all(Value::is_string)),
        ("type", Value::String(_)) => same(true),
        ("type", Value::Array(kinds)) => {
            same(!kinds.is_empty() && kinds.iter().all(Value::is_string))
        }
        ("$ref", Value::String(to)) => same(to.starts_with('#')),
        ("format", Value::String(format)) => same(FORMATS.contains(&format.as_str())),
        ("minLength" | "maxLength" | "minItems" | "maxItems", count) => {
            same(count.as_u64().is_some_and(|count| count <= COUNT_MAX))
        }
        ("minimum" | "maximum" | "exclusiveMinimum" | "exclusiveMaximum", limit) => {
            same(limit.as_f64().is_some_and(|limit| limit.abs() <= LIMIT_MAX))
        }
        _ => Ok(None),
    }
}

/// The same schema where it is found at `place` of a larger one, a JSON pointer: its references lead there.
pub(super) fn placed(mut schema: Value, place: &str) -> Value {
    rebase(&mut schema, place);
    schema
}

fn rebase(value: &mut Value, place: &str) {
    match value {
        Value::Object(map) => {
            for (key, value) in map {
                match value {
                    Value::String(to) if key == "$ref" => {
                        *to = format!("#{place}{}", to.trim_start_matches('#'));
                    }
                    // Not schemas.
                    _ if key == "const" || key == "enum" => {}
                    value => rebase(value, place),
                }
            }
        }
        Value::Array(values) => values.iter_mut().for_each(|value| rebase(value, place)),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_converters_cannot_take_is_left_out() {
        for (schema, expected) in [
            (
                json!({"type": "string", "maxLength": 1_000_000}),
                json!({"type": "string"}),
            ),
            (
                json!({"type": "string", "maxLength": 20}),
                json!({"type": "string", "maxLength": 20}),
            ),
            (
                json!({"type": "array", "minItems": -1}),
                json!({"type": "array"}),
            ),
            (json!({"pattern": "(a+)+$", "description": "d"}), json!({})),
            (json!({"format": "date"}), json!({"format": "date"})),
            (json!({"format": "hostname"}), json!({})),
            (json!({"$ref": "https://example.org/s"}), json!({})),
            (json!({"enum": []}), json!({})),
            (
                json!({"oneOf": [{"const": 1}]}),
                json!({"anyOf": [{"const": 1}]}),
            ),
            (json!({"minimum": 1e300}), json!({})),
            (
                json!({"properties": {"a": true, "pattern": {"type": "null"}}}),
                json!({"properties": {"a": {}, "pattern": {"type": "null"}}}),
            ),
        ] {
            assert_eq!(bounded(&schema), Ok(expected));
        }
    }

    #[test]
    fn too_much_is_refused_or_loosened() {
        let deep = (0..60).fold(json!({}), |inner, _| json!({"items": inner}));
        assert!(bounded(&deep).unwrap_err().contains("nested deeper"));
        let long: Map<String, Value> = (0..10_000)
            .map(|i| (format!("p{i}"), json!({"type": "null"})))
            .collect();
        assert_eq!(bounded(&json!({"properties": long})), Ok(any_object()));
    }

    #[test]
    fn references_move_with_their_schema() {
        let schema = json!({"$ref": "#/$defs/a", "items": {"$ref": "#"}, "const": {"$ref": "#"}});
        let expected =
            json!({"$ref": "#/x/$defs/a", "items": {"$ref": "#/x"}, "const": {"$ref": "#"}});
        assert_eq!(placed(schema, "/x"), expected);
    }
}
