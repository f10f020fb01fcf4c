//! What the face asks of a node.

use super::prompt::{known, render, steer, tokens};
use super::run::{self, Job, Path, Reply};
use super::{Requests, pull, refused};
use crate::status::RecoveryTotals;
use api::{
    Backend, EmbedRequest, Embeddings, Family, FamilyKind, Fault, GenerateRequest, Generation,
    Health, HealthState, Input, Message, ModelCard, Piece, PullEvent, RenderRequest, Rendered,
    TokenizeRequest, ToolCall,
};
use engine::Host;
use proto::host::{EMBED_TEXTS_MAX, EMBED_TOKENS_MAX, Loaded, ReadReply};
use proto::ids::Hash;
use proto::journal::AnswerPlan;
use proto::model::Numerics;
use proto::ring::CHUNK_ROWS;
use serde::Deserialize;
use std::sync::Arc;
use store::models::Model;
use tokio::sync::mpsc;

/// How far an answer may run ahead of its client, in tokens.
const AHEAD_TOKENS: usize = 64;

/// A reply as the engine takes it apart.
#[derive(Debug, Deserialize)]
struct Parted {
    content: String,
    reasoning: String,
    tool_calls: Vec<PartedCall>,
}

#[derive(Debug, Deserialize)]
struct PartedCall {
    id: String,
    name: String,
    arguments: String,
}

impl From<Parted> for Message {
    fn from(parted: Parted) -> Self {
        let call = |call: PartedCall| ToolCall {
            id: call.id,
            name: call.name,
            arguments: call.arguments,
        };
        Self {
            content: parted.content,
            reasoning: parted.reasoning,
            tool_calls: parted.tool_calls.into_iter().map(call).collect(),
        }
    }
}

impl Requests {
    /// The engine of the model that a client names.
    fn host_for(&self, model: &str) -> Result<Arc<Host>, Fault> {
        if model == self.model.name {
            self.host()
        } else {
            Err(Fault::model_not_found(model))
        }
    }
}

/// What fixes the bits of an answer, in few characters: the model's root, and a hash of engine, CPU class and attention.
fn fingerprint(model: &Model, loaded: &Loaded) -> String {
    let Loaded {
        build,
        cpu_class,
        kv_type,
        flash_attention,
        ..
    } = loaded;
    let engine = format!("{build}/{cpu_class}/{kv_type}/{flash_attention}");
    format!(
        "{}-{}",
        model.blake3.short(),
        Hash::of(engine.as_bytes()).short()
    )
}

impl Requests {
    /// All that fixes an answer, of what a client sent and of what this node is.
    async fn settle(
        &self,
        host: &Host,
        request: &mut GenerateRequest,
    ) -> Result<AnswerPlan, Fault> {
        let prompt = self
            .prompt(host, std::mem::take(&mut request.prompt))
            .await?;
        let loaded = host.loaded();
        let room = loaded.positions_max - prompt.tokens.len() as u32;
        Ok(AnswerPlan {
            model: self.model.blake3,
            fingerprint: fingerprint(&self.model, loaded),
            // One of the settings that make the mode, and the one that the engine tells.
            numerics: match loaded.flash_attention {
                true => Numerics::Throughput,
                false => Numerics::Exact,
            },
            grid_rows: CHUNK_ROWS,
            prompt: prompt.tokens,
            grammar: prompt.grammar,
            syntax: prompt.syntax,
            stops: prompt.stops,
            sampling: self.sampling(request),
            tokens_max: request.max_tokens.unwrap_or(u32::MAX).min(room),
        })
    }

    /// Whether an answer that was settled here, or by a process before this one, can go on with the very same bits.
    fn same(&self, plan: &AnswerPlan, host: &Host) -> Result<(), Fault> {
        let now = fingerprint(&self.model, host.loaded());
        if plan.model != self.model.blake3 || plan.fingerprint != now {
            return Err(Fault::stream_stale(format!(
                "the stream was begun with a model and engine ({}) other than this node has now ({now}); it can go on once \
                 the node runs as it did, or ask again from the beginning",
                plan.fingerprint
            )));
        }
        if plan.prompt.len() + plan.tokens_max as usize > host.loaded().positions_max as usize {
            return Err(Fault::stream_stale(
                "the stream was begun with a larger --context than this node has now; start it with that again, or ask \
                 again from the beginning",
            ));
        }
        Ok(())
    }
}

/// What losses of stages took.
fn recovered(totals: RecoveryTotals) -> [Family; 5] {
    let count =
        |name, help, value: u64| Family::plain(name, help, FamilyKind::Counter, value as f64);
    [
        count(
            "myzel_recoveries_total",
            "Stages that were lost under requests.",
            totals.losses,
        ),
        count(
            "myzel_recovered_requests_total",
            "Requests that went on after a stage was lost.",
            totals.sessions,
        ),
        count(
            "myzel_rows_replayed_total",
            "Rows computed to rebuild caches that were lost with their stage.",
            totals.rows_replayed,
        ),
        count(
            "myzel_rows_recomputed_total",
            "Rows that stages which were not lost computed a second time.",
            totals.rows_recomputed,
        ),
        count(
            "myzel_activation_bytes_resent_total",
            "Activations sent a second time.",
            totals.bytes_resent,
        ),
    ]
}

impl Backend for Requests {
    fn models(&self) -> Vec<ModelCard> {
        let host = self.host().ok();
        vec![ModelCard {
            context_tokens: host.as_ref().map(|host| host.loaded().positions_max),
            loaded: host.is_some(),
            ..self.card.clone()
        }]
    }

    fn health(&self) -> Health {
        match self.host() {
            Ok(_) => Health {
                state: HealthState::Ok,
                reasons: Vec::new(),
            },
            Err(fault) => Health {
                state: HealthState::Degraded,
                reasons: vec![fault.message],
            },
        }
    }

    fn metrics(&self) -> Vec<Family> {
        use FamilyKind::{Counter, Gauge};
        let rates = self.rates();
        let count = |name, help, value: u64| Family::plain(name, help, Counter, value as f64);
        let gauge = |name, help, value: f64| Family::plain(name, help, Gauge, value);
        let mut families = vec![
            count(
                "myzel_requests_total",
                "Requests computed or failed.",
                rates.requests,
            ),
            count(
                "myzel_requests_failed_total",
                "Requests that failed.",
                rates.failed,
            ),
            count("myzel_tokens_total", "Tokens drawn.", rates.tokens),
            count(
                "myzel_prompt_tokens_total",
                "Tokens of prompts.",
                rates.prompt_tokens,
            ),
            gauge(
                "myzel_places_taken",
                "Requests that are computed at the moment.",
                f64::from(self.sessions()),
            ),
            gauge(
                "myzel_places",
                "Requests that are computed at once at most.",
                f64::from(self.places.total()),
            ),
            gauge(
                "myzel_decode_tokens_per_second",
                "Speed of the newest answer, without its first token.",
                rates.decode_tokens_per_s,
            ),
            gauge(
                "myzel_first_token_seconds",
                "Time to the first token of the newest answer.",
                rates.first_token_ms as f64 / 1000.0,
            ),
        ];
        if let Some(ring) = &self.ring {
            families.extend(recovered(ring.recoveries.totals()));
        }
        families
    }

    async fn generate(&self, mut request: GenerateRequest) -> Result<Generation, Fault> {
        if request.model != self.model.name {
            return Err(Fault::model_not_found(&request.model));
        }
        let path = self.path_in(request.room)?;
        let host = self.engine(&path)?;
        let (plan, drawn) = match request.resume.take() {
            Some(resume) => {
                self.same(&resume.plan, &host)?;
                (resume.plan, resume.drawn)
            }
            None => (self.settle(&host, &mut request).await?, Vec::new()),
        };
        let (events, receiver) = mpsc::channel(AHEAD_TOKENS);
        let job = Job {
            path,
            host,
            steer: steer(&request, &plan, &drawn),
            prompt: plan.prompt.clone(),
            sampling: plan.sampling,
            sharers: self.places.total(),
            caller: self.scope(&request.caller),
            tokens_max: plan.tokens_max,
            drawn,
        };
        let reply = Reply::new(events, self.rates.clone());
        self.tasks.spawn(job.run(self.places.clone(), reply));
        Ok(Generation {
            prompt_tokens: plan.prompt.len() as u32,
            model: self.model.name.clone(),
            fingerprint: Some(plan.fingerprint.clone()),
            syntax: plan.syntax.clone(),
            stops: plan.stops.clone(),
            plan: Some(Box::new(plan)),
            events: receiver,
        })
    }

    async fn read(&self, syntax: &str, text: &str, partial: bool) -> Result<Message, Fault> {
        let reply = ReadReply {
            syntax: syntax.to_owned(),
            text: text.to_owned(),
            partial,
        };
        let read = self.host()?.read(reply).await;
        let json = read.map_err(|error| refused(error, "tools"))?;
        let parted: Parted = serde_json::from_str(&json)
            .map_err(|e| Fault::internal(format!("the engine's view of the reply: {e}")))?;
        Ok(parted.into())
    }

    async fn embed(&self, request: EmbedRequest) -> Result<Embeddings, Fault> {
        let host = self.host_for(&request.model)?;
        let path = self.path_in(request.room)?;
        let (mut texts, mut prompt_tokens) = (Vec::new(), 0);
        for input in request.inputs {
            let text = match input {
                Input::Text(text) => tokens(&host, text, (true, false), "input").await?,
                Input::Tokens(tokens) => known(&host, tokens, "input")?,
            };
            let most = EMBED_TOKENS_MAX.min(host.loaded().positions_trained);
            if text.len() > most as usize {
                return Err(Fault::context_exceeded(text.len() as u32, most));
            }
            prompt_tokens += text.len() as u32;
            texts.push(text);
        }
        let mut vectors = Vec::with_capacity(texts.len());
        match path {
            Path::Home(_) => {
                for some in texts.chunks(EMBED_TEXTS_MAX) {
                    let made = host.embed(some.to_vec()).await;
                    vectors.extend(made.map_err(|error| refused(error, "input"))?);
                }
            }
            Path::Ring(course) => {
                let caller = self.scope(&request.caller);
                for text in texts {
                    let _place = self.places.clone().take(caller).await;
                    let sharers = self.places.total();
                    vectors.push(run::embedding(&course, host.clone(), text, sharers).await?);
                }
            }
        }
        Ok(Embeddings {
            model: self.model.name.clone(),
            vectors,
            prompt_tokens,
        })
    }

    async fn tokenize(&self, request: TokenizeRequest) -> Result<Vec<Piece>, Fault> {
        let host = self.host_for(&request.model)?;
        let special = (request.add_special, request.parse_special);
        let tokens = tokens(&host, request.text, special, "content").await?;
        let pieces = host.detokenize(tokens.clone()).await;
        let pieces = pieces.map_err(|error| refused(error, "content"))?;
        let piece = |(id, bytes)| Piece { id, bytes };
        Ok(tokens.into_iter().zip(pieces).map(piece).collect())
    }

    async fn detokenize(&self, model: String, tokens: Vec<i32>) -> Result<Vec<u8>, Fault> {
        let host = self.host_for(&model)?;
        let tokens = known(&host, tokens, "tokens")?;
        let pieces = host.detokenize(tokens).await;
        Ok(pieces.map_err(|error| refused(error, "tokens"))?.concat())
    }

    async fn render(&self, request: RenderRequest) -> Result<Rendered, Fault> {
        let host = self.host_for(&request.model)?;
        let prompt = render(&host, &request.conversation).await?;
        Ok(Rendered {
            text: prompt.text,
            tokens: prompt.tokens.len() as u32,
        })
    }

    async fn pull(&self, name: String) -> Result<mpsc::Receiver<PullEvent>, Fault> {
        let wanted = pull::wanted(&name)?;
        let place = self.pulls.clone().try_acquire_owned().map_err(|_| {
            let most = pull::PULLS_MAX;
            Fault::overloaded(format!(
                "{most} models are being fetched already; ask again when one of them is here"
            ))
        })?;
        let (events, work) = pull::pull(self.models.clone(), wanted, place);
        self.tasks.spawn(work);
        Ok(events)
    }
}
