//! A session at its coordinator, through duplicates, repetitions, killed stages, engines that start again, broken hops, zombies and
//! cancellation: the tokens of one machine, caches that hold what they must after every step, and nothing computed twice by those
//! that still have it.

use crate::engine::{Part, draw, embed, from_bytes, to_bytes};
use crate::request::{MOVES_A_WRONG, alone, plan};
use crate::ring::{Arrival, Call, Lane, Ring, Sabotage};
use crate::rng::Rng;
use crate::run_seeds;
use bytes::Bytes;
use proto::host::{Output, Role, Run};
use proto::ids::NodeId;
use proto::model::LayerRange;
use proto::ring::{HopBody, LinkBody};
use swarm::session::{
    Effect, Event, FRAMES_IN_FLIGHT_MAX, FinishReason, Rebuild, RemoteStage, Session, SessionPlan,
    Way,
};
use swarm::split::split;

/// A run that takes longer is stuck.
const STEPS_MAX: usize = 100_000;

/// What a run came to, and which faults struck.
#[derive(Debug, Default, Clone, PartialEq)]
struct Outcome {
    tokens: Vec<i32>,
    reason: Option<FinishReason>,
    steps: usize,
    now_ms: u64,
    repeats: usize,
    lost: usize,
    cancels: usize,
    acks: usize,
    /// Stages that died.
    kills: usize,
    /// Two or more were replaced at once.
    pairs: usize,
    /// Rings that were lost before the one before was rebuilt.
    again: usize,
    /// Hops that broke while all stages lived.
    breaks: usize,
    restarts: usize,
    /// Rings of other machines, cut in other places.
    renewals: usize,
    zombies: usize,
    /// What the session said of going on.
    rebuilds: usize,
    from_tokens: usize,
    replayed: usize,
    survivors: usize,
    /// Shadows that had all that they were to have.
    shadowed: usize,
    /// Rows that who took over had already.
    spared: usize,
    /// Rows computed twice by stages that had them.
    recomputed: usize,
    /// The same, as the session said beforehand.
    announced: usize,
    /// Tokens that were guessed and came back, and how many of them were right.
    guessed: usize,
    guessed_right: usize,
    /// Rows of guesses whose place others took at a stage.
    replaced: usize,
    /// Rings that were lost while guesses were on them.
    guesses_lost: usize,
}

struct World {
    ring: Ring,
    session: Session,
    plan: SessionPlan,
    head: Part,
    tail: Part,
    expected: (Vec<i32>, FinishReason),
    outcome: Outcome,
    /// How often something goes wrong: once in so many steps.
    trouble: usize,
    /// The session waits for another ring.
    stranded: bool,
    /// What is wrong with the ring and not known yet.
    unnoticed: Option<Wrong>,
    /// What went wrong with rings, and how often the session left one.
    wrongs: u32,
    strandings: u32,
    /// After so many tokens the text says the same again; 0 is never.
    habit: u32,
    /// Whether the newest frame has guesses.
    guesses_sent: bool,
}

/// What is wrong with a ring.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Wrong {
    Stage(u32),
    Hop,
}

fn run(seed: u64, sabotage: Sabotage) -> Result<Outcome, String> {
    run_counting(seed, sabotage).0
}

/// Also says how often the sabotage struck.
fn run_counting(seed: u64, sabotage: Sabotage) -> (Result<Outcome, String>, usize) {
    let mut rng = Rng::new(seed);
    let remote = 1 + rng.below(3) as u32;
    let layers = remote + 2 + rng.below(4) as u32;
    let split = split(layers, remote, 0).expect("there are enough layers");
    let habit = [0, 5, 9, 30][rng.below(4)];
    let plan = plan(&mut rng, &split.remote, habit);
    let (tokens, reason, truth) = alone(&plan, layers, habit);
    let mut world = World {
        session: Session::new(plan.clone()).expect("the plan is sound"),
        head: Part::new(split.head),
        tail: Part::new(split.tail),
        expected: (tokens, reason),
        plan,
        outcome: Outcome::default(),
        trouble: [10, 40, 200][rng.below(3)],
        stranded: false,
        unnoticed: None,
        wrongs: 0,
        strandings: 0,
        habit,
        guesses_sent: false,
        ring: Ring::new(rng, &split.remote, sabotage, truth),
    };
    let outcome = world.run();
    (outcome.map(|()| world.outcome), world.ring.strikes)
}

impl World {
    fn run(&mut self) -> Result<(), String> {
        self.event(Event::Start)?;
        for step in 0..STEPS_MAX {
            self.outcome.steps = step;
            if !self.session.status().over {
                self.disturb()?;
            }
            match self.ring.step()? {
                None if self.stranded => self.rejoin()?,
                None if self.unnoticed.is_some() => self.notice()?,
                None => return self.check_end(),
                Some(arrival) => self.arrive(arrival)?,
            }
        }
        Err(format!(
            "{STEPS_MAX} steps and no end: {:?}",
            self.session.status()
        ))
    }

    fn disturb(&mut self) -> Result<(), String> {
        if self.ring.rng.once_in(50) {
            self.event(Event::Tick)?;
        }
        if self.stranded && self.ring.rng.once_in(4) {
            return self.rejoin();
        }
        if self.unnoticed.is_some() && self.ring.rng.once_in(6) {
            return self.notice();
        }
        if !self.ring.rng.once_in(self.trouble) {
            return Ok(());
        }
        let stage = self.ring.rng.below(self.ring.stages.len());
        match self.ring.rng.below(30) {
            0..14 => {
                let hop = self.ring.rng.below(self.ring.stages.len() + 1);
                self.outcome.repeats += self.ring.repeat(hop);
            }
            14..21 if self.may_lose() => {
                self.wrongs += 1;
                self.outcome.kills += usize::from(self.ring.kill(stage));
                self.unnoticed = Some(Wrong::Stage(stage as u32 + 1));
                let other = self.ring.rng.below(self.ring.stages.len());
                if self.ring.rng.once_in(2) {
                    self.outcome.kills += usize::from(self.ring.kill(other));
                }
            }
            21..24 if self.may_lose() && self.unnoticed.is_none() => {
                self.wrongs += 1;
                self.outcome.breaks += 1;
                self.outcome.lost += self.ring.lose(Lane::Hop(stage));
                self.unnoticed = Some(Wrong::Hop);
            }
            24..27 if self.may_lose() && !self.ring.dead().contains(&stage) => {
                let opened = self.ring.stages[stage].sessions() > 0;
                self.wrongs += 1;
                self.outcome.restarts += usize::from(opened);
                self.ring.restart(stage)?;
                // What it says about it may be lost with the ring.
                let quiet = opened && self.unnoticed.is_none() && !self.stranded;
                self.unnoticed = self.unnoticed.or(quiet.then_some(Wrong::Hop));
            }
            27 if self.ring.rng.once_in(4) => {
                self.outcome.cancels += 1;
                self.event(Event::Cancel)?;
            }
            _ => {}
        }
        Ok(())
    }

    /// Whether the session would survive the loss of its ring.
    fn may_lose(&self) -> bool {
        (self.wrongs + 1) * MOVES_A_WRONG <= self.plan.moves_max
    }

    /// The coordinator becomes certain that something is wrong.
    fn notice(&mut self) -> Result<(), String> {
        let stage = match self.unnoticed.take() {
            Some(Wrong::Stage(stage)) => stage.min(self.ring.stages.len() as u32),
            _ => 1,
        };
        if self.stranded || self.session.status().over {
            return Ok(());
        }
        let done = self.session.status().position;
        let partly = self.ring.parts.iter().any(|part| part.length() < done);
        self.outcome.again += usize::from(partly && self.strandings > 0);
        self.event(Event::LinkLost { stage })
    }

    /// There is a ring again: others take the places of the dead, or all places; or everybody lived.
    fn rejoin(&mut self) -> Result<(), String> {
        self.stranded = false;
        let dead = self.ring.dead();
        let ring = if self.ring.rng.once_in(5) {
            self.outcome.renewals += 1;
            self.unnoticed = None;
            let layers = self.other_cut();
            self.ring.renew(&layers)
        } else if dead.is_empty() && self.ring.rng.once_in(2) {
            (self.ring.id(), 0)
        } else {
            // One that died meanwhile may not be known yet.
            let all = dead.len() < 2 || self.ring.rng.once_in(2);
            let lost = if all { &dead[..] } else { &dead[1..] };
            self.unnoticed = (!all).then(|| Wrong::Stage(dead[0] as u32 + 1));
            self.outcome.pairs += usize::from(lost.len() > 1);
            self.outcome.survivors += self.ring.stages.len() - lost.len();
            self.ring.mend(lost)
        };
        self.outcome.zombies += ring.1;
        let stages = self.ring.parts.iter().map(|part| RemoteStage {
            node: NodeId([8; 32]),
            layers: part.layers(),
        });
        let stages = stages.collect();
        self.event(Event::Rejoin(Way {
            ring: ring.0,
            stages,
        }))
    }

    /// The layers between head and tail, for as many stages as there are.
    fn other_cut(&mut self) -> Vec<LayerRange> {
        let between = LayerRange {
            first: self.plan.stages[0].layers.first,
            end: self.plan.stages[self.plan.stages.len() - 1].layers.end,
        };
        let cut = between.first + 1 + self.ring.rng.below(between.len() as usize) as u32;
        let first = LayerRange {
            end: cut,
            ..between
        };
        let rest = LayerRange {
            first: cut,
            ..between
        };
        if cut < between.end {
            vec![first, rest]
        } else {
            vec![first]
        }
    }

    /// Feeds who stands by for each stage, or does not get round to it.
    fn shadow(&mut self, until: u32) -> Result<(), String> {
        let at = self.session.at();
        for stage in 0..self.ring.stages.len() {
            let from = self.ring.fed(stage, at.epoch);
            let frames = match stage.checked_sub(1) {
                None => self.session.shadow(from, until),
                Some(before) if self.ring.dead().contains(&before) => None,
                Some(before) => self.ring.stages[before].shadow(at, from, until),
            };
            if let Some(frames) = frames.filter(|_| !self.ring.rng.once_in(3)) {
                let rows = self.ring.feed(stage, at.epoch, frames)?;
                self.outcome.shadowed += usize::from(rows == until);
            }
        }
        Ok(())
    }

    fn rebuilt(&mut self, rebuild: &Rebuild) {
        self.outcome.rebuilds += 1;
        self.outcome.from_tokens += usize::from(rebuild.from_tokens);
        for stage in &rebuild.stages {
            self.outcome.announced += stage.recomputed as usize;
            self.outcome.replayed += stage.replayed as usize;
        }
    }

    fn arrive(&mut self, arrival: Arrival) -> Result<(), String> {
        match arrival {
            Arrival::Elsewhere | Arrival::Hop(HopBody::Open(_), _) => Ok(()),
            Arrival::Hop(HopBody::Rows(rows), payload) => {
                self.event(Event::Returned { rows, payload })
            }
            Arrival::Link(stage, LinkBody::SessionFailed(failed)) => {
                self.event(Event::StageFailed { stage, failed })
            }
            Arrival::Link(stage, LinkBody::EpochAnswer(answer)) => {
                self.event(Event::EpochAnswer { stage, answer })
            }
            Arrival::Link(stage, other) => Err(format!("from stage {stage}: {other:?}")),
            Arrival::Call(Call::Coordinator(run, payload)) => self.compute(&run, &payload),
            Arrival::Call(Call::Drop) => self.trim(0),
            Arrival::Call(Call::Trim(length)) => self.trim(length),
            Arrival::Call(other) => Err(format!("to the coordinator's engine: {other:?}")),
        }
    }

    /// Cuts what is longer, in the coordinator's engine.
    fn trim(&mut self, length: u32) -> Result<(), String> {
        let parts = [&mut self.head, &mut self.tail].into_iter();
        let mut longer = parts.filter(|part| part.length() > length);
        longer.try_for_each(|part| part.trim(length))
    }

    fn compute(&mut self, run: &Run, payload: &Bytes) -> Result<(), String> {
        let position = run.position;
        if run.role == Role::Head {
            let rows = self.head.run(position, &embed(&run.tokens))?;
            return self.event(Event::HeadDone {
                position,
                rows: to_bytes(&rows),
            });
        }
        let rows = self.tail.run(position, &from_bytes(payload))?;
        let Output::Token(how) = run.output else {
            return self.event(Event::TailDone {
                position,
                drawn: Vec::new(),
                head_rows: None,
            });
        };
        let first = position + (rows.len() - run.guesses.len()) as u32;
        let mut drawn = Vec::new();
        for (at, row) in (first..).zip(&rows[rows.len() - 1 - run.guesses.len()..]) {
            let token = draw(*row, &how.sampling, at, self.habit);
            let right = !token.end && run.guesses.get(drawn.len()) == Some(&token.token);
            drawn.push(token);
            if !right {
                break;
            }
        }
        if !run.guesses.is_empty() {
            self.trim(first - 1 + drawn.len() as u32)?;
        }
        let last = &drawn[drawn.len() - 1];
        let next = last.position == self.head.length();
        let along = how.then_head && next && !last.end && !self.ring.rng.once_in(8);
        let head_rows = match along {
            true => Some(to_bytes(
                &self.head.run(last.position, &embed(&[last.token]))?,
            )),
            false => None,
        };
        self.event(Event::TailDone {
            position,
            drawn,
            head_rows,
        })
    }

    fn event(&mut self, event: Event) -> Result<(), String> {
        self.session.set_lone(!self.ring.rng.once_in(8));
        for effect in self.session.handle(event, self.ring.now_ms) {
            if self.outcome.reason.is_some() {
                return Err(format!("after the end: {effect:?}"));
            }
            match effect {
                Effect::RunHead(run) => self.ring.call(0, Call::Coordinator(run, Bytes::new())),
                Effect::RunTail { run, payload } => {
                    self.ring.call(0, Call::Coordinator(run, payload));
                }
                Effect::Forward { body, payload } => {
                    self.guesses_sent = matches!(body, HopBody::Rows(rows) if rows.guessed > 0);
                    self.ring.forward(0, body, payload);
                }
                Effect::Tell { stage, body } => {
                    self.outcome.acks += usize::from(matches!(body, LinkBody::Ack(_)));
                    self.ring.tell(stage, body);
                }
                Effect::Token(drawn) => self.outcome.tokens.push(drawn.token),
                Effect::Suspect(_) | Effect::Doubt => {}
                Effect::Shadow { until } => self.shadow(until)?,
                Effect::Resumed(rebuild) => self.rebuilt(&rebuild),
                // The engine carries it out before what waits, or behind it.
                Effect::TrimCaches { length } if self.ring.rng.once_in(2) => self.trim(length)?,
                Effect::TrimCaches { length } => self.ring.call(0, Call::Trim(length)),
                Effect::Strand(_) => {
                    self.stranded = true;
                    self.strandings += 1;
                    self.outcome.guesses_lost += usize::from(self.guesses_sent);
                }
                Effect::DropCaches => self.ring.call(0, Call::Drop),
                Effect::Finish(reason) => self.outcome.reason = Some(reason),
                Effect::Fail(fault) => return Err(fault.to_string()),
            }
        }
        if self.session.status().frames_in_flight > FRAMES_IN_FLIGHT_MAX {
            return Err(format!("too much in flight: {:?}", self.session.status()));
        }
        match self.expected.0.starts_with(&self.outcome.tokens) {
            true => Ok(()),
            false => Err(format!(
                "tokens {:?}, alone {:?}",
                self.outcome.tokens, self.expected.0
            )),
        }
    }

    fn check_end(&mut self) -> Result<(), String> {
        self.outcome.now_ms = self.ring.now_ms;
        self.outcome.recomputed = self.ring.recomputed;
        self.outcome.replaced = self.ring.replaced;
        let status = self.session.status();
        self.outcome.guessed = status.guessed as usize;
        self.outcome.guessed_right = status.guessed_right as usize;
        self.outcome.spared = self.ring.spared as usize;
        // A stage may be lost before it did what was settled.
        if self.ring.recomputed > self.outcome.announced {
            return Err(format!("{:?}", self.outcome));
        }
        let Some(reason) = self.outcome.reason else {
            return Err(format!(
                "nothing moves any more: {:?}",
                self.session.status()
            ));
        };
        self.ring.check_empty()?;
        if self.head.length() + self.tail.length() > 0 {
            return Err("cached rows are left over at the coordinator".into());
        }
        let whole = reason == self.expected.1 && self.outcome.tokens == self.expected.0;
        match whole || (reason == FinishReason::Cancelled && self.outcome.cancels == 1) {
            true => Ok(()),
            false => Err(format!(
                "{reason:?} after {} tokens: {:?}",
                self.outcome.tokens.len(),
                self.plan
            )),
        }
    }
}

#[test]
fn tokens_equal_those_of_one_machine() {
    let outcomes = run_seeds(0..1_200, |seed| run(seed, Sabotage::None));
    let sum = |count: fn(&Outcome) -> usize| outcomes.iter().map(count).sum::<usize>();
    let ended = |reason| {
        outcomes
            .iter()
            .filter(|outcome| outcome.reason == Some(reason))
            .count()
    };
    for (fault, struck) in [
        ("repeated frames", sum(|o| o.repeats)),
        ("killed stages", sum(|o| o.kills)),
        ("two at once", sum(|o| o.pairs)),
        ("rings lost before they were whole", sum(|o| o.again)),
        ("stages that lived on", sum(|o| o.survivors)),
        ("engines started again", sum(|o| o.restarts)),
        ("broken hops", sum(|o| o.breaks)),
        ("lost frames", sum(|o| o.lost)),
        ("rings of other machines", sum(|o| o.renewals)),
        ("messages of lost rings", sum(|o| o.zombies)),
        ("rebuilt rings", sum(|o| o.rebuilds)),
        ("rings rebuilt from the tokens", sum(|o| o.from_tokens)),
        ("replayed rows", sum(|o| o.replayed)),
        ("cancellations", sum(|o| o.cancels)),
        ("acknowledgements", sum(|o| o.acks)),
        ("shadows", sum(|o| o.shadowed)),
        ("right guesses", sum(|o| o.guessed_right)),
        ("wrong guesses", sum(|o| o.guessed - o.guessed_right)),
        ("rows in the place of guesses", sum(|o| o.replaced)),
        ("rings lost with guesses on them", sum(|o| o.guesses_lost)),
        ("rows that were there at a takeover", sum(|o| o.spared)),
        ("answers ended by the model", ended(FinishReason::End)),
        ("answers ended by the limit", ended(FinishReason::Length)),
        ("answers ended by the context", ended(FinishReason::Context)),
        ("answers cancelled", ended(FinishReason::Cancelled)),
    ] {
        assert!(struck >= 20, "{fault}: only {struck}");
    }
    // Where everything is retained, nobody computes twice what he has.
    let retained = outcomes
        .iter()
        .filter(|o| o.acks == 0 && o.from_tokens == 0)
        // A row that was sent in the place of a guess may have come to a stage, and counts for nothing until it has come back.
        .filter(|o| o.guessed == 0 && o.guesses_lost == 0);
    assert_eq!(
        retained.map(|o| o.recomputed + o.announced).sum::<usize>(),
        0
    );
}

#[test]
fn a_broken_world_is_noticed() {
    fn check(sabotage: Sabotage, share: usize) {
        let runs: Vec<_> = (0..200).map(|seed| run_counting(seed, sabotage)).collect();
        let struck = runs.iter().filter(|(_, strikes)| *strikes > 0).count();
        let noticed = runs
            .iter()
            .filter(|(run, strikes)| run.is_err() && *strikes > 0)
            .count();
        assert!(struck >= 50, "{sabotage:?} struck only {struck} times");
        assert!(
            noticed * 100 >= struck * share,
            "{sabotage:?}: {noticed} of {struck} noticed"
        );
    }
    check(Sabotage::LoseFrame, 50);
    check(Sabotage::ComputeTwice, 100);
    check(Sabotage::FlipBit, 50);
}
