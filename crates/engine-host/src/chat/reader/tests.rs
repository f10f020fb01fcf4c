use super::*;

fn said(text: &str, partial: bool) -> (String, Vec<(String, String)>) {
    let message = read(text, partial);
    let calls = message
        .tool_calls
        .into_iter()
        .map(|call| (call.name, call.arguments));
    (message.content, calls.collect())
}

fn call(name: &str, arguments: &str) -> (String, String) {
    (name.to_owned(), arguments.to_owned())
}

#[test]
fn replies_are_text_or_calls() {
    let weather = r#"{"tool_calls": [{"name": "weather", "arguments": {"city": "Wi}\"en"}}]}"#;
    let arguments = r#"{"city": "Wi}\"en"}"#;
    for (text, content, calls) in [
        ("Hello {you}.", "Hello {you}.", vec![]),
        ("A `code` {\"tool\": 1}", "A `code` {\"tool\": 1}", vec![]),
        (weather, "", vec![call("weather", arguments)]),
        (
            &format!("Wait.\n{weather}"),
            "Wait.",
            vec![call("weather", arguments)],
        ),
        (
            &format!("```json\n{weather}\n```"),
            "",
            vec![call("weather", arguments)],
        ),
        (
            &format!("```\n{weather}\n```"),
            "",
            vec![call("weather", arguments)],
        ),
        (
            r#"{"tool_calls":[{"arguments":{},"name":"a"},{"name":"b","arguments":"{\"x\":1}"}]}"#,
            "",
            vec![call("a", "{}"), call("b", "{\"x\":1}")],
        ),
        (
            r#"{"tool_calls":[{"name":"a","arguments":{"x": [1, 2"#,
            "",
            vec![call("a", "{\"x\": [1, 2")],
        ),
        (r#"{"tool_calls":["#, "", vec![]),
        (r#"{"tool_calls":[{"name": 5}, {]}"#, "", vec![]),
        ("", "", vec![]),
    ] {
        assert_eq!(said(text, false), (content.to_owned(), calls), "{text}");
    }
}

#[test]
fn what_was_reported_stays_at_every_length() {
    let texts = [
        "So: ```json\n{ \"tool_calls\" : [ {\"name\":\"a\",\"arguments\":{\"x\":\"é\\\"}\"}} , {\"arguments\": \"{}\", \"name\":\"b\"}]}\n```",
        "Text with {\"tool\": 1} and ``` and {\"tool_calls\" no call.",
    ];
    for text in texts {
        let mut before = said("", true);
        let ends = (0..=text.len()).filter(|end| text.is_char_boundary(*end));
        for (end, partial) in ends.map(|end| (end, true)).chain([(text.len(), false)]) {
            let now = said(&text[..end], partial);
            let what = &text[..end];
            assert!(
                now.0.starts_with(&before.0),
                "{what}: {before:?}, then {now:?}"
            );
            assert!(now.1.len() >= before.1.len(), "{what}");
            for (old, new) in before.1.iter().zip(&now.1) {
                assert!(
                    new.0 == old.0 && new.1.starts_with(&old.1),
                    "{what}: {old:?}, then {new:?}"
                );
            }
            before = now;
        }
    }
    assert_eq!(said(texts[1], false).0, texts[1]);
}
