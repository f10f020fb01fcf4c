//! The families, their keys and their tensors.

use crate::shape::{Fill, Shape, SpecimenTensor};
use crate::vocabulary;
use proto::gguf::Value;

/// A family of models.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Family {
    /// Tied output, frequency factors as Llama 3 has them.
    Llama,
    /// Untied output, biases.
    Qwen2,
    /// Norms on queries and keys.
    Qwen3,
    /// Sliding windows except in every 6th layer.
    Gemma3,
    /// Fused matrices, long and short frequency factors, untied output.
    Phi3,
    /// Mixture of experts.
    Qwen3Moe,
    /// Mixture of experts with a shared one.
    Qwen2Moe,
    /// Mixture of experts with biases, attention sinks, and a sliding window in every other layer.
    GptOss,
    /// Cannot be cut: every fourth layer has no rotary positions, by its index.
    SmolLm3,
    /// Cannot be cut: recurrent.
    Mamba,
}

impl Family {
    /// All of them.
    pub const ALL: [Self; 10] = [
        Self::Llama,
        Self::Qwen2,
        Self::Qwen3,
        Self::Gemma3,
        Self::Phi3,
        Self::Qwen3Moe,
        Self::Qwen2Moe,
        Self::GptOss,
        Self::SmolLm3,
        Self::Mamba,
    ];

    /// Whether a stage can be cut from it.
    #[must_use]
    pub fn cuttable(self) -> bool {
        !matches!(self, Self::SmolLm3 | Self::Mamba)
    }

    /// `general.architecture`.
    #[must_use]
    pub fn architecture(self) -> &'static str {
        match self {
            Self::Llama => "llama",
            Self::Qwen2 => "qwen2",
            Self::Qwen3 => "qwen3",
            Self::Gemma3 => "gemma3",
            Self::Phi3 => "phi3",
            Self::Qwen3Moe => "qwen3moe",
            Self::Qwen2Moe => "qwen2moe",
            Self::GptOss => "gpt-oss",
            Self::SmolLm3 => "smollm3",
            Self::Mamba => "mamba",
        }
    }

    /// Whether the output has a matrix of its own.
    #[must_use]
    pub fn untied(self) -> bool {
        matches!(
            self,
            Self::Qwen2 | Self::Phi3 | Self::Qwen3Moe | Self::Qwen2Moe | Self::GptOss
        )
    }

    fn mixture(self) -> bool {
        matches!(self, Self::Qwen3Moe | Self::Qwen2Moe | Self::GptOss)
    }

    /// The keys below the architecture's name.
    pub(crate) fn keys(self, shape: &Shape) -> Vec<(&'static str, Value)> {
        let mut keys = vec![
            ("block_count", Value::U32(shape.layers)),
            ("context_length", Value::U32(shape.context)),
            ("embedding_length", Value::U32(shape.embedding)),
            ("attention.layer_norm_rms_epsilon", Value::F32(1e-6)),
            ("vocab_size", Value::U32(vocabulary::TOKENS)),
        ];
        match self {
            Self::Mamba => keys.extend(recurrent_keys(shape)),
            _ => keys.extend(attention_keys(shape)),
        }
        if matches!(self, Self::Gemma3 | Self::GptOss) {
            keys.push(("attention.sliding_window", Value::U32(shape.window)));
        }
        if self == Self::Phi3 {
            let original = Value::U32(shape.context / 4);
            keys.push(("rope.scaling.original_context_length", original));
        }
        if self.mixture() {
            keys.push(("expert_count", Value::U32(shape.experts)));
            keys.push(("expert_used_count", Value::U32(2)));
            keys.push((
                "expert_feed_forward_length",
                Value::U32(shape.expert_feed_forward),
            ));
        }
        if self == Self::Qwen2Moe {
            let shared = Value::U32(shape.expert_feed_forward);
            keys.push(("expert_shared_feed_forward_length", shared));
        }
        keys
    }

    /// The tensors in the order of the file.
    pub(crate) fn tensors(self, shape: &Shape) -> Vec<SpecimenTensor> {
        let mut parts = Parts {
            tensors: Vec::new(),
            layer: None,
        };
        let (width, half_head) = (shape.embedding, shape.head() / 2);
        parts.matrix("token_embd.weight", &[width, vocabulary::TOKENS]);
        parts.norm("output_norm.weight", width);
        if self.untied() {
            parts.matrix("output.weight", &[width, vocabulary::TOKENS]);
        }
        match self {
            Self::Llama => parts.factors("rope_freqs.weight", half_head),
            Self::Phi3 => {
                parts.factors("rope_factors_long.weight", half_head);
                parts.factors("rope_factors_short.weight", half_head);
            }
            _ => {}
        }
        for layer in 0..shape.layers {
            parts.layer = Some(layer);
            match self {
                Self::Mamba => recurrent_layer(&mut parts, shape),
                _ => self.decoder_layer(&mut parts, shape),
            }
        }
        parts.tensors
    }

    fn decoder_layer(self, parts: &mut Parts, shape: &Shape) {
        parts.norm("attn_norm.weight", shape.embedding);
        self.attention(parts, shape);
        match self {
            Self::GptOss => parts.norm("post_attention_norm.weight", shape.embedding),
            Self::Gemma3 => {
                parts.norm("post_attention_norm.weight", shape.embedding);
                parts.norm("ffn_norm.weight", shape.embedding);
                parts.norm("post_ffw_norm.weight", shape.embedding);
            }
            _ => parts.norm("ffn_norm.weight", shape.embedding),
        }
        if self.mixture() {
            self.experts(parts, shape);
        } else {
            self.feed_forward(parts, shape);
        }
    }

    fn attention(self, parts: &mut Parts, shape: &Shape) {
        let (width, head) = (shape.embedding, shape.head());
        let (query, key) = (shape.heads * head, shape.heads_kv * head);
        if self == Self::Phi3 {
            parts.matrix("attn_qkv.weight", &[width, query + 2 * key]);
        } else {
            parts.matrix("attn_q.weight", &[width, query]);
            parts.matrix("attn_k.weight", &[width, key]);
            parts.matrix("attn_v.weight", &[width, key]);
        }
        if matches!(self, Self::Qwen2 | Self::Qwen2Moe | Self::GptOss) {
            parts.bias("attn_q.bias", &[query]);
            parts.bias("attn_k.bias", &[key]);
            parts.bias("attn_v.bias", &[key]);
        }
        parts.matrix("attn_output.weight", &[query, width]);
        if matches!(self, Self::Qwen3 | Self::Qwen3Moe | Self::Gemma3) {
            parts.norm("attn_q_norm.weight", head);
            parts.norm("attn_k_norm.weight", head);
        }
        if self == Self::GptOss {
            parts.bias("attn_output.bias", &[width]);
            parts.bias("attn_sinks.weight", &[shape.heads]);
        }
    }

    fn feed_forward(self, parts: &mut Parts, shape: &Shape) {
        let (width, inner) = (shape.embedding, shape.feed_forward);
        if self == Self::Phi3 {
            parts.matrix("ffn_up.weight", &[width, 2 * inner]);
        } else {
            parts.matrix("ffn_gate.weight", &[width, inner]);
            parts.matrix("ffn_up.weight", &[width, inner]);
        }
        parts.matrix("ffn_down.weight", &[inner, width]);
    }

    fn experts(self, parts: &mut Parts, shape: &Shape) {
        let (width, inner, experts) = (shape.embedding, shape.expert_feed_forward, shape.experts);
        parts.router("ffn_gate_inp.weight", &[width, experts]);
        parts.matrix("ffn_gate_exps.weight", &[width, inner, experts]);
        parts.matrix("ffn_up_exps.weight", &[width, inner, experts]);
        parts.matrix("ffn_down_exps.weight", &[inner, width, experts]);
        if self == Self::GptOss {
            parts.bias("ffn_gate_inp.bias", &[experts]);
            parts.bias("ffn_gate_exps.bias", &[inner, experts]);
            parts.bias("ffn_up_exps.bias", &[inner, experts]);
            parts.bias("ffn_down_exps.bias", &[width, experts]);
        }
        if self == Self::Qwen2Moe {
            parts.router("ffn_gate_inp_shexp.weight", &[width]);
            parts.matrix("ffn_gate_shexp.weight", &[width, inner]);
            parts.matrix("ffn_up_shexp.weight", &[width, inner]);
            parts.matrix("ffn_down_shexp.weight", &[inner, width]);
        }
    }
}

fn attention_keys(shape: &Shape) -> [(&'static str, Value); 7] {
    [
        ("feed_forward_length", Value::U32(shape.feed_forward)),
        ("attention.head_count", Value::U32(shape.heads)),
        ("attention.head_count_kv", Value::U32(shape.heads_kv)),
        ("attention.key_length", Value::U32(shape.head())),
        ("attention.value_length", Value::U32(shape.head())),
        ("rope.dimension_count", Value::U32(shape.head())),
        ("rope.freq_base", Value::F32(10_000.0)),
    ]
}

const STATE: u32 = 16;
const CONVOLUTION: u32 = 4;
const TIME_STEP_RANK: u32 = 8;

fn recurrent_keys(shape: &Shape) -> [(&'static str, Value); 6] {
    [
        ("feed_forward_length", Value::U32(0)),
        ("attention.head_count", Value::U32(0)),
        ("ssm.conv_kernel", Value::U32(CONVOLUTION)),
        ("ssm.inner_size", Value::U32(2 * shape.embedding)),
        ("ssm.state_size", Value::U32(STATE)),
        ("ssm.time_step_rank", Value::U32(TIME_STEP_RANK)),
    ]
}

fn recurrent_layer(parts: &mut Parts, shape: &Shape) {
    let (width, inner) = (shape.embedding, 2 * shape.embedding);
    parts.norm("attn_norm.weight", width);
    parts.matrix("ssm_in.weight", &[width, 2 * inner]);
    parts.bias("ssm_conv1d.weight", &[CONVOLUTION, inner]);
    parts.bias("ssm_conv1d.bias", &[inner]);
    parts.matrix("ssm_x.weight", &[inner, TIME_STEP_RANK + 2 * STATE]);
    parts.bias("ssm_dt.weight", &[TIME_STEP_RANK, inner]);
    parts.bias("ssm_dt.bias", &[inner]);
    parts.decay("ssm_a", &[STATE, inner]);
    parts.norm("ssm_d", inner);
    parts.matrix("ssm_out.weight", &[inner, width]);
}

/// Tensors as they are listed, each below the current layer.
struct Parts {
    tensors: Vec<SpecimenTensor>,
    layer: Option<u32>,
}

impl Parts {
    fn add(&mut self, name: &str, dims: &[u32], fill: Fill, quantizable: bool) {
        let name = match self.layer {
            Some(layer) => format!("blk.{layer}.{name}"),
            None => name.to_owned(),
        };
        let dims = dims.iter().map(|dim| u64::from(*dim)).collect();
        self.tensors.push(SpecimenTensor {
            name,
            dims,
            fill,
            quantizable,
        });
    }

    fn matrix(&mut self, name: &str, dims: &[u32]) {
        self.add(name, dims, Fill::Matrix(0.15), true);
    }

    /// Large numbers, so that experts differ clearly in what they are chosen for.
    fn router(&mut self, name: &str, dims: &[u32]) {
        self.add(name, dims, Fill::Matrix(0.5), false);
    }

    fn bias(&mut self, name: &str, dims: &[u32]) {
        self.add(name, dims, Fill::Matrix(0.1), false);
    }

    fn norm(&mut self, name: &str, length: u32) {
        self.add(name, &[length], Fill::Norm, false);
    }

    fn factors(&mut self, name: &str, length: u32) {
        self.add(name, &[length], Fill::Factors, false);
    }

    /// Negative numbers: a positive one would make a recurrent state grow without bound.
    fn decay(&mut self, name: &str, dims: &[u32]) {
        self.add(name, dims, Fill::Decay, false);
    }
}
