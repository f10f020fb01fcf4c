//! What the face tells about the model.

use api::ModelCard;
use proto::gguf::{Header, Tensor, TensorType};
use std::collections::HashMap;
use store::models::{Model, Models};
use store::reference::Reference;

/// A model as clients see it; `created_s` is since when it is there, in seconds since 1970 UTC. The hash is known of
/// files in a store.
#[must_use]
pub fn card(models: &Models, model: &Model, header: &Header, created_s: u64) -> ModelCard {
    let stored = models.show(&Reference::Hash(model.blake3)).ok();
    let weights = |tensor: &Tensor| tensor.dims.iter().product::<u64>();
    let width = header.embedding_length();
    ModelCard {
        id: model.name.clone(),
        created: created_s,
        owned_by: "myzel".to_owned(),
        context_tokens: None,
        parameters: Some(header.tensors().iter().map(weights).sum()),
        file_bytes: Some(model.bytes),
        sha256: stored.map(|stored| stored.record.sha256.to_string()),
        architecture: Some(header.architecture().to_owned()),
        quantisation: commonest(header.tensors()).map(|kind| kind.name().to_uppercase()),
        embedding_width: width.and_then(|width| u32::try_from(width).ok()),
        template: header
            .metadata()
            .text("tokenizer.chat_template")
            .map(ToOwned::to_owned),
        loaded: false,
    }
}

/// The type in which most weights are stored.
fn commonest(tensors: &[Tensor]) -> Option<TensorType> {
    let mut weights: HashMap<u32, u64> = HashMap::new();
    for tensor in tensors {
        *weights.entry(tensor.kind.id()).or_default() += tensor.dims.iter().product::<u64>();
    }
    let most = weights
        .into_iter()
        .max_by_key(|(id, count)| (*count, *id))?;
    TensorType::from_id(most.0)
}
