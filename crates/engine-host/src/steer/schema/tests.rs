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
    let lenient = json!({"type": "null", "x-guidance": {"lenient": true}, "$schema": "draft-04"});
    let prepared = prepare(&lenient.to_string(), " ").unwrap();
    let ours = json!({"type": "null", "x-guidance": {"whitespace_pattern": " "}});
    assert_eq!(prepared, ours);
}

#[test]
fn chains_of_references_are_counted() {
    let chain = |length: usize| {
        let mut defs = Vec::new();
        for i in 0..length {
            let next =
                json!({"properties": {"a": {"items": {"$ref": format!("#/$defs/{}", i + 1)}}}});
            defs.push(next);
        }
        defs.push(json!({"type": "null"}));
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
fn keys_and_divisors_are_counted() {
    let keys = |count: usize| {
        let keys = (0..count).map(|i| (format!("p{i}"), json!({})));
        json!({"properties": Map::from_iter(keys)})
    };
    check(&keys(KEYS_MAX), "");
    check(&keys(KEYS_MAX + 1), "1001 properties");
    let divisors = |divisors: &[f64]| {
        let items = divisors.iter().map(|by| json!({ "multipleOf": by }));
        json!({"prefixItems": items.collect::<Vec<_>>()})
    };
    check(&divisors(&[0.01, 5.0, 2.5, 100.0, 0.0, -4.0, 1e21]), "");
    check(&divisors(&[9_973.0]), "");
    check(&divisors(&[10_001.0]), "10001");
    check(&divisors(&[97.0, 101.0, 2.0]), "19594");
    check(&divisors(&[0.123_456_789]), "123456789");
}

#[test]
fn combinations_are_counted() {
    let both = json!({"anyOf": [{"minLength": 1}, {"maxLength": 9}]});
    let all = |count: usize| json!({"allOf": vec![both.clone(); count]});
    check(&all(10), "");
    check(&all(20), "parts once");
    // Through a reference, and beside another keyword.
    let through = |count: usize| {
        let part = json!({"$ref": "#/$defs/0", "minLength": 1});
        json!({"$defs": [all(count)], "allOf": [part, part]})
    };
    check(&through(4), "");
    check(&through(10), "parts once");
    let words: Vec<String> = (0..20_000).map(|i| format!("word {i}")).collect();
    check(&json!({"type": "string", "enum": words}), "");
    check(
        &json!({"enum": words, "const": "x".repeat(4_000)}),
        "parts once",
    );
    // Each level doubles the one below, though none has more than two alternatives.
    let doubled = |levels: usize, by: fn(Value) -> Value| (0..levels).fold(json!({}), |v, _| by(v));
    let beside =
        |v| json!({"properties": {"a": v}, "anyOf": [{"title": "a"}, {"minProperties": 1}]});
    check(&doubled(10, beside), "");
    check(&doubled(30, beside), "parts once");
    let copied = |v| json!({"properties": {"ab": {}}, "patternProperties": {"^a": v}});
    check(&doubled(10, copied), "");
    check(&doubled(30, copied), "parts once");
    // A schema that holds itself ends.
    check(
        &json!({"properties": {"next": {"$ref": "#"}}, "anyOf": [{"$ref": "#", "title": "a"}]}),
        "",
    );
}
