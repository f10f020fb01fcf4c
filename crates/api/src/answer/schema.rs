//! Whether an answer is what its schema wants.
//!
//! The engine steers each token by the schema, but not by every keyword of it, so the whole is checked in the end. A
//! schema comes from a client: what would take for ever to check is refused before anything is computed.

use crate::backend::Schema;
use crate::fault::Fault;
use serde_json::{Map, Value};
use std::collections::HashMap;

/// The most schemas that a schema may consist of when every `$ref` is replaced by what it names.
pub(crate) const SCHEMA_PARTS_MAX: u64 = 20_000;
/// How many references may lead to each other.
const REFERENCES_DEEP_MAX: usize = 64;
/// How often a pattern may be tried at one text.
const BACKTRACK_MAX: usize = 100_000;
/// The longest quotation of a violation, in characters.
const VIOLATION_CHARS_MAX: usize = 300;
/// Keywords behind which a smaller part of the document is checked: a `$ref` in a circle is fine behind one of them.
const DESCENDING: [&str; 10] = [
    "properties",
    "patternProperties",
    "additionalProperties",
    "unevaluatedProperties",
    "propertyNames",
    "items",
    "prefixItems",
    "additionalItems",
    "unevaluatedItems",
    "contains",
];

/// A check for a text.
#[derive(Debug)]
pub(crate) enum Checker {
    AnyObject,
    Schema(Box<jsonschema::Validator>),
}

/// Whether something is a JSON schema at all; `at` is the field.
///
/// # Errors
///
/// 400, with what is wrong.
pub(crate) fn valid(schema: &Value, at: &str) -> Result<(), Fault> {
    jsonschema::meta::validate(schema).map_err(|error| unusable(&error, at))
}

fn unusable(error: &jsonschema::ValidationError<'_>, at: &str) -> Fault {
    let message = format!("the schema cannot be used: {}", bounded(&error.to_string()));
    Fault::invalid(at, message)
}

impl Checker {
    /// The check for a schema.
    ///
    /// # Errors
    ///
    /// 400 for what is no schema, refers to something outside itself, or is too large; `at` is the field.
    pub(crate) fn new(schema: &Schema, at: &str) -> Result<Self, Fault> {
        let Schema::Json(schema) = schema else {
            return Ok(Self::AnyObject);
        };
        Extent::of(schema).map_err(|why| Fault::invalid(at, why))?;
        let patterns = jsonschema::PatternOptions::fancy_regex().backtrack_limit(BACKTRACK_MAX);
        let validator = jsonschema::options()
            .with_pattern_options(patterns)
            .should_validate_formats(false)
            .build(schema);
        let validator = validator.map_err(|error| unusable(&error, at))?;
        Ok(Self::Schema(Box::new(validator)))
    }

    /// Checks a whole answer.
    ///
    /// # Errors
    ///
    /// 500 `schema_violation`, with where and why.
    pub(crate) fn check(&self, text: &str) -> Result<(), Fault> {
        let document: Value = serde_json::from_str(text)
            .map_err(|error| Fault::schema_violation(format!("it is not JSON: {error}")))?;
        match self {
            Self::AnyObject if document.is_object() => Ok(()),
            Self::AnyObject => Err(Fault::schema_violation("it is not an object")),
            Self::Schema(validator) => validator.validate(&document).map_err(|error| {
                let at = error.instance_path().to_string();
                Fault::schema_violation(bounded(&format!("at '{at}': {error}")))
            }),
        }
    }
}

fn bounded(text: &str) -> String {
    text.chars().take(VIOLATION_CHARS_MAX).collect()
}

/// Counts the parts of a schema with its references replaced.
struct Extent<'a> {
    root: &'a Value,
    /// Parts behind each reference; `None` while it is being counted.
    references: HashMap<&'a str, Option<u64>>,
    /// References that are being counted.
    open: usize,
}

impl<'a> Extent<'a> {
    fn of(root: &'a Value) -> Result<u64, String> {
        let references = HashMap::from([("#", None)]);
        let open = 0;
        Self {
            root,
            references,
            open,
        }
        .parts(root, false)
    }

    /// `descended`: whether a smaller part of the document is looked at than at the last reference.
    fn parts(&mut self, value: &'a Value, descended: bool) -> Result<u64, String> {
        let mut total = 1_u64;
        match value {
            Value::Object(fields) => {
                total = total.saturating_add(self.reference(fields, descended)?);
                for (name, field) in fields {
                    // Definitions count where they are referred to; but circles among them are looked for.
                    let descended = descended || DESCENDING.contains(&name.as_str());
                    total = total.saturating_add(self.parts(field, descended)?);
                }
            }
            Value::Array(items) => {
                for item in items {
                    total = total.saturating_add(self.parts(item, descended)?);
                }
            }
            _ => return Ok(0),
        }
        if total > SCHEMA_PARTS_MAX {
            return Err(format!(
                "the schema has more than {SCHEMA_PARTS_MAX} parts, references replaced"
            ));
        }
        Ok(total)
    }

    fn reference(
        &mut self,
        fields: &'a Map<String, Value>,
        descended: bool,
    ) -> Result<u64, String> {
        let moved = |name| fields.get(name).is_some_and(Value::is_string);
        let is_root = std::ptr::eq(fields, self.root.as_object().unwrap_or(fields));
        if moved("$dynamicRef") || moved("$recursiveRef") || (moved("$id") && !is_root) {
            return Err("only '$ref' is understood, and '$id' only at the schema's top".to_owned());
        }
        let Some(Value::String(name)) = fields.get("$ref") else {
            return Ok(0);
        };
        match self.references.get(name.as_str()) {
            Some(Some(parts)) => return Ok(*parts),
            Some(None) if descended => return Ok(1),
            Some(None) => return Err(format!("'{}' refers to itself in a circle", bounded(name))),
            None => {}
        }
        let pointer = name.strip_prefix('#').unwrap_or("elsewhere");
        let target = self.root.pointer(pointer).ok_or_else(|| {
            let name = bounded(name);
            format!("'{name}' refers to nothing; references look like #/$defs/name")
        })?;
        if self.open == REFERENCES_DEEP_MAX {
            return Err(format!(
                "more than {REFERENCES_DEEP_MAX} references lead to each other"
            ));
        }
        self.references.insert(name, None);
        self.open += 1;
        let parts = self.parts(target, false)?;
        self.open -= 1;
        self.references.insert(name, Some(parts));
        Ok(parts)
    }
}

#[cfg(test)]
mod tests;
