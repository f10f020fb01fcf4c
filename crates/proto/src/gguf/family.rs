//! Which model families can be cut, and what each needs.
//!
//! A family is on the list when two things hold. Its builder in the pinned engine (`llama.cpp/src/models/*.cpp`) was
//! read and computes a layer from that layer's tensors, the position and the keys alone; what it derives from the
//! layer's *index* can be written into the keys. And a test shows that staged = whole for a specimen of it.

use super::Header;

/// What a family that can be cut needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Family {
    /// `general.architecture`.
    pub name: &'static str,
    /// Whether the engine insists on a tensor `output.weight` in every file (`create_tensor(.., OUTPUT, .., 0)`).
    pub(super) output_required: bool,
    /// How sliding-window layers are told from global ones, if the family has them.
    pub(super) sliding: Option<Sliding>,
    /// Whether the attention scale hangs on the number of layers.
    pub(super) scale: Scale,
}

/// Sliding-window attention (`llama_model_base::load_swa_pattern`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Sliding {
    /// Without a key, every so-manieth layer is global.
    pub every: u64,
    /// What a stage of global layers alone needs: the engine aborts when a model with a window has no sliding layer
    /// (`GGML_ASSERT(hparams.is_swa_any())`).
    pub when_none: WhenNone,
}

/// How a stage without any sliding layer is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum WhenNone {
    /// A window of 0 makes all layers global.
    WindowOff,
    /// The family insists on a window, and its sliding layers differ from the global ones in nothing else: all layers
    /// slide, with a window wider than any cache.
    WindowWide,
}

/// Where the attention scale comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Scale {
    /// From the keys alone.
    Keys,
    /// gemma3: 1/√(embedding ÷ heads) for a model of exactly this many layers, else 1/√(key length).
    ByLayers(u64),
}

const fn plain(name: &'static str) -> Family {
    Family {
        name,
        output_required: false,
        sliding: None,
        scale: Scale::Keys,
    }
}

const FAMILIES: [Family; 8] = [
    plain("llama"),
    plain("qwen2"),
    plain("qwen3"),
    plain("qwen3moe"),
    plain("phi3"),
    Family {
        output_required: true,
        ..plain("qwen2moe")
    },
    Family {
        sliding: Some(Sliding {
            every: 6,
            when_none: WhenNone::WindowOff,
        }),
        scale: Scale::ByLayers(62),
        ..plain("gemma3")
    },
    Family {
        output_required: true,
        sliding: Some(Sliding {
            every: 2,
            when_none: WhenNone::WindowWide,
        }),
        ..plain("gpt-oss")
    },
];

/// The families that can be cut.
#[must_use]
pub fn families() -> &'static [Family] {
    &FAMILIES
}

/// The family of this architecture, if it can be cut.
pub(super) fn find(architecture: &str) -> Option<&'static Family> {
    FAMILIES.iter().find(|family| family.name == architecture)
}

/// Why a family that is not on the list is not, as far as its builder was read.
pub(super) fn why_not(architecture: &str) -> &'static str {
    match architecture {
        "smollm3" | "llama4" | "smallthinker" | "cohere2" | "exaone4" => {
            "the engine leaves out rotary positions by a layer's index, and no key can say so for a part of the layers"
        }
        "gemma2" | "command-r" | "baichuan" | "deepseek2" => {
            "the engine derives how it computes from the number of layers"
        }
        "gemma3n" | "gemma4" => {
            "its layers share caches and take per-layer embeddings from the first stage"
        }
        "mamba" | "mamba2" | "jamba" | "falcon-h1" | "plamo2" | "granitehybrid" | "nemotron_h"
        | "nemotron_h_moe" | "lfm2" | "lfm2moe" | "qwen3next" | "qwen35" | "qwen35moe"
        | "kimi-linear" | "minimax-01" => {
            "its recurrent state cannot be cut to a length, so a stage could not take part in recovery"
        }
        "rwkv6" | "rwkv6qwen2" | "rwkv7" | "arwkv7" => {
            "its recurrent state cannot be cut to a length, and layers look back at the first"
        }
        "deepseek" | "deepseek32" | "deepseek4" | "dots1" | "glm4moe" | "bailingmoe"
        | "bailingmoe2" | "ernie4_5-moe" => "its first layers differ from the rest by their index",
        "bert" | "nomic-bert" | "nomic-bert-moe" | "modern-bert" | "neo-bert" | "jina-bert-v2"
        | "jina-bert-v3" | "eurobert" | "t5" | "t5encoder" => {
            "it is no decoder that passes one row of activations from layer to layer"
        }
        _ => "no test has shown yet that its stages compute what the whole computes",
    }
}

impl Family {
    /// Whether the engine refuses a model of the family without a window.
    pub(super) fn insists_on_window(&self) -> bool {
        self.sliding
            .is_some_and(|sliding| sliding.when_none == WhenNone::WindowWide)
    }
}

impl Sliding {
    /// For every layer of the model whether its attention has a window; `None` when all are global, or when the keys
    /// contradict the number of layers.
    pub(super) fn pattern(self, header: &Header) -> Option<Vec<bool>> {
        let layers = u64::from(header.layers());
        let key = header.arch_key("attention.sliding_window_pattern");
        if let Some(array) = header.metadata().array(&key) {
            let flag = |value: super::Value| match value {
                super::Value::Bool(flag) => Some(flag),
                other => other.as_u64().map(|n| n != 0),
            };
            return (array.len() == layers).then(|| array.iter().map(flag).collect())?;
        }
        // As `llama_hparams::set_swa_pattern`: the last of every group is global, and 0 means none is.
        let every = header.metadata().uint(&key).unwrap_or(self.every);
        Some(
            (0..layers)
                .map(|layer| every == 0 || layer % every + 1 < every)
                .collect(),
        )
    }
}
