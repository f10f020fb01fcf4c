//! Compiling grammars with `llguidance` or llama.cpp, and where one stands in a reply.

use super::schema::{SchemaError, prepare};
use crate::chat::GbnfGrammar;
use crate::llama::Model;
use llguidance::api::TopLevelGrammar;
use llguidance::toktrie::{ApproximateTokEnv, TokEnv, TokRxInfo, TokTrie};
use llguidance::{Matcher, ParserFactory};
use proto::host::{GRAMMAR_BYTES_MAX, Gbnf, Grammar};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

/// The longest grammar in Lark notation, in bytes: its rules call each other while they are compiled.
const LARK_BYTES_MAX: usize = 64 << 10;
/// The most opening brackets in one: each may be nested in the one before.
const LARK_BRACKETS_MAX: usize = 4_096;

/// Ways in which a grammar may go on behind a byte.
const ITEMS_MAX: usize = 5_000;
/// Symbols of a compiled grammar.
const SYMBOLS_MAX: usize = 250_000;
/// States of a grammar's lexer, of one to two kilobytes each.
const LEXER_STATES_MAX: usize = 30_000;
/// Work on the lexer while compiling; about 50,000 a millisecond.
const COMPILE_FUEL: u64 = 1_000_000;
/// Work on the lexer for one mask; about 14,000 a millisecond.
const MASK_FUEL: u64 = 200_000;
/// Items of the parser for one mask; about 20,000 a millisecond.
const MASK_ITEMS_MAX: usize = 50_000;
/// Between two words of JSON: nothing, a space, or one new line with its indentation. Whoever may write more blanks may do
/// so for ever.
const JSON_BLANK: &str = r" |\n[ \t]{0,20}";

/// The longest account of what is wrong, in characters; it may quote what it is about.
const WHY_CHARS_MAX: usize = 400;

/// Why a grammar is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum GrammarError {
    /// The schema is refused.
    #[error("the JSON schema cannot be followed: {0}")]
    Schema(#[from] SchemaError),
    /// The compiler refuses the schema.
    #[error("the JSON schema cannot be followed: {0}; leave that out or express it another way")]
    Unfit(String),
    /// The compiler refuses the grammar.
    #[error("the grammar cannot be used: {0}")]
    Lark(String),
    /// Too much text.
    #[error("the grammar has {bytes} bytes; at most {max} are taken")]
    TooLong {
        /// Its bytes.
        bytes: usize,
        /// The limit.
        max: usize,
    },
    /// Too many brackets.
    #[error("the grammar has {0} opening brackets; at most {LARK_BRACKETS_MAX} are taken")]
    Brackets(usize),
    /// llama.cpp refuses the grammar.
    #[error("the grammar cannot be used: {0}")]
    Gbnf(String),
    /// Compiling takes too long.
    #[error("compiling the grammar was given up after {0} seconds; use a simpler one")]
    Slow(u64),
    /// Others are being compiled.
    #[error("too many grammars are being compiled; try again in a few seconds")]
    Busy,
    /// The compiler broke.
    #[error("the grammar's compiler failed over it; use a simpler one")]
    Broken,
    /// A stage without text.
    #[error("this stage of a model has no vocabulary to write with")]
    NoVocabulary,
    /// The model never ends.
    #[error(
        "the model's vocabulary has no token that ends a reply, so a grammar cannot be completed"
    )]
    NoEnd,
}

/// The tokens of a model as the compiler wants them.
#[derive(Debug)]
pub(super) struct Vocabulary {
    words: Vec<Vec<u8>>,
    ends: Vec<u32>,
}

impl Vocabulary {
    /// Every byte as a token of its own, then these words, then one that ends the reply.
    #[cfg(test)]
    pub(super) fn of_bytes(words: &[&str]) -> Self {
        let bytes = (0..=u8::MAX).map(|byte| vec![byte]);
        let words = words.iter().map(|word| word.as_bytes().to_vec());
        let words: Vec<Vec<u8>> = bytes.chain(words).chain([b"\xff<end>".to_vec()]).collect();
        let ends = vec![words.len() as u32 - 1];
        Self { words, ends }
    }

    /// Reads a model's.
    pub(super) fn of(model: &Model) -> Result<Self, GrammarError> {
        let tokens = 0..model.vocabulary();
        if tokens.is_empty() {
            return Err(GrammarError::NoVocabulary);
        }
        let ends: Vec<u32> = tokens.clone().filter(|t| model.ends(*t as i32)).collect();
        if ends.is_empty() {
            return Err(GrammarError::NoEnd);
        }
        let words = tokens.map(|token| word(model, token as i32)).collect();
        Ok(Self { words, ends })
    }
}

/// The bytes that a token writes; for one that writes none or ends the reply, its name behind a byte that no text has, so
/// that it is allowed only where a grammar names it.
fn word(model: &Model, token: i32) -> Vec<u8> {
    let text = model.piece(token);
    if !text.is_empty() && !model.ends(token) {
        return text;
    }
    let name = match model.name(token) {
        name if name.is_empty() => format!("<{token}>").into_bytes(),
        name => name,
    };
    [&[TokTrie::SPECIAL_TOKEN_MARKER], name.as_slice()].concat()
}

/// Compiles grammars for one vocabulary.
pub(super) struct Compiler {
    factory: ParserFactory,
    /// Tokens without a word have none that could be allowed.
    vocabulary: usize,
}

impl Compiler {
    /// Sorts a vocabulary; takes a moment for large ones.
    pub(super) fn new(vocabulary: &Vocabulary) -> Result<Self, GrammarError> {
        let count = vocabulary.words.len();
        let info = TokRxInfo::new(count as u32, vocabulary.ends[0]);
        let trie = TokTrie::from(&info, &vocabulary.words).with_eos_tokens(&vocabulary.ends);
        let tokens: TokEnv = Arc::new(ApproximateTokEnv::new(trie));
        let factory = ParserFactory::new_simple(&tokens).map_err(|_| GrammarError::Broken)?;
        let mut factory = factory;
        factory.quiet();
        let limits = factory.limits_mut();
        limits.max_items_in_row = ITEMS_MAX;
        limits.max_grammar_size = SYMBOLS_MAX;
        limits.max_lexer_states = LEXER_STATES_MAX;
        limits.initial_lexer_fuel = COMPILE_FUEL;
        limits.step_lexer_fuel = MASK_FUEL;
        limits.step_max_items = MASK_ITEMS_MAX;
        limits.verbose_errors = false;
        Ok(Self {
            factory,
            vocabulary: count,
        })
    }

    /// Compiles one.
    pub(super) fn compile(&self, grammar: &Grammar) -> Result<Beginning, GrammarError> {
        let (top, refuse) = parse(grammar)?;
        let parser = self.factory.create_parser(top);
        let parser = parser.map_err(|error| refuse(plain(&error.to_string())))?;
        let mut matcher = Matcher::new(Ok(parser));
        // A warning says that a part of the schema would not be followed.
        if let Some(why) = matcher.get_error().or(matcher.grammar_warnings().pop()) {
            return Err(refuse(plain(&why)));
        }
        // What the first mask finds out of the grammar is kept for all later ones.
        if matcher.clone().compute_mask_or_eos().is_err() {
            return Err(refuse("no text fits it".to_owned()));
        }
        Ok(Beginning::Compiled {
            matcher: Box::new(matcher),
            vocabulary: self.vocabulary,
        })
    }
}

fn fits(text: &str, max: usize) -> Result<(), GrammarError> {
    match text.len() {
        bytes if bytes > max => Err(GrammarError::TooLong { bytes, max }),
        _ => Ok(()),
    }
}

type Refuse = fn(String) -> GrammarError;

fn parse(grammar: &Grammar) -> Result<(TopLevelGrammar, Refuse), GrammarError> {
    let schema = |text: &str| {
        let schema = prepare(text, JSON_BLANK)?;
        let top = TopLevelGrammar::from_json_schema(schema);
        Ok((top, GrammarError::Unfit as Refuse))
    };
    match grammar {
        Grammar::Json => schema(r#"{"type":"object"}"#),
        Grammar::Schema(text) => {
            fits(text, GRAMMAR_BYTES_MAX)?;
            schema(text)
        }
        Grammar::Lark(text) => {
            fits(text, LARK_BYTES_MAX)?;
            let brackets = text.matches(['(', '[', '{']).count();
            if brackets > LARK_BRACKETS_MAX {
                return Err(GrammarError::Brackets(brackets));
            }
            let top = TopLevelGrammar::from_lark(text.clone());
            Ok((top, GrammarError::Lark as Refuse))
        }
        Grammar::Gbnf(_) => Err(GrammarError::Broken),
    }
}

/// What the compiler says of things that nobody here can change, and what we say instead.
const OURS: [(&str, &str); 4] = [
    (
        "oneOf constraints are not supported",
        "oneOf is taken only where at most one of its schemas can match, such as different types or texts",
    ),
    (
        "Only absolute $ref",
        "a $ref is taken only within the schema, beginning with #/",
    ),
    (
        "fuel",
        "its patterns, lengths or alternatives are too many for each other",
    ),
    (
        "Unable to determine if",
        "its patterns are too much for each other",
    ),
];

/// The compiler's words without its state and stack, not too many of them.
fn plain(error: &str) -> String {
    if let Some((_, ours)) = OURS.iter().find(|(theirs, _)| error.contains(theirs)) {
        return (*ours).to_owned();
    }
    let cut = ["\n<state>", "\n<non-verbose/>", "\n<backtrace>"];
    let end = cut.iter().filter_map(|mark| error.find(mark)).min();
    let why = error[..end.unwrap_or(error.len())].trim();
    let why = why.replace("Unimplemented keys:", "these keywords are not supported:");
    // Both ends tell something; what is quoted between them may be long.
    let chars = why.chars().count();
    if chars <= WHY_CHARS_MAX {
        return why;
    }
    let begin: String = why.chars().take(WHY_CHARS_MAX / 2).collect();
    let end: String = why.chars().skip(chars - WHY_CHARS_MAX / 2).collect();
    format!("{begin} … {end}")
}

/// A place for a grammar, filled by whoever compiles it.
pub(super) type Compiled = OnceLock<Result<Beginning, GrammarError>>;

/// A grammar before the first token.
pub(super) enum Beginning {
    /// Of `llguidance`.
    Compiled {
        matcher: Box<Matcher>,
        vocabulary: usize,
    },
    /// Of llama.cpp; copied by one thread at a time.
    Gbnf(Mutex<GbnfGrammar>),
}

impl std::fmt::Debug for Beginning {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Beginning").finish_non_exhaustive()
    }
}

impl Beginning {
    /// Reads a grammar in llama.cpp's notation.
    pub(super) fn gbnf(model: &Arc<Model>, gbnf: &Gbnf) -> Result<Self, GrammarError> {
        fits(&gbnf.rules, GRAMMAR_BYTES_MAX)?;
        let grammar = GbnfGrammar::new(model, gbnf).map_err(GrammarError::Gbnf)?;
        Ok(Self::Gbnf(Mutex::new(grammar)))
    }

    /// Where a reply begins.
    pub(super) fn begin(&self) -> Result<Guide, GuideError> {
        match self {
            Self::Compiled {
                matcher,
                vocabulary,
            } => Ok(Guide::Compiled {
                matcher: matcher.clone(),
                vocabulary: *vocabulary,
            }),
            Self::Gbnf(grammar) => {
                let grammar = grammar.lock().unwrap_or_else(PoisonError::into_inner);
                let copy = grammar.try_clone().map_err(GuideError::GaveUp)?;
                Ok(Guide::Gbnf(copy))
            }
        }
    }
}

/// Why a grammar does not go on.
#[derive(Debug)]
pub(super) enum GuideError {
    /// It allows no token.
    Nothing,
    /// It became too large, or refuses what it allowed before.
    GaveUp(String),
}

/// Where a grammar stands in a reply. After an error it is of no use.
pub(super) enum Guide {
    /// In one of `llguidance`.
    Compiled {
        matcher: Box<Matcher>,
        /// Tokens that it knows.
        vocabulary: usize,
    },
    /// In one of llama.cpp.
    Gbnf(GbnfGrammar),
}

impl std::fmt::Debug for Guide {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Guide").finish_non_exhaustive()
    }
}

impl Guide {
    /// Whether a token may be next.
    pub(super) fn allows(&mut self, token: i32) -> Result<bool, GuideError> {
        match self {
            Self::Compiled { vocabulary, .. } if token as usize >= *vocabulary => Ok(false),
            Self::Compiled { matcher, .. } => {
                // What is complete and cannot go on allows nothing here, and ends alone in the mask.
                let fits = matcher.validate_tokens(&[token as u32]);
                fits.map(|fits| fits == 1).map_err(gave_up)
            }
            Self::Gbnf(grammar) => Ok(grammar.allows(token)),
        }
    }

    /// Sets every logit to −∞ whose token may not be next.
    pub(super) fn mask(&mut self, logits: &mut [f32]) -> Result<(), GuideError> {
        match self {
            Self::Compiled {
                matcher,
                vocabulary,
            } => {
                let allowed = matcher.compute_mask_or_eos().map_err(gave_up)?;
                for (token, logit) in logits.iter_mut().enumerate() {
                    if token >= *vocabulary || !allowed.is_allowed(token as u32) {
                        *logit = f32::NEG_INFINITY;
                    }
                }
                Ok(())
            }
            Self::Gbnf(grammar) => grammar.mask(logits).map_err(GuideError::GaveUp),
        }
    }

    /// Goes on behind a token that may be next.
    pub(super) fn accept(&mut self, token: i32) -> Result<(), GuideError> {
        match self {
            // Behind what is complete comes nothing but an end, and the compiler takes no more.
            Self::Compiled { matcher, .. }
                if matcher.is_stopped() && matcher.stop_reason().is_ok() =>
            {
                Ok(())
            }
            Self::Compiled { matcher, .. } => matcher.consume_token(token as u32).map_err(gave_up),
            Self::Gbnf(grammar) => grammar.accept(token).map_err(GuideError::GaveUp),
        }
    }
}

fn gave_up(error: impl std::fmt::Display) -> GuideError {
    match plain(&error.to_string()) {
        why if why.contains("NoExtension") => GuideError::Nothing,
        why => GuideError::GaveUp(why),
    }
}
