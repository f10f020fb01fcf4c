//! What is killed, when, and under which question: all of it drawn from one seed.

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

/// Seeds stay whole where numbers are 64-bit floats, as in many readers of JSON.
const SEED_BITS: u32 = 53;
/// Tokens of the shortest reply; those that may be killed in the prefill are short, for the prompt is long.
const TOKENS_MIN: u32 = 12;
/// Tokens of the longest reply.
const TOKENS_MAX: u32 = 1_000;
/// Tokens of the longest reply to a long prompt.
const TOKENS_MAX_PREFILL: u32 = 64;
/// The share of replies that have the most tokens; others are drawn so that each factor of length is as likely.
const LONGEST_SHARE: f64 = 0.05;
/// Seeds of samplers; few, so that one undisturbed reply serves many kills.
const SAMPLER_SEEDS: u32 = 2;
/// Tokens that are left when the last moment is struck. The row of the next one may have passed the victim already.
const LEFT_MIN: u32 = 2;
/// What part of a prefill may have passed when it is struck.
const PREFILL_SHARES: (f64, f64) = (0.1, 0.9);

/// What is asked for; the replies are longer than we let most of them be.
const QUESTIONS: [&str; 4] = [
    "Tell a very long story about a river.",
    "Write a long letter from a lighthouse keeper to her brother.",
    "Explain in great detail how bread is baked, from the field to the table.",
    "Describe a city in which nobody sleeps, street by street.",
];
/// How often the sentence that makes a prompt long is repeated, in numbered lines.
const LINES: [u32; 3] = [30, 50, 70];

/// Who was asked: remote stages, and whether a member is there that has none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(super) struct Shape {
    /// Remote stages.
    pub(super) stages: u32,
    /// A member more than there are stages.
    pub(super) spare: bool,
}

impl Shape {
    /// All that a reply can outlive. One remote stage without a spare member is left out: nobody would be there.
    pub(super) const ALL: [Self; 5] = [
        Self::new(1, true),
        Self::new(2, false),
        Self::new(2, true),
        Self::new(3, false),
        Self::new(3, true),
    ];

    /// So many stages, and perhaps a spare member.
    pub(super) const fn new(stages: u32, spare: bool) -> Self {
        Self { stages, spare }
    }

    /// Members beside the coordinator.
    pub(super) fn hosts(self) -> u32 {
        self.stages + u32::from(self.spare)
    }
}

/// When it is struck.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Kind {
    /// While the prompt is computed.
    Prefill,
    /// After the first token.
    First,
    /// After the seventh.
    Seventh,
    /// After any token.
    Random,
    /// Two tokens before the end.
    Last,
}

impl Kind {
    /// In the order of a reply.
    pub(super) const ALL: [Self; 5] = [
        Self::Prefill,
        Self::First,
        Self::Seventh,
        Self::Random,
        Self::Last,
    ];

    /// For people.
    pub(super) fn words(self) -> &'static str {
        match self {
            Self::Prefill => "prefill",
            Self::First => "token 1",
            Self::Seventh => "token 7",
            Self::Random => "any token",
            Self::Last => "last",
        }
    }
}

/// What is asked, without the length of the reply.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(super) struct Question {
    /// Which text.
    text: u32,
    /// Lines before it that make the prompt long; 0 for a short one.
    lines: u32,
    /// The sampler's seed; `None` for the most probable token always.
    pub(super) sampler: Option<u32>,
}

impl Question {
    /// A short question for the most probable tokens.
    pub(super) fn first() -> Self {
        Self {
            text: 0,
            lines: 0,
            sampler: None,
        }
    }

    /// The body of the request. Probabilities are asked for: they tell replies apart where the tokens do not.
    pub(super) fn body(&self, model: &str, tokens_max: u32) -> Value {
        let mut text = String::new();
        for line in 1..=self.lines {
            text += &format!("Line {line}: the river carries what the hills have given it.\n");
        }
        text += QUESTIONS[self.text as usize];
        let mut body = json!({
            "model": model,
            "messages": [{"role": "user", "content": text}],
            "max_tokens": tokens_max,
            "stream": true,
            "logprobs": true,
            "temperature": 0,
        });
        if let Some(seed) = self.sampler {
            body["temperature"] = json!(1.0);
            body["top_p"] = json!(0.95);
            body["seed"] = json!(seed);
        }
        body
    }
}

/// One kill.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Kill {
    /// All else comes from it, and from how often it was drawn again.
    pub(super) seed: u64,
    /// The ring.
    pub(super) shape: Shape,
    /// What is asked.
    pub(super) question: Question,
    /// The most tokens of the reply.
    pub(super) tokens: u32,
    /// The stage whose node is killed, from 1.
    pub(super) victim: u32,
    /// When.
    pub(super) kind: Kind,
    /// A number from 0 to below 1, for when exactly.
    share: f64,
}

impl Kill {
    /// The kill of a seed, and what is drawn in its place after `voids` that did not strike: the same ring.
    pub(super) fn draw(seed: u64, voids: u32) -> Self {
        let mut dice = Dice::new(seed);
        let shape = Shape::ALL[dice.below(Shape::ALL.len() as u32) as usize];
        let mut dice = Dice::new(seed ^ (u64::from(voids) << SEED_BITS));
        let kind = match dice.below(20) {
            0..3 => Kind::Prefill,
            3..6 => Kind::First,
            6..9 => Kind::Seventh,
            9..17 => Kind::Random,
            _ => Kind::Last,
        };
        let is_greedy = dice.below(2) == 0;
        let question = Question {
            text: dice.below(QUESTIONS.len() as u32),
            lines: match kind {
                Kind::Prefill => LINES[dice.below(LINES.len() as u32) as usize],
                _ => 0,
            },
            sampler: (!is_greedy).then(|| 1 + dice.below(SAMPLER_SEEDS)),
        };
        Self {
            seed,
            shape,
            question,
            tokens: dice.tokens(kind),
            victim: 1 + dice.below(shape.stages),
            kind,
            share: dice.share(),
        }
    }

    /// After how many tokens it strikes a reply that has `length`; `None` in a prefill, or where the reply is too short.
    pub(super) fn after(&self, length: u32) -> Option<u32> {
        let last = length.checked_sub(LEFT_MIN).filter(|last| *last > 0)?;
        let after = match self.kind {
            Kind::Prefill => return None,
            Kind::First => 1,
            Kind::Seventh => 7,
            Kind::Random => 1 + (f64::from(last) * self.share) as u32,
            Kind::Last => last,
        };
        (after <= last).then_some(after)
    }

    /// What part of the prefill has passed when it strikes.
    pub(super) fn prefill_share(&self) -> f64 {
        let (low, high) = PREFILL_SHARES;
        low + (high - low) * self.share
    }
}

/// The seed of the n-th kill of a campaign.
pub(super) fn seed_of(campaign: u64, n: u32) -> u64 {
    let mut random = ChaCha8Rng::seed_from_u64(campaign);
    random.set_stream(u64::from(n));
    random.next_u64() >> (64 - SEED_BITS)
}

struct Dice(ChaCha8Rng);

impl Dice {
    fn new(seed: u64) -> Self {
        Self(ChaCha8Rng::seed_from_u64(seed))
    }

    /// From 0 to below 1.
    fn share(&mut self) -> f64 {
        (self.0.next_u64() >> (64 - SEED_BITS)) as f64 / (1u64 << SEED_BITS) as f64
    }

    fn below(&mut self, end: u32) -> u32 {
        (self.share() * f64::from(end)) as u32
    }

    fn tokens(&mut self, kind: Kind) -> u32 {
        let is_longest = self.share() < LONGEST_SHARE;
        let max = match kind {
            Kind::Prefill => TOKENS_MAX_PREFILL,
            _ if is_longest => return TOKENS_MAX,
            _ => TOKENS_MAX,
        };
        let factor = f64::from(max) / f64::from(TOKENS_MIN);
        (f64::from(TOKENS_MIN) * factor.powf(self.share())).round() as u32
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    fn kills() -> Vec<Kill> {
        let seeds = (0..2_000).map(|n| seed_of(7, n));
        seeds.map(|seed| Kill::draw(seed, 0)).collect()
    }

    #[test]
    fn a_seed_is_one_kill_and_seeds_differ() {
        let seeds: BTreeSet<u64> = (0..2_000).map(|n| seed_of(7, n)).collect();
        assert_eq!(seeds.len(), 2_000);
        assert!(seeds.iter().all(|seed| *seed < 1 << SEED_BITS));
        assert_ne!(seed_of(7, 0), seed_of(8, 0));
        for seed in seeds {
            assert_eq!(Kill::draw(seed, 0), Kill::draw(seed, 0));
            let again = Kill::draw(seed, 1);
            assert_eq!(again.shape, Kill::draw(seed, 0).shape);
        }
    }

    #[test]
    fn everything_is_drawn_and_nothing_beyond_its_bounds() {
        let kills = kills();
        let count = |fits: &dyn Fn(&Kill) -> bool| kills.iter().filter(|kill| fits(kill)).count();
        for shape in Shape::ALL {
            assert!(count(&|kill| kill.shape == shape) > 300, "{shape:?}");
            for victim in 1..=shape.stages {
                assert!(count(&|kill| kill.shape == shape && kill.victim == victim) > 80);
            }
        }
        for kind in Kind::ALL {
            assert!(count(&|kill| kill.kind == kind) > 200, "{kind:?}");
        }
        assert!(count(&|kill| kill.question.sampler.is_none()) > 800);
        assert!(count(&|kill| kill.tokens == TOKENS_MAX) > 60);
        assert!(count(&|kill| kill.tokens < 100) > 600);
        let fits = |kill: &Kill| {
            (TOKENS_MIN..=TOKENS_MAX).contains(&kill.tokens)
                && kill.victim <= kill.shape.stages
                && (kill.question.lines > 0) == (kill.kind == Kind::Prefill)
        };
        assert!(kills.iter().all(fits));
    }

    #[test]
    fn a_reply_is_struck_before_its_end_or_not_at_all() {
        for kill in kills() {
            for length in [0, 1, 2, 3, 8, 9, kill.tokens] {
                if let Some(after) = kill.after(length) {
                    assert!((1..=length - LEFT_MIN).contains(&after), "{kill:?}");
                }
            }
            let share = kill.prefill_share();
            assert!((0.1..0.9).contains(&share));
            let strikes = kill.after(kill.tokens).is_some();
            assert_eq!(strikes, kill.kind != Kind::Prefill, "{kill:?}");
        }
    }

    #[test]
    fn a_question_names_all_that_its_reply_depends_on() {
        let kills = kills();
        let body = |kill: &Kill| kill.question.body("m", 5);
        let seeded = kills.iter().find(|kill| kill.question.sampler == Some(2));
        assert_eq!(body(seeded.unwrap())["seed"], 2);
        let greedy = kills.iter().find(|kill| kill.question.sampler.is_none());
        let greedy = body(greedy.unwrap());
        assert_eq!(
            (&greedy["temperature"], &greedy["seed"]),
            (&json!(0), &Value::Null)
        );
        assert_eq!(
            (&greedy["max_tokens"], &greedy["logprobs"]),
            (&json!(5), &json!(true))
        );
    }
}
