//! The chat templates that llama.cpp ships: what is made of them, as short digests that only change on purpose.
//!
//! The templates are not in this repository; `./test` fetches them. After a change that is meant to change digests (a newer
//! llama.cpp, most of all): `MYZEL_WRITE_TEMPLATES=1 cargo test --release -p engine-host --test engine templates`, and read the
//! difference.

use engine_host::chat::Chat;
use engine_host::llama::{Model, Reading};
use proto::ids::Hash;
use serde_json::{Value, json};
use std::fmt::Write;
use std::path::Path;
use std::sync::Arc;

/// Set to write the file instead of comparing with it.
const WRITE: &str = "MYZEL_WRITE_TEMPLATES";

fn bare() -> Value {
    json!({"messages": [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "Hello"},
        {"role": "assistant", "content": "Hi."},
        {"role": "user", "content": "Who are you?"},
    ]})
}

fn with_tools() -> Value {
    let tool = json!({"type": "function", "function": {"name": "get_weather", "description": "Tells the weather.",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}}});
    let call = json!({"id": "call00001", "type": "function",
        "function": {"name": "get_weather", "arguments": "{\"city\":\"Wien\"}"}});
    json!({"tools": [tool], "messages": [
        {"role": "user", "content": "Weather in Vienna?"},
        {"role": "assistant", "content": null, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "call00001", "name": "get_weather", "content": "sunny"},
    ]})
}

/// A digest of what a conversation becomes, or the first words of the error.
fn digest(chat: &Chat, mut conversation: Value) -> String {
    // Templates that tell the date get one.
    conversation["template_kwargs"] =
        json!({"date_string": "1 Jan 2026", "datetime": "1 Jan 2026"});
    match chat.render(&conversation.to_string()) {
        Ok(prompt) => {
            let syntax: Value =
                serde_json::from_str(prompt.syntax.as_deref().unwrap_or("null")).unwrap();
            let format = &syntax["native"]["format"];
            let grammar = format!("{:?}{:?}", prompt.grammar, prompt.stops);
            let short = |text: &str| Hash::of(text.as_bytes()).to_string()[..12].to_owned();
            format!("{} {format} {}", short(&prompt.text), short(&grammar))
        }
        Err(error) => error
            .to_string()
            .chars()
            .take(100)
            .collect::<String>()
            .replace('\n', " "),
    }
}

fn line(model: &Arc<Model>, path: &Path) -> String {
    let name = path.file_name().unwrap().to_string_lossy().into_owned();
    // What a template says of the day is the pattern here, and not the day.
    let source = std::fs::read_to_string(path)
        .unwrap()
        .replace("strftime_now(", "('' ~ ");
    let mut line = name;
    match Chat::new(model.clone(), Some(&source)) {
        Ok(chat) => {
            let nature = chat.nature();
            let word = |is, word| if is { word } else { "-" };
            let (tools, plain) = (word(nature.tools, "tools"), word(nature.plain, "plain"));
            write!(line, ": {tools} {plain} {}", word(nature.pure, "pure")).unwrap();
            for conversation in [bare(), with_tools()] {
                write!(line, "; {}", digest(&chat, conversation)).unwrap();
            }
            // Never a silent drop.
            let prompt = chat.render(&with_tools().to_string());
            assert!(
                prompt.is_err() || prompt.unwrap().text.contains("Tells the weather."),
                "{line}"
            );
        }
        Err(error) => write!(line, ": {error}").unwrap(),
    }
    line
}

#[test]
fn templates_give_what_they_gave() {
    let home = specimen::chat_templates();
    let entries = std::fs::read_dir(&home).unwrap();
    let mut paths: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
    paths.retain(|path| path.extension().is_some_and(|kind| kind == "jinja"));
    paths.sort();
    let file = specimen::starter().display().to_string();
    let model = Arc::new(Model::load(&[file], Reading::Mapped).unwrap());
    let now: String = paths.iter().map(|path| line(&model, path) + "\n").collect();
    let kept = specimen::crate_dir().join("tests/engine/templates.txt");
    if std::env::var_os(WRITE).is_some() {
        std::fs::write(&kept, &now).unwrap();
    }
    let expected = std::fs::read_to_string(&kept).unwrap();
    for (now, expected) in now.lines().zip(expected.lines()) {
        assert_eq!(now, expected, "changed; {WRITE}=1 writes the new digests");
    }
    assert_eq!(now.lines().count(), expected.lines().count());
}
