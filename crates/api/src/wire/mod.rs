//! Reading requests: lenient where it does no harm.
//!
//! Three kinds of field. *Known*: checked for type and range. *Unsupported*: would change the answer, and this server
//! cannot do it; refused with 400 and `param` unless its value says nothing (null, empty, the neutral number).
//! *Unknown*: ignored, as clients expect.

pub(crate) mod json;
pub(crate) mod lenient;
pub(crate) mod sampling;
pub(crate) mod tools;

use crate::backend::Role;
use crate::fault::Fault;
use lenient::{Content, Part};

/// The longest name of a model, in bytes.
pub(crate) const MODEL_BYTES_MAX: usize = 512;

/// The name of a model, which is needed.
pub(crate) fn required_model(model: Option<String>) -> Result<String, Fault> {
    let name = model.filter(|name| !name.is_empty()).ok_or_else(|| {
        Fault::missing(
            "model",
            "name a model in 'model'; GET /v1/models lists those that are here",
        )
    })?;
    if name.len() > MODEL_BYTES_MAX {
        let message =
            format!("'model' has more than {MODEL_BYTES_MAX} bytes; no model's name is so long");
        return Err(Fault::invalid("model", message));
    }
    Ok(name)
}

/// Who says the message at `at`: one of the `known` names.
pub(crate) fn role(at: &str, role: Option<&str>, known: &[(&str, Role)]) -> Result<Role, Fault> {
    let at = format!("{at}.role");
    let name = role.ok_or_else(|| Fault::missing(&at, "every message needs a 'role'"))?;
    let found = known.iter().find(|(known, _)| *known == name);
    found.map(|(_, role)| *role).ok_or_else(|| {
        let names: Vec<_> = known.iter().map(|(name, _)| *name).collect();
        let name = json::shortened(name);
        Fault::invalid(
            &at,
            format!("the role '{name}' is not one of {}", names.join(", ")),
        )
    })
}

/// The text of a content; `None` if there is none. `kinds` are the types of parts that are text.
pub(crate) fn text_of(at: &str, content: Content, kinds: &[&str]) -> Result<Option<String>, Fault> {
    match content {
        Content::Text(text) => Ok(Some(text)),
        Content::Parts(parts) => {
            let texts = parts
                .into_iter()
                .enumerate()
                .map(|(i, p)| part(&format!("{at}[{i}]"), p, kinds));
            // Parts are separate paragraphs to templates that know only text; vLLM and llama-server join alike.
            Ok(Some(texts.collect::<Result<Vec<_>, _>>()?.join("\n")))
        }
        Content::Missing => Ok(None),
    }
}

fn part(at: &str, part: Part, kinds: &[&str]) -> Result<String, Fault> {
    match (kinds.contains(&part.kind.as_str()), part.text) {
        (true, Some(text)) => Ok(text),
        (true, None) => Err(Fault::missing(
            format!("{at}.text"),
            "a text part needs 'text'",
        )),
        (false, _) => {
            let message = format!(
                "parts of the type '{}' are not supported by this server; it reads text only",
                json::shortened(&part.kind)
            );
            Err(Fault::unsupported(format!("{at}.type"), message))
        }
    }
}
