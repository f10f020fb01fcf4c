//! Fields that come in several shapes.
//!
//! Nothing here keeps a value that is not needed: a field that is only refused or ignored is skipped while it is read,
//! so a large body cannot grow in memory.

use crate::backend::{Input, Prompt};
use crate::fault::Fault;
use serde::Deserialize;
use serde::de::{Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};
use std::fmt;
use std::marker::PhantomData;

/// The most texts of one request. OpenAI takes as many for embeddings.
pub(crate) const INPUTS_MAX: usize = 2048;

/// What was said in a field that this server refuses unless it says nothing.
#[derive(Debug, Clone, PartialEq, Default)]
pub(crate) enum Shape {
    /// Missing, null, false, or an empty text, list or object.
    #[default]
    Nothing,
    Number(f64),
    Text(String),
    Something,
}

/// Text, or a list of parts of a message.
#[derive(Debug, Default)]
pub(crate) enum Content<P = Part> {
    #[default]
    Missing,
    Text(String),
    Parts(Vec<P>),
}

/// One part of a message.
#[derive(Debug, Deserialize)]
pub(crate) struct Part {
    #[serde(rename = "type", default)]
    pub(crate) kind: String,
    pub(crate) text: Option<String>,
}

/// One text, or several.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Texts(pub(crate) Vec<String>);

impl<'de> Deserialize<'de> for Shape {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(ShapeVisitor)
    }
}

impl<'de, P: Deserialize<'de>> Deserialize<'de> for Content<P> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(ContentVisitor(PhantomData))
    }
}

impl<'de> Deserialize<'de> for Texts {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(TextsVisitor)
    }
}

struct ShapeVisitor;

impl<'de> Visitor<'de> for ShapeVisitor {
    type Value = Shape;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any value")
    }

    fn visit_unit<E: Error>(self) -> Result<Shape, E> {
        Ok(Shape::Nothing)
    }

    fn visit_bool<E: Error>(self, value: bool) -> Result<Shape, E> {
        Ok(if value {
            Shape::Something
        } else {
            Shape::Nothing
        })
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<Shape, E> {
        Ok(Shape::Number(value))
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<Shape, E> {
        Ok(Shape::Number(value as f64))
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<Shape, E> {
        Ok(Shape::Number(value as f64))
    }

    fn visit_str<E: Error>(self, value: &str) -> Result<Shape, E> {
        Ok(if value.is_empty() {
            Shape::Nothing
        } else {
            Shape::Text(value.to_owned())
        })
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Shape, A::Error> {
        let mut shape = Shape::Nothing;
        while items.next_element::<IgnoredAny>()?.is_some() {
            shape = Shape::Something;
        }
        Ok(shape)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Shape, A::Error> {
        let mut shape = Shape::Nothing;
        while entries.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {
            shape = Shape::Something;
        }
        Ok(shape)
    }
}

struct ContentVisitor<P>(PhantomData<P>);

impl<'de, P: Deserialize<'de>> Visitor<'de> for ContentVisitor<P> {
    type Value = Content<P>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a string or a list of parts like {\"type\": \"text\"}")
    }

    fn visit_unit<E: Error>(self) -> Result<Content<P>, E> {
        Ok(Content::Missing)
    }

    fn visit_str<E: Error>(self, value: &str) -> Result<Content<P>, E> {
        Ok(Content::Text(value.to_owned()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Content<P>, A::Error> {
        let mut parts = Vec::new();
        while let Some(part) = items.next_element()? {
            parts.push(part);
        }
        Ok(Content::Parts(parts))
    }
}

struct TextsVisitor;

impl<'de> Visitor<'de> for TextsVisitor {
    type Value = Texts;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a string or a list of strings")
    }

    fn visit_unit<E: Error>(self) -> Result<Texts, E> {
        Ok(Texts::default())
    }

    fn visit_str<E: Error>(self, value: &str) -> Result<Texts, E> {
        Ok(Texts(vec![value.to_owned()]))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Texts, A::Error> {
        let mut texts = Vec::new();
        while let Some(text) = items.next_element()? {
            texts.push(text);
        }
        Ok(Texts(texts))
    }
}

/// A text, a list of texts, a list of tokens, or a list of lists of tokens.
#[derive(Debug, Default, Deserialize)]
#[serde(from = "Option<InputsWire>")]
pub(crate) struct Inputs(Vec<Input>);

#[derive(Deserialize)]
#[serde(
    untagged,
    expecting = "a text, a list of texts, a list of tokens or a list of lists of tokens"
)]
enum InputsWire {
    Text(String),
    Texts(Vec<String>),
    Tokens(Vec<i32>),
    TokenLists(Vec<Vec<i32>>),
}

impl From<Option<InputsWire>> for Inputs {
    fn from(wire: Option<InputsWire>) -> Self {
        Self(match wire {
            None => Vec::new(),
            Some(InputsWire::Text(text)) => vec![Input::Text(text)],
            Some(InputsWire::Texts(texts)) => texts.into_iter().map(Input::Text).collect(),
            Some(InputsWire::Tokens(tokens)) if tokens.is_empty() => Vec::new(),
            Some(InputsWire::Tokens(tokens)) => vec![Input::Tokens(tokens)],
            Some(InputsWire::TokenLists(lists)) => lists.into_iter().map(Input::Tokens).collect(),
        })
    }
}

impl Inputs {
    /// At least one input, none of them an empty list of tokens.
    pub(crate) fn check(self, param: &str) -> Result<Vec<Input>, Fault> {
        let empty = |input: &Input| matches!(input, Input::Tokens(tokens) if tokens.is_empty());
        if self.0.is_empty() || self.0.iter().any(empty) {
            let message = format!("'{param}' needs a text, or tokens");
            return Err(Fault::missing(param, message));
        }
        if self.0.len() > INPUTS_MAX {
            let message = format!("'{param}' has more than {INPUTS_MAX} entries");
            return Err(Fault::invalid(param, message));
        }
        Ok(self.0)
    }
}

impl From<Input> for Prompt {
    fn from(input: Input) -> Self {
        match input {
            Input::Text(text) => Self::Text(text),
            Input::Tokens(tokens) => Self::Tokens(tokens),
        }
    }
}
