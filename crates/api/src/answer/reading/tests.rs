use super::*;

fn view(reasoning: &str, content: &str, calls: &[(&str, &str)]) -> Message {
    let call = |(name, arguments): &(&str, &str)| ToolCall {
        id: format!("id-{name}"),
        name: (*name).into(),
        arguments: (*arguments).into(),
    };
    Message {
        content: content.into(),
        reasoning: reasoning.into(),
        tool_calls: calls.iter().map(call).collect(),
    }
}

/// Steps in short: `r:`, `t:`, `c0:name`, `a0:`.
fn short(steps: Vec<Step>) -> Vec<String> {
    let one = |step| match step {
        Step::Reasoning(text) => format!("r:{text}"),
        Step::Text(text) => format!("t:{text}"),
        Step::Call { index, name, .. } => format!("c{index}:{name}"),
        Step::Arguments { index, text } => format!("a{index}:{text}"),
        Step::End { .. } => unreachable!("a reading does not end an answer"),
    };
    steps.into_iter().map(one).collect()
}

#[test]
fn only_what_is_new_is_said() {
    let mut reading = Reading::default();
    for (now, expected) in [
        (view("", "", &[]), vec![]),
        (view("th", "", &[]), vec!["r:th"]),
        (view("think", "so", &[]), vec!["r:ink", "t:so"]),
        (view("think", "so", &[("get", "")]), vec![]),
        (
            view("think", "so", &[("get_x", "{")]),
            vec!["c0:get_x", "a0:{"],
        ),
        (
            view("think", "so", &[("get_x", "{}"), ("b", "")]),
            vec!["a0:}"],
        ),
    ] {
        assert_eq!(short(reading.advance(&now)), expected);
    }
    let last = view("think", "so", &[("get_x", "{}"), ("b", "")]);
    assert_eq!(short(reading.finish(last).unwrap()), ["c1:b", "a1:{}"]);
    assert!(reading.called());
}

#[test]
fn a_view_that_shrinks_or_turns_is_waited_out() {
    let mut reading = Reading::default();
    assert_eq!(short(reading.advance(&view("", "a<to", &[]))), ["t:a<to"]);
    for held in ["a", "ab", ""] {
        assert!(reading.advance(&view("", held, &[])).is_empty(), "{held}");
    }
    assert_eq!(short(reading.advance(&view("", "a<tom", &[]))), ["t:m"]);
    assert!(reading.finish(view("", "a", &[])).unwrap().is_empty());
}

#[test]
fn a_call_that_ends_otherwise_than_it_began_is_an_error() {
    let begun = view("", "", &[("f", "{\"a\": 1}")]);
    for (last, fine) in [
        (view("", "", &[("f", "{\"a\": 1}")]), true),
        (view("", "", &[("f", "{\"a\":1}")]), true),
        (view("", "", &[("f", "{\"a\":2}")]), false),
        (view("", "", &[("g", "{\"a\": 1}")]), false),
        (view("", "f", &[]), false),
    ] {
        let mut reading = Reading::default();
        reading.advance(&begun);
        assert_eq!(reading.finish(last).is_ok(), fine);
    }
}

#[test]
fn calls_without_an_id_get_one() {
    let mut nameless = view("", "", &[("f", "{}")]);
    nameless.tool_calls[0].id = String::new();
    let steps = Reading::default().finish(nameless).unwrap();
    let Step::Call { id, .. } = &steps[0] else {
        panic!("{steps:?}")
    };
    assert!(id.starts_with("call_") && id.len() > 20, "{id}");
}
