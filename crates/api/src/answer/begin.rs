//! How answers begin: from a request, or from the journal of one.

use super::reply::{Reply, Source};
use super::stream::{Dialect, Understood, respond};
use super::tape::{Mark, Marks, Tape, played};
use super::{Answer, Ask, Entry, Heading, Notes, Origin, Usage};
use crate::backend::{Backend, GenerateRequest, Generation, Resume, Room};
use crate::clock;
use crate::fault::Fault;
use crate::journal::{KeptStream, owner};
use crate::routes::App;
use crate::streams::LAST_EVENT_ID;
use axum::response::Response;
use futures::stream::SelectAll;
use proto::ad;
use proto::journal::{AnswerPlan, STREAM_CHOICES_MAX, StreamBatch, StreamEvent, StreamStart};
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Instant;

/// The batches of one choice, as they were taken.
type Past = VecDeque<Vec<StreamEvent>>;

/// What all choices of an answer have in common.
struct Common {
    asked: Instant,
    heading: Heading,
    stops: Vec<String>,
    checker: Option<Arc<super::Checker>>,
    stream: bool,
    /// Choices of each prompt.
    choices: u32,
    tape: Option<Arc<Tape>>,
}

impl<B: Backend> App<B> {
    /// Begins an answer: every choice takes a place, and all are asked for before the first is read. Journalled if it has
    /// an `origin`.
    pub(crate) async fn ask(
        &self,
        entry: Entry,
        ask: Ask,
        origin: Option<Origin>,
    ) -> Result<Answer, Fault> {
        self.counted(self.begin(entry, ask, origin)).await
    }

    async fn counted(
        &self,
        begun: impl Future<Output = Result<Answer, Fault>>,
    ) -> Result<Answer, Fault> {
        let answer = self.until_shutdown(begun).await;
        if let Err(fault) = &answer {
            tracing::debug!(code = fault.code, "an answer was refused");
            self.tally.refused();
        }
        answer
    }

    async fn begin(&self, entry: Entry, ask: Ask, origin: Option<Origin>) -> Result<Answer, Fault> {
        let asked = Instant::now();
        let mut places = vec![entry.place];
        let (mut generations, mut prompt_tokens) = (Vec::new(), 0);
        for prompt in ask.prompts {
            for nth in 0..ask.choices {
                if !generations.is_empty() {
                    places.push(self.place(&entry.caller)?);
                }
                let request = GenerateRequest {
                    caller: entry.caller.clone(),
                    room: entry.room,
                    prompt: prompt.clone(),
                    seed: ask.generate.seed.map(|seed| seed.wrapping_add(nth.into())),
                    ..ask.generate.clone()
                };
                let generation = self.backend.generate(request).await?;
                if nth == 0 {
                    prompt_tokens += generation.prompt_tokens;
                }
                generations.push(generation);
            }
        }
        let first = generations.first().expect("an ask has a prompt");
        let heading = Heading {
            id: rand::random(),
            created: clock::now_s(),
            model: first.model.clone(),
            fingerprint: first.fingerprint.clone(),
            prompt_tokens,
            choices: generations.len(),
        };
        let journalled = origin.and_then(|origin| start(origin, &heading, &generations));
        let tape = match journalled {
            Some(start) => {
                let room = entry.room.map(kept_room);
                let owner = owner(&entry.caller);
                self.tape(StreamStart {
                    room,
                    owner,
                    ..start
                })
                .await
            }
            None => None,
        };
        let common = Common {
            asked,
            heading,
            stops: ask.stops,
            checker: ask.checker.map(Arc::new),
            stream: ask.stream,
            choices: ask.choices,
            tape,
        };
        let sources = generations.into_iter().map(Source::from);
        Ok(self.assemble(common, sources.collect(), places))
    }

    async fn tape(&self, start: StreamStart) -> Option<Arc<Tape>> {
        let journals = self.config.journals.as_ref()?;
        let journal = journals.begin(start).await?;
        Some(Tape::new(journal, false))
    }

    /// Goes on with a stream behind what the client has `seen`.
    pub(crate) async fn go_on<D: Dialect>(
        &self,
        entry: Entry,
        kept: KeptStream,
        seen: Option<Marks>,
        read: fn(&[u8]) -> Understood<D>,
    ) -> Result<Response, Fault> {
        let (ask, dialect) = read(&kept.start.body)?;
        let answer = self.counted(self.replay(entry, ask, kept, seen.as_ref()));
        respond(answer.await?, dialect, true, self.config.keep_alive, seen).await
    }

    async fn replay(
        &self,
        entry: Entry,
        ask: Ask,
        kept: KeptStream,
        seen: Option<&Marks>,
    ) -> Result<Answer, Fault> {
        let asked = Instant::now();
        let tape = Some(Tape::new(kept.journal, true));
        let StreamStart {
            begun_s,
            room,
            name,
            choices: plans,
            ..
        } = kept.start;
        let past = past(kept.batches, plans.len())?;
        seen.map_or(Ok(()), |seen| check(seen, &past))?;
        let first = plans.first().ok_or_else(Fault::stream_not_found)?;
        let prompts = plans.iter().step_by(ask.choices as usize);
        let heading = Heading {
            id: u128::from_le_bytes(name),
            created: begun_s,
            model: ask.generate.model.clone(),
            fingerprint: Some(first.fingerprint.clone()),
            prompt_tokens: prompts.map(|plan| plan.prompt.len() as u32).sum(),
            choices: plans.len(),
        };
        let (mut places, mut sources) = (vec![entry.place], Vec::new());
        for (plan, past) in plans.into_iter().zip(past) {
            if !sources.is_empty() {
                places.push(self.place(&entry.caller)?);
            }
            let request = GenerateRequest {
                caller: entry.caller.clone(),
                room: room.map(asked_room),
                ..ask.generate.clone()
            };
            sources.push(self.source(request, plan, past).await?);
        }
        let common = Common {
            asked,
            heading,
            stops: ask.stops,
            checker: ask.checker.map(Arc::new),
            stream: true,
            choices: ask.choices,
            tape,
        };
        Ok(self.assemble(common, sources, places))
    }

    /// A choice from the journal, and what the backend adds where it has not ended.
    async fn source(
        &self,
        request: GenerateRequest,
        plan: AnswerPlan,
        past: Past,
    ) -> Result<Source, Fault> {
        let (syntax, stops) = (plan.syntax.clone(), plan.stops.clone());
        let token = |event: &StreamEvent| match event {
            StreamEvent::Token(token) => Some(token.id),
            StreamEvent::Finished(_) => None,
        };
        let all = past.iter().flatten();
        let drawn: Vec<i32> = all.clone().filter_map(token).collect();
        let finished = all.count() > drawn.len();
        let request = GenerateRequest {
            resume: Some(Box::new(Resume { plan, drawn })),
            ..request
        };
        let events = match finished {
            true => None,
            false => Some(self.backend.generate(request).await?.events),
        };
        let past = past.into_iter();
        Ok(Source {
            events,
            syntax,
            stops,
            past: past
                .map(|events| events.into_iter().map(played).collect())
                .collect(),
        })
    }

    fn assemble(
        &self,
        common: Common,
        sources: Vec<Source>,
        places: Vec<crate::places::Place>,
    ) -> Answer {
        let Common { heading, tape, .. } = common;
        let (mut steps, notes) = (SelectAll::new(), Arc::<Notes>::default());
        for (choice, source) in sources.into_iter().enumerate() {
            let backend = Arc::clone(&self.backend);
            let checker = common.checker.clone();
            let reply = Reply::new(backend, source, &common.stops, checker, Arc::clone(&notes))
                .of(heading.id, choice, tape.clone())
                .watched(common.stream)
                .counts((choice as u32).is_multiple_of(common.choices));
            steps.push(reply.steps(choice));
        }
        self.tally.began(heading.prompt_tokens);
        let taken = tape.as_ref().map(|tape| tape.journal().taken());
        Answer {
            usage: Usage {
                prompt: heading.prompt_tokens,
                ..Usage::default()
            },
            asked: common.asked,
            notes,
            heading,
            steps,
            early: None,
            shutdown: self.config.shutdown.clone(),
            tally: Arc::clone(&self.tally),
            taken: taken.unwrap_or_else(|| Box::pin(std::future::pending())),
            tape,
            _places: places,
        }
    }
}

/// What a journal begins with, but for who asks; `None` where an answer cannot go on after a break.
fn start(origin: Origin, heading: &Heading, generations: &[Generation]) -> Option<StreamStart> {
    let plans = generations
        .iter()
        .map(|generation| generation.plan.as_deref().cloned());
    let choices = plans.collect::<Option<Vec<_>>>()?;
    (choices.len() <= STREAM_CHOICES_MAX).then(|| StreamStart {
        begun_s: heading.created,
        owner: proto::ids::Hash([0; 32]),
        dialect: origin.dialect,
        body: origin.body,
        room: None,
        name: heading.id.to_le_bytes(),
        choices,
    })
}

/// The batches of each choice.
fn past(batches: Vec<StreamBatch>, choices: usize) -> Result<Vec<Past>, Fault> {
    let mut past = vec![Past::new(); choices];
    for batch in batches {
        let of_choice = past.get_mut(batch.choice as usize);
        let of_choice = of_choice.ok_or_else(|| {
            Fault::internal("the journal has tokens of a choice that nobody asked for; ask again")
        })?;
        of_choice.push_back(batch.events);
    }
    Ok(past)
}

/// A place that the client names must be one that it can have been told.
fn check(seen: &Marks, past: &[Past]) -> Result<(), Fault> {
    let there = |(mark, past): (&Mark, &Past)| {
        mark.events <= past.iter().map(|events| events.len() as u64).sum()
    };
    match seen.0.len() == past.len() && seen.0.iter().zip(past).all(there) {
        true => Ok(()),
        false => Err(Fault::invalid(
            LAST_EVENT_ID,
            format!(
                "the stream has no event '{seen}'; send the id of the last event that came, or none for all of it"
            ),
        )),
    }
}

fn kept_room(room: Room) -> ad::Room {
    match room {
        Room::Alone => ad::Room::Alone,
        Room::Circle => ad::Room::Circle,
        Room::Square => ad::Room::Square,
    }
}

fn asked_room(room: ad::Room) -> Room {
    match room {
        ad::Room::Alone => Room::Alone,
        ad::Room::Circle => Room::Circle,
        ad::Room::Square => Room::Square,
    }
}
