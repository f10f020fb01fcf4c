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
/// The most parts of a schema when all combinations of its alternatives are written down, which the compiler does where
/// several keywords apply at once.
const SIZE_MAX: u64 = 200_000;
/// Bytes of text that count as a part.
const TEXT_BYTES: u64 = 64;
/// The most properties of one object, or other keys in one place: as many beginnings of a word are told apart in a step.
const KEYS_MAX: usize = 1_000;
/// The largest least common multiple of all `multipleOf`, without decimal point and zeros behind: so many remainders are
/// told apart.
const MULTIPLE_MAX: u64 = 10_000;

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
    /// Too many keys.
    #[error("it has {0} properties or definitions in one place; at most {KEYS_MAX} are taken")]
    Keys(usize),
    /// A large divisor.
    #[error(
        "its multipleOf have the least common multiple {0}, decimal point left out; at most {MULTIPLE_MAX} is taken"
    )]
    Multiple(u64),
    /// Too many combinations.
    #[error(
        "it has {0} parts once anyOf, oneOf, enum and patternProperties are combined with what stands beside them; at \
         most {SIZE_MAX} are taken; write out only the combinations that are meant"
    )]
    Size(u64),
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
    check(&root)?;
    root["x-guidance"] = json!({ "whitespace_pattern": blank });
    Ok(root)
}

fn check(root: &Value) -> Result<(), SchemaError> {
    let mut targets = HashMap::new();
    let mut multiple = 1;
    gather(root, root, &mut targets, &mut multiple)?;
    if multiple > MULTIPLE_MAX {
        return Err(SchemaError::Multiple(multiple));
    }
    if targets.len() > TARGETS_MAX {
        return Err(SchemaError::Targets(targets.len()));
    }
    let levels = levels(root) + targets.values().map(|target| levels(target)).sum::<usize>();
    if levels > LEVELS_MAX {
        return Err(SchemaError::Deep(levels));
    }
    let mut scale = Scale {
        targets,
        known: HashMap::new(),
    };
    match scale.weigh(root).size {
        size if size > SIZE_MAX => Err(SchemaError::Size(size)),
        _ => Ok(()),
    }
}

/// Collects the targets of all references, and the least common multiple of all divisors.
fn gather<'a>(
    root: &'a Value,
    value: &'a Value,
    targets: &mut HashMap<&'a str, &'a Value>,
    multiple: &mut u64,
) -> Result<(), SchemaError> {
    match value {
        Value::Array(items) => items
            .iter()
            .try_for_each(|item| gather(root, item, targets, multiple)),
        Value::Object(map) if map.len() > KEYS_MAX => Err(SchemaError::Keys(map.len())),
        Value::Object(map) => {
            if let Some(Value::String(name)) = map.get("$ref")
                && let Some(target) = target(root, name)
            {
                targets.insert(name, target);
            }
            if let Some(Value::Number(divisor)) = map.get("multipleOf") {
                *multiple = least_common(*multiple, digits(&divisor.to_string()));
            }
            map.values()
                .try_for_each(|item| gather(root, item, targets, multiple))
        }
        _ => Ok(()),
    }
}

/// A number as JSON writes it, without sign, decimal point, zeros behind and exponent; 1 for 0.
fn digits(number: &str) -> u64 {
    let mantissa = number.split(['e', 'E']).next().unwrap_or_default();
    let digits = mantissa.replace(['-', '.'], "");
    match digits.trim_end_matches('0').parse() {
        Ok(digits) => digits,
        Err(_) if digits.chars().all(|c| c == '0') => 1,
        Err(_) => u64::MAX,
    }
}

fn least_common(a: u64, b: u64) -> u64 {
    let (mut x, mut y) = (a, b);
    while y > 0 {
        (x, y) = (y, x % y);
    }
    (a / x.max(1)).saturating_mul(b)
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

/// What the compiler makes of a part of a schema, at most.
#[derive(Debug, Clone, Copy)]
struct Weight {
    /// Alternatives that are written down each by itself.
    alternatives: u64,
    /// The parts of all of them together.
    size: u64,
}

impl Weight {
    const ONE: Self = Self {
        alternatives: 1,
        size: 1,
    };

    /// Both apply at once: every alternative of one is combined with every one of the other.
    fn and(self, other: Self) -> Self {
        let mine = self.size.saturating_mul(other.alternatives);
        Self {
            alternatives: self.alternatives.saturating_mul(other.alternatives),
            size: mine.saturating_add(other.size.saturating_mul(self.alternatives)),
        }
    }

    /// One of them applies.
    fn or(self, other: Self) -> Self {
        Self {
            alternatives: self.alternatives.saturating_add(other.alternatives),
            size: self.size.saturating_add(other.size),
        }
    }
}

/// Weighs the parts of a schema.
struct Scale<'a> {
    targets: HashMap<&'a str, &'a Value>,
    known: HashMap<&'a str, Weight>,
}

impl<'a> Scale<'a> {
    fn weigh(&mut self, value: &'a Value) -> Weight {
        match value {
            Value::Object(map) => self.weigh_object(map),
            value => Weight {
                alternatives: 1,
                size: self.size_of(value),
            },
        }
    }

    /// Of what is no schema, or of several that apply at different places.
    fn size_of(&mut self, value: &'a Value) -> u64 {
        match value {
            Value::String(text) => 1 + text.len() as u64 / TEXT_BYTES,
            Value::Array(items) => items
                .iter()
                .map(|item| self.weigh(item).size)
                .fold(1, u64::saturating_add),
            Value::Object(map) => map
                .values()
                .map(|item| self.weigh(item).size)
                .fold(1, u64::saturating_add),
            _ => 1,
        }
    }

    fn weigh_object(&mut self, map: &'a Map<String, Value>) -> Weight {
        let mut own = 1u64;
        let mut weight = Weight::ONE;
        for (keyword, value) in map {
            let one_of = |weights: &mut dyn Iterator<Item = Weight>| {
                weights.reduce(Weight::or).unwrap_or(Weight::ONE)
            };
            match (keyword.as_str(), value) {
                ("allOf", Value::Array(items)) => {
                    weight = items
                        .iter()
                        .fold(weight, |all, item| all.and(self.weigh(item)));
                }
                ("anyOf" | "oneOf", Value::Array(items)) => {
                    weight = weight.and(one_of(&mut items.iter().map(|item| self.weigh(item))));
                }
                ("enum", Value::Array(items)) => {
                    weight = weight.and(one_of(&mut items.iter().map(|item| self.weigh(item))));
                }
                // By itself it is not followed, but called.
                ("$ref", Value::String(name)) if map.len() > 1 => {
                    weight = weight.and(self.weigh_target(name));
                }
                ("patternProperties", value) => {
                    // What a pattern says is copied to each name that fits it.
                    let names = map.get("properties").and_then(Value::as_object);
                    let copies = 1 + names.map_or(0, Map::len) as u64;
                    own = own.saturating_add(self.size_of(value).saturating_mul(copies));
                }
                (_, value) => own = own.saturating_add(self.size_of(value)),
            }
        }
        weight.and(Weight {
            alternatives: 1,
            size: own,
        })
    }

    fn weigh_target(&mut self, name: &str) -> Weight {
        let Some((name, target)) = self.targets.get_key_value(name).map(|(n, t)| (*n, *t)) else {
            return Weight::ONE;
        };
        if let Some(weight) = self.known.get(name) {
            return *weight;
        }
        // A circle is not followed twice.
        self.known.insert(name, Weight::ONE);
        let weight = self.weigh(target);
        self.known.insert(name, weight);
        weight
    }
}

#[cfg(test)]
mod tests;
