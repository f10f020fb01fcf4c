//! Tools, whether they are called, and what form an answer's text has: what the dialects share.

use super::json::{not_supported, shortened};
use crate::answer::valid_schema;
use crate::backend::{Schema, ToolChoice};
use crate::fault::Fault;
use serde::Deserialize;
use serde_json::{Map, Value, json};

/// The most tools in one request.
pub(crate) const TOOLS_MAX: usize = 512;
/// The longest name of a tool, in bytes.
pub(crate) const TOOL_NAME_BYTES_MAX: usize = 256;

/// A function that the model may call, as the dialects describe one.
#[derive(Debug, Default, Deserialize)]
pub(crate) struct Function {
    pub(crate) name: Option<String>,
    pub(crate) description: Option<String>,
    #[serde(alias = "input_schema")]
    pub(crate) parameters: Option<Map<String, Value>>,
    pub(crate) strict: Option<bool>,
}

impl Function {
    /// The tool in OpenAI's form.
    pub(crate) fn tool(self, at: &str) -> Result<Value, Fault> {
        let name = tool_name(&format!("{at}.name"), self.name)?;
        let mut function = json!({ "name": name });
        if let Some(description) = self.description {
            function["description"] = description.into();
        }
        let parameters = self.parameters.filter(|parameters| !parameters.is_empty());
        function["parameters"] = match parameters {
            Some(parameters) => {
                let parameters = Value::from(parameters);
                valid_schema(&parameters, &format!("{at}.parameters"))?;
                parameters
            }
            None => json!({"type": "object", "properties": {}}),
        };
        if let Some(strict) = self.strict {
            function["strict"] = strict.into();
        }
        Ok(json!({"type": "function", "function": function}))
    }
}

/// A tool's name, which templates and grammars will hold.
pub(crate) fn tool_name(at: &str, name: Option<String>) -> Result<String, Fault> {
    let name = name
        .filter(|name| !name.is_empty())
        .ok_or_else(|| Fault::missing(at, "every tool needs a name"))?;
    if name.len() > TOOL_NAME_BYTES_MAX || name.chars().any(char::is_control) {
        let message = format!(
            "'{}' is no name for a tool: at most {TOOL_NAME_BYTES_MAX} bytes, no control characters",
            shortened(&name).escape_debug()
        );
        return Err(Fault::invalid(at, message));
    }
    Ok(name)
}

/// Checks a list of tools; `form` makes one of them OpenAI's.
pub(crate) fn tools<T>(
    tools: Option<Vec<T>>,
    form: impl Fn(String, T) -> Result<Value, Fault>,
) -> Result<Vec<Value>, Fault> {
    let tools = tools.unwrap_or_default();
    if tools.len() > TOOLS_MAX {
        let message = format!("{} tools, at most {TOOLS_MAX} are allowed", tools.len());
        return Err(Fault::invalid("tools", message));
    }
    tools
        .into_iter()
        .enumerate()
        .map(|(i, tool)| form(format!("tools[{i}]"), tool))
        .collect()
}

/// `"auto"`, `"none"`, `"required"`, or an object that names a function, in the forms of Chat Completions
/// (`{"type", "function": {"name"}}`) and of Responses (`{"type", "name"}`).
pub(crate) fn tool_choice(choice: Option<Value>) -> Result<ToolChoice, Fault> {
    let at = "tool_choice";
    Ok(match choice {
        None | Some(Value::Null) => ToolChoice::Auto,
        Some(Value::String(word)) => match word.as_str() {
            "auto" => ToolChoice::Auto,
            "none" => ToolChoice::None,
            "required" => ToolChoice::Required,
            other => {
                let message = format!("'{}' is not one of auto, none, required", shortened(other));
                return Err(Fault::invalid(at, message));
            }
        },
        Some(Value::Object(choice)) if choice.get("type") == Some(&json!("function")) => {
            let function = choice.get("function").and_then(|f| f.get("name"));
            match function.or_else(|| choice.get("name")) {
                Some(Value::String(name)) => ToolChoice::Function(name.clone()),
                _ => {
                    return Err(Fault::missing(
                        "tool_choice.function.name",
                        "name the function",
                    ));
                }
            }
        }
        Some(Value::Object(_)) => {
            return Err(not_supported(
                at,
                "a choice of another type than 'function'",
            ));
        }
        Some(_) => return Err(Fault::bad_request("invalid_type", "a word or an object").about(at)),
    })
}

/// The choice, if it can be met with these tools. Without tools there is nothing to choose.
pub(crate) fn settle(choice: ToolChoice, tools: &[Value]) -> Result<ToolChoice, Fault> {
    let fits = match &choice {
        ToolChoice::Auto | ToolChoice::None => true,
        ToolChoice::Required => !tools.is_empty(),
        ToolChoice::Function(name) => {
            let called = |tool: &Value| tool["function"]["name"].as_str() == Some(name);
            tools.iter().any(called)
        }
    };
    if fits {
        return Ok(if tools.is_empty() {
            ToolChoice::Auto
        } else {
            choice
        });
    }
    let message = "'tool_choice' wants a call of a tool that is not in 'tools'";
    Err(Fault::invalid("tool_choice", message))
}

/// What an answer's text shall be: `response_format` of Chat Completions and `text.format` of Responses. The schema is
/// taken where OpenAI's API description has it (`json_schema.schema`, `schema`) and where llama-server has it.
#[derive(Debug, Deserialize)]
pub(crate) struct Format {
    #[serde(rename = "type")]
    kind: Option<String>,
    schema: Option<Value>,
    json_schema: Option<Nested>,
}

#[derive(Debug, Deserialize)]
struct Nested {
    schema: Option<Value>,
}

impl Format {
    pub(crate) fn schema(self, at: &str) -> Result<Option<Schema>, Fault> {
        let nested = self.json_schema.and_then(|nested| nested.schema);
        let schema = nested.or(self.schema).map(Schema::Json);
        match self.kind.as_deref() {
            None | Some("text") => Ok(None),
            Some("json_object") => Ok(schema.or(Some(Schema::AnyObject))),
            Some("json_schema") => schema.map(Some).ok_or_else(|| {
                let at = format!("{at}.json_schema.schema");
                Fault::missing(at, "'json_schema' needs a schema")
            }),
            Some(_) => Err(not_supported(
                at,
                "a format other than text, json_object and json_schema",
            )),
        }
    }
}
