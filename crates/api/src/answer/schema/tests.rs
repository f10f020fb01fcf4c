use super::*;
use serde_json::json;

fn checker(schema: Value) -> Result<Checker, Fault> {
    Checker::new(&Schema::Json(schema), "schema")
}

#[test]
fn an_answer_fits_or_is_an_error_that_says_where() {
    let person = json!({
        "type": "object", "required": ["name"], "additionalProperties": false,
        "properties": {
            "name": {"type": "string", "pattern": "^[A-Z]"},
            "friends": {"type": "array", "items": {"$ref": "#"}},
        },
    });
    let person = checker(person).unwrap();
    for (text, place) in [
        (r#"{"name": "Ada", "friends": [{"name": "Bob"}]}"#, None),
        (r#"{"name": "ada"}"#, Some("/name")),
        (
            r#"{"name": "Ada", "friends": [{"name": 1}]}"#,
            Some("/friends/0/name"),
        ),
        (r#"{"name": "Ada", "age": 3}"#, Some("age")),
        (r#"{"name": "Ada"#, Some("not JSON")),
        ("[]", Some("object")),
    ] {
        let fault = person.check(text).err();
        assert_eq!(fault.is_some(), place.is_some(), "{text}");
        if let (Some(fault), Some(place)) = (fault, place) {
            assert_eq!((fault.status, fault.code), (500, "schema_violation"));
            assert!(fault.message.contains(place), "{fault}");
        }
    }
    let any = Checker::new(&Schema::AnyObject, "").unwrap();
    assert!(any.check("{}").is_ok());
    assert!(any.check("[]").is_err());
}

#[test]
fn hostile_schemas_are_refused_before_anything_is_computed() {
    // Each definition refers twice to the next: 2^40 parts.
    let doubling = (0..40).map(|i| {
        let next = json!({"$ref": format!("#/$defs/d{}", i + 1)});
        (format!("d{i}"), json!({"anyOf": [next, next]}))
    });
    let mut doubling: Map<String, Value> = doubling.collect();
    doubling.insert("d40".into(), json!({"type": "null"}));
    let long = (0..9000).map(|i| {
        (
            format!("d{i}"),
            json!({"$ref": format!("#/$defs/d{}", i + 1)}),
        )
    });
    let long: Map<String, Value> = long.collect();
    let circle = json!({"a": {"$ref": "#/$defs/b"}, "b": {"allOf": [{"$ref": "#/$defs/a"}]}});
    let parts = SCHEMA_PARTS_MAX as usize + 1;
    for schema in [
        json!({"$defs": doubling, "$ref": "#/$defs/d0"}),
        json!({"$ref": "#"}),
        json!({"$defs": circle, "$ref": "#/$defs/a"}),
        json!({"$ref": "https://evil.example/schema"}),
        json!({"$ref": "file:///etc/passwd"}),
        json!({"$defs": long, "$ref": "#/$defs/d0"}),
        json!({"properties": {"a": {"$id": "http://a/", "$ref": "#"}}}),
        json!({"type": "no such type"}),
        json!({"pattern": "("}),
        json!({"anyOf": vec![json!({}); parts]}),
        json!([]),
    ] {
        let fault = checker(schema).expect_err("it is refused");
        assert_eq!(
            (fault.status, fault.code),
            (400, "invalid_value"),
            "{fault}"
        );
        assert_eq!(fault.param.as_deref(), Some("schema"));
    }
}

#[test]
fn a_pattern_that_never_ends_is_given_up() {
    let checker = checker(json!({"type": "string", "pattern": "^(?=a)(a|a)*(?!b)c$"})).unwrap();
    let fault = checker.check(&format!("\"{}\"", "a".repeat(5000)));
    assert_eq!(fault.unwrap_err().code, "schema_violation");
}
