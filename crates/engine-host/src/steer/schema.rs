//! JSON schemas before the compiler sees them.
//!
//! The compiler goes down a schema by calling itself, and copies schemas that are combined with each other, so a few
//! kilobytes can ask for more stack or memory than there is. What can do so is counted here first. Everything else is
//! bounded by the compiler's own limits and by time.

use serde_json::{Map, Value, json};
use std::collections::HashMap;

/// The most different targets of `$ref`.
const TARGETS_MAX: usize = 1_000;
/// The most levels of nesting, those of every target of a `$ref` added: so deep the compiler may go.
pub(super) const LEVELS_MAX: usize = 4_096;
/// The most alternatives where several keywords apply at once: the compiler writes all of their combinations down.
const ALTERNATIVES_MAX: u64 = 1_024;
/// The largest schema, in bytes, in which several keywords with alternatives apply at once.
const COMBINED_BYTES_MAX: usize = 32 << 10;

/// Why a schema is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum SchemaError {
    /// Not JSON.
    #[error("it is not JSON ({0})")]
    NotJson(String),
    /// Not a schema.
    #[error("a schema that something fits is an object or true, but this is {0}")]
    NotASchema(&'static str),
    /// Too many references.
    #[error("its $ref name {0} different places; at most {TARGETS_MAX} are followed")]
    Targets(usize),
    /// Too deep.
    #[error(
        "it is nested {0} levels deep when every $ref is followed; at most {LEVELS_MAX} are; flatten it"
    )]
    Deep(usize),
    /// Too many combinations.
    #[error(
        "allOf, anyOf, oneOf, enum and $ref beside each other make more than {ALTERNATIVES_MAX} combinations in one \
         place; write the ones that are meant in one anyOf"
    )]
    Combinations,
    /// Combinations in a large schema.
    #[error(
        "it has {0} bytes and combines allOf, anyOf, oneOf, enum or $ref in one place; such schemas may have \
         {COMBINED_BYTES_MAX} bytes"
    )]
    Large(usize),
}

/// Reads a schema and adds how it is to be compiled: strictly, blanks as the expression `blank` says.
pub(super) fn prepare(text: &str, blank: &str) -> Result<Value, SchemaError> {
    let schema = serde_json::from_str(text);
    let schema: Value = schema.map_err(|error| SchemaError::NotJson(error.to_string()))?;
    let mut schema = match schema {
        Value::Object(schema) => schema,
        Value::Bool(true) => Map::new(),
        Value::Bool(false) => return Err(SchemaError::NotASchema("false")),
        Value::Null => return Err(SchemaError::NotASchema("null")),
        Value::Number(_) => return Err(SchemaError::NotASchema("a number")),
        Value::String(_) => return Err(SchemaError::NotASchema("a text")),
        Value::Array(_) => return Err(SchemaError::NotASchema("an array")),
    };
    // Older drafts know fewer keywords, and unknown ones are passed over.
    schema.remove("$schema");
    schema.remove("x-guidance");
    let mut root = Value::Object(schema);
    check(&root, text.len())?;
    root["x-guidance"] = json!({ "whitespace_pattern": blank });
    Ok(root)
}

fn check(root: &Value, bytes: usize) -> Result<(), SchemaError> {
    let mut targets = HashMap::new();
    gather(root, root, &mut targets);
    if targets.len() > TARGETS_MAX {
        return Err(SchemaError::Targets(targets.len()));
    }
    let levels = levels(root) + targets.values().map(|target| levels(target)).sum::<usize>();
    if levels > LEVELS_MAX {
        return Err(SchemaError::Deep(levels));
    }
    let mut counted = Alternatives {
        targets,
        known: HashMap::new(),
        combined: 0,
    };
    counted.of(root);
    match counted.combined {
        0 => Ok(()),
        combined if combined > ALTERNATIVES_MAX => Err(SchemaError::Combinations),
        _ if bytes > COMBINED_BYTES_MAX => Err(SchemaError::Large(bytes)),
        _ => Ok(()),
    }
}

/// Collects the targets of all references.
fn gather<'a>(root: &'a Value, value: &'a Value, targets: &mut HashMap<&'a str, &'a Value>) {
    match value {
        Value::Array(items) => items.iter().for_each(|item| gather(root, item, targets)),
        Value::Object(map) => {
            if let Some(Value::String(name)) = map.get("$ref")
                && let Some(target) = target(root, name)
            {
                targets.insert(name, target);
            }
            map.values().for_each(|item| gather(root, item, targets));
        }
        _ => {}
    }
}

/// What a reference names, as the compiler reads it.
fn target<'a>(root: &'a Value, name: &str) -> Option<&'a Value> {
    if name == "#" || name == "#/" {
        return Some(root);
    }
    let mut steps = name.strip_prefix("#/")?.split('/');
    steps.try_fold(root, |at, step| match at {
        Value::Array(items) => items.get(step.parse::<usize>().ok()?),
        at => at.get(step),
    })
}

fn levels(value: &Value) -> usize {
    let below = match value {
        Value::Array(items) => items.iter().map(levels).max(),
        Value::Object(map) => map.values().map(levels).max(),
        _ => return 0,
    };
    1 + below.unwrap_or(0)
}

/// Counts into how many alternatives places of a schema fall.
struct Alternatives<'a> {
    targets: HashMap<&'a str, &'a Value>,
    known: HashMap<&'a str, u64>,
    /// The most in one place where several keywords multiply theirs; 0 if there is none.
    combined: u64,
}

impl<'a> Alternatives<'a> {
    fn of(&mut self, value: &'a Value) -> u64 {
        let Value::Object(map) = value else {
            // Lists of anything else than schemas, too: what is no schema has no such keywords.
            if let Value::Array(items) = value {
                items.iter().for_each(|item| {
                    self.of(item);
                });
            }
            return 1;
        };
        let (mut product, mut factors) = (1u64, 0);
        let mut multiply = |by: u64| {
            product = product.saturating_mul(by.max(1));
            factors += 1;
        };
        for (keyword, value) in map {
            match (keyword.as_str(), value) {
                ("allOf", Value::Array(items)) => {
                    items.iter().for_each(|item| multiply(self.of(item)))
                }
                ("anyOf" | "oneOf", Value::Array(items)) => {
                    let counts = items.iter().map(|item| self.of(item));
                    multiply(counts.fold(0, u64::saturating_add));
                }
                ("enum", Value::Array(items)) => multiply(items.len() as u64),
                ("const", _) => multiply(1),
                ("$ref", Value::String(name)) => multiply(self.of_target(name)),
                (_, value) => {
                    self.of(value);
                }
            }
        }
        if factors > 1 {
            self.combined = self.combined.max(product);
        }
        product
    }

    fn of_target(&mut self, name: &str) -> u64 {
        let Some((name, target)) = self.targets.get_key_value(name).map(|(n, t)| (*n, *t)) else {
            return 1;
        };
        if let Some(count) = self.known.get(name) {
            return *count;
        }
        // A circle is not followed twice.
        self.known.insert(name, 1);
        let count = self.of(target);
        self.known.insert(name, count);
        count
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(schema: &Value) -> String {
        let refused = prepare(&schema.to_string(), " ").err();
        refused.map_or(String::new(), |error| error.to_string())
    }

    fn check(schema: &Value, expected: &str) {
        let error = refused(schema);
        assert_eq!(error.is_empty(), expected.is_empty(), "{error}");
        assert!(error.contains(expected), "{error}");
    }

    #[test]
    fn what_is_no_schema_is_named() {
        for (text, expected) in [
            ("{", "not JSON"),
            ("7", "a number"),
            ("[]", "an array"),
            ("false", "false"),
            ("null", "null"),
            ("\"a\"", "a text"),
        ] {
            let error = prepare(text, " ").unwrap_err().to_string();
            assert!(error.contains(expected), "{text}: {error}");
        }
        let deep = "[".repeat(200) + &"]".repeat(200);
        assert!(
            prepare(&deep, " ")
                .unwrap_err()
                .to_string()
                .contains("recursion limit")
        );
    }

    #[test]
    fn nobody_but_us_says_how_strictly_it_is_compiled() {
        let lenient =
            json!({"type": "null", "x-guidance": {"lenient": true}, "$schema": "draft-04"});
        let prepared = prepare(&lenient.to_string(), " ").unwrap();
        let ours = json!({"type": "null", "x-guidance": {"whitespace_pattern": " "}});
        assert_eq!(prepared, ours);
    }

    #[test]
    fn chains_of_references_are_counted() {
        let chain = |length: usize| {
            let mut defs = Map::new();
            for i in 0..length {
                let next =
                    json!({"properties": {"a": {"items": {"$ref": format!("#/$defs/{}", i + 1)}}}});
                defs.insert(i.to_string(), next);
            }
            defs.insert(length.to_string(), json!({"type": "null"}));
            json!({"$defs": defs, "$ref": "#/$defs/0"})
        };
        check(&chain(900), "");
        check(&chain(999), "");
        check(&chain(1_000), "1001 different places");
        let mut deep = json!({"$ref": "#/$defs/0"});
        for _ in 0..40 {
            deep = json!({ "items": deep });
        }
        let defs: Vec<Value> = (0..120).map(|_| deep.clone()).collect();
        let names: Vec<Value> = (0..120)
            .map(|i| json!({"$ref": format!("#/$defs/{i}")}))
            .collect();
        check(&json!({"$defs": defs, "anyOf": names}), "levels deep");
    }

    #[test]
    fn combinations_are_counted() {
        let both = json!({"anyOf": [{"minLength": 1}, {"maxLength": 9}]});
        let all = |count: usize| json!({"allOf": vec![both.clone(); count]});
        check(&all(10), "");
        check(&all(11), "combinations");
        // Through a reference, and beside another keyword.
        let through = json!({"$defs": {"a": all(6)}, "allOf": [{"$ref": "#/$defs/a"}, {"$ref": "#/$defs/a"}]});
        check(&through, "combinations");
        let words: Vec<String> = (0..5_000).map(|i| format!("word {i}")).collect();
        check(&json!({"type": "string", "enum": words}), "");
        check(&json!({"enum": words, "anyOf": [{}]}), "combinations");
        let text = "x".repeat(COMBINED_BYTES_MAX);
        check(&json!({"const": text}), "");
        check(&json!({"const": text, "enum": [text]}), "bytes");
        // A schema that holds itself ends.
        check(&json!({"properties": {"next": {"$ref": "#"}}}), "");
    }
}
