//! `POST /v1/embeddings`.

use crate::backend::{Backend, EmbedRequest, Embeddings};
use crate::fault::Fault;
use crate::routes::App;
use crate::wire::json::{not_supported, read};
use crate::wire::lenient::Inputs;
use crate::wire::required_model;
use axum::Json;
use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use data_encoding::BASE64;
use serde::Deserialize;
use serde_json::{Number, Value, json};
use std::sync::Arc;

#[derive(Deserialize)]
struct Wire {
    model: Option<String>,
    #[serde(default)]
    input: Inputs,
    encoding_format: Option<String>,
    dimensions: Option<Number>,
}

/// Vectors of texts.
pub(crate) async fn embeddings<B: Backend>(
    State(app): State<Arc<App<B>>>,
    request: Request,
) -> Result<Response, Fault> {
    let (entry, body) = app.admit(request).await?;
    let wire: Wire = read(&body)?;
    drop(body);
    let base64 = match wire.encoding_format.as_deref() {
        None | Some("float") => false,
        Some("base64") => true,
        Some(_) => {
            let message = "'encoding_format' is neither float nor base64";
            return Err(Fault::invalid("encoding_format", message));
        }
    };
    let request = EmbedRequest {
        model: required_model(wire.model)?,
        caller: entry.caller.clone(),
        room: entry.room,
        inputs: wire.input.check("input")?,
    };
    let made = made(&app, request, wire.dimensions.as_ref()).await?;
    Ok(Json(list(&made, base64)).into_response())
}

/// The vectors; refused if they have another length than the caller wants.
pub(crate) async fn made<B: Backend>(
    app: &App<B>,
    request: EmbedRequest,
    wanted: Option<&Number>,
) -> Result<Embeddings, Fault> {
    let made = app.until_shutdown(app.backend.embed(request)).await?;
    let width = made.vectors.first().map_or(0, Vec::len) as u64;
    if wanted.is_some_and(|wanted| wanted.as_u64() != Some(width)) {
        let what = format!("another number of dimensions than the model's {width}");
        return Err(not_supported("dimensions", &what));
    }
    Ok(made)
}

fn list(made: &Embeddings, base64: bool) -> Value {
    let vectors = made.vectors.iter().enumerate().map(|(index, vector)| {
        let embedding = if base64 {
            packed(vector).into()
        } else {
            json!(vector)
        };
        json!({"object": "embedding", "index": index, "embedding": embedding})
    });
    json!({
        "object": "list",
        "data": vectors.collect::<Vec<_>>(),
        "model": made.model,
        "usage": {"prompt_tokens": made.prompt_tokens, "total_tokens": made.prompt_tokens},
    })
}

/// The numbers as little-endian 32-bit floats, in base64: what openai-python asks for when its caller says nothing.
fn packed(vector: &[f32]) -> String {
    let bytes: Vec<u8> = vector
        .iter()
        .flat_map(|number| number.to_le_bytes())
        .collect();
    BASE64.encode(&bytes)
}
