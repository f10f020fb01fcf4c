//! Our own way to call tools, for templates that know nothing of them.
//!
//! The tools are described in the system's text; a call is a JSON object, `{"tool_calls":[{"name":…,"arguments":{…}}]}`, to
//! which the reply is bound; earlier calls and their results become texts of the assistant and of the user.

use super::conversation::{Choice, Tool};
use super::schema::{any_object, bounded, placed};
use serde_json::{Map, Value, json};

/// What ends the free part of a reply: the beginning of a call.
pub(super) const TRIGGER: &str = r#"(\{\s*"tool_calls"\s*:)"#;

/// The schema of a call of one of `tools`, or of several where `parallel` allows it. `loose` takes any object as arguments.
///
/// # Errors
///
/// What is wrong with a tool's schema, after the tool's name.
pub(super) fn calls_schema(
    tools: &[Tool],
    parallel: bool,
    loose: bool,
) -> Result<Value, (String, String)> {
    let (mut kinds, mut arguments) = (Vec::new(), Map::new());
    for (at, tool) in tools.iter().enumerate() {
        let place = format!("arguments_{at}");
        let schema = bounded(&tool.parameters).map_err(|why| (tool.name.clone(), why))?;
        let schema = if loose { any_object() } else { schema };
        kinds.push(json!({
            "type": "object",
            "properties": {
                "name": {"const": tool.name},
                "arguments": {"$ref": format!("#/$defs/{place}")},
            },
            "required": ["name", "arguments"],
            "additionalProperties": false,
        }));
        arguments.insert(place.clone(), placed(schema, &format!("/$defs/{place}")));
    }
    let mut calls = json!({"type": "array", "minItems": 1, "items": {"anyOf": kinds}});
    if !parallel {
        calls["maxItems"] = json!(1);
    }
    Ok(json!({
        "type": "object",
        "properties": {"tool_calls": calls},
        "required": ["tool_calls"],
        "additionalProperties": false,
        "$defs": arguments,
    }))
}

/// A schema that allows what either of two does.
pub(super) fn either(calls: Value, answer: &Value) -> Value {
    json!({
        "anyOf": [{"$ref": "#/$defs/calls"}, {"$ref": "#/$defs/answer"}],
        "$defs": {
            "calls": placed(calls, "/$defs/calls"),
            "answer": placed(answer.clone(), "/$defs/answer"),
        },
    })
}

/// What the model is told of its tools.
fn introduction(tools: &[Tool], choice: &Choice, parallel: bool) -> String {
    let list: String = tools
        .iter()
        .map(|tool| format!("{}\n", tool.to_json()["function"]))
        .collect();
    let when = match choice {
        Choice::Auto => {
            "Call a function only when it helps to answer; else answer in plain words.".to_owned()
        }
        Choice::Required => "Call a function now.".to_owned(),
        Choice::Named(name) => format!("Call the function {name} now."),
    };
    let many = if parallel {
        ""
    } else {
        " Call one function at a time."
    };
    format!(
        "You can call these functions:\n{list}\nTo call one, reply with nothing but a JSON object of this form:\n\
         {{\"tool_calls\": [{{\"name\": \"<the function's name>\", \"arguments\": {{<its arguments>}}}}]}}\n\
         You are then told the result. {when}{many}"
    )
}

/// Puts the introduction of tools into the system's text, which comes first.
pub(super) fn introduce(
    messages: &mut Vec<Value>,
    tools: &[Tool],
    choice: &Choice,
    parallel: bool,
) {
    let text = introduction(tools, choice, parallel);
    match messages.first_mut() {
        Some(first) if first["role"] == "system" || first["role"] == "developer" => {
            first["content"] = json!(format!("{}\n\n{text}", text_of(&first["content"])));
        }
        _ => messages.insert(0, json!({"role": "system", "content": text})),
    }
}

/// A conversation in which calls and results are texts. What one side says in a row becomes one message: many templates
/// want the two sides to take turns.
pub(super) fn in_words(messages: &[Value]) -> Vec<Value> {
    let mut out: Vec<Value> = Vec::new();
    for message in messages {
        let (role, text) = match message["role"].as_str() {
            Some("tool") => ("user", result_in_words(message)),
            Some(role) => (role, said(message)),
            None => continue,
        };
        match out.last_mut().filter(|last| last["role"] == role) {
            Some(last) => {
                let both = format!("{}\n\n{text}", last["content"].as_str().unwrap_or_default());
                last["content"] = json!(both);
            }
            None => {
                let mut words = json!({"role": role, "content": text});
                for key in ["name", "reasoning_content"] {
                    if let Some(value) = message.get(key) {
                        words[key] = value.clone();
                    }
                }
                out.push(words);
            }
        }
    }
    out
}

fn said(message: &Value) -> String {
    let mut text = text_of(&message["content"]);
    if let Some(calls) = message["tool_calls"].as_array() {
        let calls: Vec<Value> = calls
            .iter()
            .map(|call| call_in_words(&call["function"]))
            .collect();
        if !text.is_empty() {
            text.push('\n');
        }
        text += &json!({"tool_calls": calls}).to_string();
    }
    text
}

fn call_in_words(function: &Value) -> Value {
    let arguments = function["arguments"].as_str().unwrap_or_default();
    // Arguments that are not JSON were written like this all the same.
    let arguments = serde_json::from_str(arguments).unwrap_or_else(|_| json!(arguments));
    json!({"name": function["name"], "arguments": arguments})
}

fn result_in_words(message: &Value) -> String {
    let text = text_of(&message["content"]);
    match message["name"]
        .as_str()
        .or(message["tool_call_id"].as_str())
    {
        Some(of) => format!("Result of {of}:\n{text}"),
        None => format!("Result:\n{text}"),
    }
}

fn text_of(content: &Value) -> String {
    match content {
        Value::Array(parts) => {
            let texts = parts.iter().filter_map(|part| part["text"].as_str());
            texts.collect::<Vec<_>>().join("\n")
        }
        content => content.as_str().unwrap_or_default().to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_and_results_become_turns_of_text() {
        let call = json!({"type": "function", "id": "c1", "function": {"name": "f", "arguments": "{\"a\":1}"}});
        let words = in_words(&[
            json!({"role": "user", "content": "x"}),
            json!({"role": "assistant", "content": "", "tool_calls": [call]}),
            json!({"role": "tool", "content": "one", "tool_call_id": "c1"}),
            json!({"role": "tool", "content": [{"type": "text", "text": "two"}], "name": "g"}),
            json!({"role": "user", "content": "and?"}),
        ]);
        let expected = [
            json!({"role": "user", "content": "x"}),
            json!({"role": "assistant", "content": "{\"tool_calls\":[{\"name\":\"f\",\"arguments\":{\"a\":1}}]}"}),
            json!({"role": "user", "content": "Result of c1:\none\n\nResult of g:\ntwo\n\nand?"}),
        ];
        assert_eq!(words, expected);
    }

    #[test]
    fn tools_are_introduced_once_and_first() {
        let tool = Tool {
            name: "f".to_owned(),
            description: "d".to_owned(),
            parameters: json!({"type": "object"}),
        };
        for system in [None, Some("system"), Some("developer")] {
            let mut messages = vec![json!({"role": "user", "content": "x"})];
            if let Some(role) = system {
                messages.insert(0, json!({"role": role, "content": "Be kind."}));
            }
            introduce(
                &mut messages,
                std::slice::from_ref(&tool),
                &Choice::Auto,
                false,
            );
            assert_eq!(messages.len(), 2);
            let text = messages[0]["content"].as_str().unwrap();
            assert_eq!(text.contains("Be kind."), system.is_some());
            assert!(
                text.contains("{\"name\":\"f\",\"description\":\"d\"")
                    && text.contains("one function at a time")
            );
        }
    }
}
