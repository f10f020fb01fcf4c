use super::grammar::{Compiled, Compiler, Guide, GuideError, Vocabulary};
use super::workshop::{COMPILE_MAX, Workshop};
use proto::host::Grammar;
use serde_json::{Map, Value, json};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, sync_channel};
use std::time::Duration;

/// Tokens behind those of one byte, and the one that ends.
const WORDS: [&str; 8] = ["true", "null", "\"a", "\":", "{\"", "\"}", "12", " "];
const END: usize = 256 + WORDS.len();

/// Compiles grammars as a process does.
struct Shop(Workshop);

impl Shop {
    fn new(patience: Duration) -> Self {
        let compiler = Compiler::new(&Vocabulary::of_bytes(&WORDS)).unwrap();
        let compile = move |grammar: &Grammar| compiler.compile(grammar);
        Self(Workshop::new(compile, patience).unwrap())
    }

    fn order(&self, grammar: Grammar) -> (Arc<Compiled>, Receiver<Result<(), String>>) {
        let compiled = Arc::<Compiled>::default();
        let (sender, settled) = sync_channel(1);
        let settle = move |result: Result<(), proto::host::Failed>| {
            let _ = sender.send(result.map_err(|failed| failed.detail));
        };
        self.0.order(grammar, compiled.clone(), Box::new(settle));
        (compiled, settled)
    }

    fn compile(&self, grammar: Grammar) -> Result<Guide, String> {
        let (compiled, settled) = self.order(grammar);
        settled.recv().unwrap()?;
        Ok(compiled.get().unwrap().as_ref().unwrap().begin().unwrap())
    }
}

/// What may follow.
fn allowed(guide: &mut Guide) -> Vec<usize> {
    let mut mask = vec![0.0; END + 1];
    match guide.mask(&mut mask) {
        Ok(()) => (0..=END).filter(|token| mask[*token] == 0.0).collect(),
        Err(GuideError::Nothing) => Vec::new(),
        Err(GuideError::GaveUp(why)) => panic!("{why}"),
    }
}

fn schema(schema: &Value) -> Grammar {
    Grammar::Schema(schema.to_string())
}

fn lark(text: &str) -> Grammar {
    Grammar::Lark(text.to_owned())
}

#[test]
fn a_guide_allows_what_fits_and_the_end_where_it_is_complete() {
    let shop = Shop::new(COMPILE_MAX);
    let check = |grammar: Grammar, text: &str, next: &str, end: bool| {
        let mut guide = shop.compile(grammar).unwrap();
        for byte in text.bytes() {
            assert!(guide.allows(i32::from(byte)).unwrap(), "{text}");
            guide.accept(i32::from(byte)).unwrap();
        }
        let allowed = allowed(&mut guide);
        let bytes: Vec<usize> = allowed
            .iter()
            .copied()
            .filter(|token| *token < 256)
            .collect();
        let expected: Vec<usize> = next.bytes().map(usize::from).collect();
        assert_eq!(bytes, expected, "behind {text:?}");
        assert_eq!(allowed.contains(&END), end, "behind {text:?}");
        for token in 0..=END as i32 {
            let alone = allowed == [END];
            let fits = alone || guide.allows(token).unwrap() == allowed.contains(&(token as usize));
            assert!(fits, "{token} behind {text:?}");
        }
        assert!(!guide.allows(-1).unwrap() && !guide.allows(END as i32 + 1).unwrap());
    };
    let digits = "0123456789";
    check(Grammar::Json, "", "{", false);
    check(Grammar::Json, "{}", "", true);
    check(
        Grammar::Json,
        "{\"a\":1",
        &format!("\n ,.{digits}Ee}}"),
        false,
    );
    check(schema(&json!({"enum": ["ab", 7, null]})), "", "\"7n", false);
    check(schema(&json!({"enum": ["ab", 7, null]})), "\"a", "b", false);
    check(
        schema(&json!({"type": "integer", "minimum": 5, "maximum": 61})),
        "6",
        "01",
        true,
    );
    // Blanks are few: who may write them for ever does.
    check(
        schema(&json!({"type": "array", "items": {"const": 1}})),
        "[ ",
        "1]",
        false,
    );
    check(lark("start: \"x\" \"y\"?"), "x", "y", true);
    check(lark("start: \"x\" | \"xyz\""), "xyz", "", true);
}

/// A chain of definitions, each with the next one at the bottom of `levels` schemas that `wrap` makes.
fn chain(length: usize, levels: usize, wrap: fn(Value) -> Value) -> Value {
    let mut defs = Map::new();
    for i in 0..length {
        let last = json!({"$ref": format!("#/$defs/{}", i + 1)});
        let schema = (0..levels).fold(last, |schema, _| wrap(schema));
        defs.insert(i.to_string(), schema);
    }
    defs.insert(length.to_string(), json!({"type": "string"}));
    json!({"$defs": defs, "$ref": "#/$defs/0"})
}

fn properties(count: usize) -> Value {
    let names = (0..count).map(|i| (format!("p{i}"), json!({"type": ["object", "null"]})));
    json!({"type": "object", "properties": Map::from_iter(names)})
}

fn repeated(count: usize, item: impl Fn(usize) -> Value) -> Vec<Value> {
    (0..count).map(item).collect()
}

/// It is either refused with words that name what is wrong, or compiled; and what is compiled can be followed for a while.
/// The limits are such that nothing is given up for its time alone.
fn hostile(shop: &Shop, grammar: Grammar, expected: &str) {
    let name: String = format!("{grammar:?}").chars().take(80).collect();
    match shop.compile(grammar) {
        Err(why) => {
            let named = !expected.is_empty() && why.contains(expected);
            assert!(named && why.len() < 700, "{name}: {why}");
        }
        Ok(mut guide) => {
            assert_eq!(expected, "", "{name}");
            for step in 0..200 {
                let next = allowed(&mut guide);
                let token = next.get(step * 7 % next.len().max(1));
                let Some(token) = token.filter(|token| **token != END) else {
                    break;
                };
                guide.accept(*token as i32).unwrap();
            }
        }
    }
}

fn pattern(text: &str) -> Value {
    json!({"type": "string", "pattern": text})
}

fn hostile_schemas(schemas: &[(Value, &str)]) {
    let shop = Shop::new(COMPILE_MAX);
    for (value, expected) in schemas {
        hostile(&shop, schema(value), expected);
    }
}

#[test]
fn grammars_nested_deeply() {
    let shop = Shop::new(COMPILE_MAX);
    hostile(
        &shop,
        Grammar::Schema("[".repeat(500_000)),
        "recursion limit",
    );
    hostile_schemas(&[
        (
            chain(900, 1, |v| json!({"properties": {"a": {"items": v}}})),
            "",
        ),
        (
            chain(
                30,
                55,
                |v| json!({"anyOf": [v, {"type": "null"}], "minLength": 2}),
            ),
            "parts once",
        ),
        (
            chain(30, 55, |v| json!({"allOf": [v], "type": "string"})),
            "",
        ),
        (
            chain(
                30,
                40,
                |v| json!({"patternProperties": {"^a": v}, "properties": {"ab": {}}}),
            ),
            "parts once",
        ),
        (chain(60, 55, |v| json!({"allOf": [v]})), "levels deep"),
        (json!({"$ref": "#"}), "no text fits it"),
        (
            json!({"type": "object", "properties": {"a": {"$ref": "#"}}, "required": ["a"]}),
            "",
        ),
    ]);
}

#[test]
fn grammars_that_repeat_often() {
    hostile_schemas(&[
        (
            json!({"type": "array", "items": {"type": "null"}, "minItems": 1_000_000_000}),
            "",
        ),
        (json!({"type": "string", "minLength": 1_000_000}), ""),
        (json!({"type": "string", "maxLength": i64::MAX}), "invalid"),
        (json!({"type": "object", "minProperties": 1_000_000}), ""),
        (
            json!({"type": "integer", "multipleOf": 1_000_003}),
            "least common multiple",
        ),
        (json!({"type": "integer", "multipleOf": 9_973}), ""),
    ]);
}

#[test]
fn patterns_that_explode() {
    let every = repeated(30, |i| pattern(&format!("^(.{{{}}})*$", i + 1)));
    hostile_schemas(&[
        (pattern("((a{1,1000}){1,1000}){1,1000}"), ""),
        (pattern("(a|b)*a(a|b){30}$"), ""),
        (pattern("(?=a)b"), "look-around"),
        (pattern(r"(a)\1"), "backreferences"),
        (pattern(&".*".repeat(2_000)), "too many"),
        (
            pattern(&("(".repeat(100_000) + &")".repeat(100_000))),
            "nest",
        ),
        (json!({ "allOf": every }), "too many"),
    ]);
}

#[test]
fn wide_schemas() {
    let shop = Shop::new(COMPILE_MAX);
    let word = |i| json!({"const": format!("w{i}")});
    let either = |i| json!({"anyOf": [pattern(&format!("a{i}")), pattern(&format!("b{i}"))]});
    hostile_schemas(&[
        (
            json!({"enum": repeated(20_000, |i| json!(format!("word {i}")))}),
            "",
        ),
        (json!({"oneOf": repeated(2_000, word)}), ""),
        (properties(1_000), ""),
        (properties(1_001), "1001 properties"),
        (
            json!({"allOf": repeated(10, either)}),
            "too much for each other",
        ),
        (json!({"allOf": repeated(20, either)}), "parts once"),
    ]);
    hostile(
        &shop,
        Grammar::Schema("x".repeat(2 << 20)),
        "at most 1048576",
    );
}

#[test]
fn hostile_lark() {
    let shop = Shop::new(COMPILE_MAX);
    let named = |name: &str, count: usize| {
        let rules: String = (0..count)
            .map(|i| format!("{name}{i}: {name}{}\n", i + 1))
            .collect();
        lark(&format!("start: {name}0\n{rules}{name}{count}: \"x\""))
    };
    hostile(&shop, named("A", 4_000), "");
    hostile(&shop, named("a", 4_000), "");
    hostile(
        &shop,
        lark(&format!("start: {}\"a\"", "(".repeat(4_000))),
        "too deeply nested",
    );
    hostile(
        &shop,
        lark(&format!("start: {}\"a\"", "(".repeat(5_000))),
        "5000 opening brackets",
    );
    hostile(&shop, lark("start: start start | \"x\" | \"\""), "");
    hostile(
        &shop,
        lark("start: a{1,1000000}\na: b{1,100000}\nb: (\"x\"|\"y\"){0,100000}"),
        "",
    );
    hostile(&shop, lark("start: A\nA: A \"x\""), "circular reference");
    hostile(&shop, lark(&"a".repeat(70_000)), "at most 65536");
}

#[test]
fn what_is_wrong_with_a_grammar_is_named() {
    let shop = Shop::new(COMPILE_MAX);
    let check = |grammar: Grammar, expected: &str| {
        let why = shop.compile(grammar.clone()).err().unwrap_or_default();
        assert!(why.contains(expected), "{grammar:?}: {why}");
        assert!(
            !why.contains("backtrace") && !why.contains("<state>"),
            "{why}"
        );
    };
    for (value, expected) in [
        (
            json!({"not": {}, "if": {}}),
            r#"not supported: ["if", "not"]"#,
        ),
        (json!({"type": "array", "uniqueItems": true}), "uniqueItems"),
        (
            json!({"$schema": "http://json-schema.org/draft-04/schema#", "if": {}}),
            "if",
        ),
        (json!({"x-guidance": {"lenient": true}, "not": {}}), "not"),
        (
            json!({"type": "string", "format": "int32"}),
            "Unknown format: int32",
        ),
        (json!({"type": "strng"}), "strng"),
        (json!({"type": 7}), "type must be"),
        (json!({"$ref": "http://example.com/x"}), "within the schema"),
        (json!({"$ref": "#/$defs/x"}), "not found"),
        (json!({"enum": []}), "Unsatisfiable"),
        (
            json!({"type": "string", "minLength": 5, "maxLength": 3}),
            "greater than maxLength",
        ),
        (
            json!({"oneOf": [{"type": "string"}, {"type": "string", "minLength": 3}]}),
            "oneOf is taken only",
        ),
    ] {
        check(schema(&value), expected);
    }
    check(Grammar::Schema("{\"type\":".into()), "not JSON");
    for (text, expected) in [
        ("", "no start rule"),
        ("start: (\"a\"", "Expected token"),
        ("start: foo", "unknown name: \"foo\""),
        ("start: <|no_such_token|>", "no_such_token"),
    ] {
        check(lark(text), expected);
    }
}

/// Nobody waits for a compiler that does not come to an end, and not many of them run on.
#[test]
fn what_takes_too_long_is_given_up() {
    let shop = Shop::new(Duration::ZERO);
    let slow =
        || schema(&json!({"oneOf": repeated(10_000, |i| json!({"const": format!("w{i}")}))}));
    for expected in ["given up", "given up", "too many grammars"] {
        let why = shop.compile(slow()).unwrap_err();
        assert!(why.contains(expected), "{why}");
    }
}
