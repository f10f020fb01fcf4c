//! Calls that do not fit what is loaded are refused before anything is computed.

use super::{Engine, bad_call};
use proto::host::{EMBED_TEXTS_MAX, Failed, GUESSES_MAX, Output, Role, Run};
use proto::packet::{self, PAYLOAD_BYTES_MAX};

impl Engine {
    /// Checks a run's shape; returns its number of rows and its activations.
    pub(crate) fn check(&self, run: &Run, payload: &[u8]) -> Result<(usize, Vec<f32>), Failed> {
        self.steers.check(run.session)?;
        let values = packet::f32_from_bytes(payload)
            .ok_or_else(|| bad_call("the payload is not a number of f32 values"))?;
        if run.role != Role::Whole && !run.adapters.is_empty() {
            return Err(bad_call("adapters are used with whole models only"));
        }
        let takes_tokens = matches!(run.role, Role::Whole | Role::Head);
        let width = self.parts.model().embedding_length() as usize;
        let rows = if takes_tokens {
            run.tokens.len()
        } else {
            values.len() / width
        };
        if rows == 0 || takes_tokens != values.is_empty() || takes_tokens == run.tokens.is_empty() {
            return Err(bad_call(
                "a part takes either tokens or activations, and at least one row",
            ));
        }
        if !takes_tokens && values.len() % width != 0 {
            return Err(bad_call("the payload is not a number of whole rows"));
        }
        let model = self.parts.model();
        let mut tokens = run.tokens.iter().chain(&run.guesses);
        if let Some(token) = tokens.find(|token| !model.knows(**token)) {
            return Err(bad_call(&format!("token {token} is not in the vocabulary")));
        }
        let rows = self.check_guesses(run, rows)?;
        let gives_rows = matches!(run.role, Role::Head | Role::Middle);
        let row_bytes = self.parts.row_length(run.role)? * size_of::<f32>();
        let fits = match run.output {
            Output::Nothing => true,
            Output::Rows => gives_rows && rows * row_bytes <= PAYLOAD_BYTES_MAX,
            Output::Logits => !gives_rows && rows * row_bytes <= PAYLOAD_BYTES_MAX,
            Output::Token(draw) => !gives_rows && draw.burst > 0,
        };
        if fits {
            Ok((rows, values))
        } else {
            Err(bad_call("the output does not fit the part"))
        }
    }

    /// The rows of a run that are not of guesses. Guesses stand behind a single row.
    fn check_guesses(&self, run: &Run, rows: usize) -> Result<usize, Failed> {
        let guesses = run.guesses.len();
        if guesses == 0 {
            return Ok(rows);
        }
        let draws = run.role == Role::Tail && matches!(run.output, Output::Token(_));
        let most = GUESSES_MAX.min(self.parts.step_rows_max() as usize - 1);
        if !draws || rows != guesses + 1 || guesses > most {
            return Err(bad_call(&format!(
                "{guesses} guesses in a run of {rows} rows; a tail that draws a token takes one row, and up to {most} more of \
                 guesses"
            )));
        }
        if !self.parts.model().trims() {
            return Err(bad_call(
                "this model's cache cannot be cut back, so nothing can be guessed",
            ));
        }
        Ok(1)
    }

    /// Checks texts to be embedded.
    pub(crate) fn check_embed(&mut self, texts: &[Vec<i32>]) -> Result<(), Failed> {
        let most = self.parts.embedder(Role::Whole)?.tokens_max() as usize;
        if !(1..=EMBED_TEXTS_MAX).contains(&texts.len()) {
            let count = texts.len();
            return Err(bad_call(&format!(
                "{count} texts are to be embedded; 1 to {EMBED_TEXTS_MAX} can be at once"
            )));
        }
        if let Some(text) = texts.iter().find(|t| !(1..=most).contains(&t.len())) {
            let count = text.len();
            return Err(bad_call(&format!(
                "a text of {count} tokens is to be embedded; it can have 1 to {most}"
            )));
        }
        let model = self.parts.model();
        match texts.iter().flatten().find(|token| !model.knows(**token)) {
            Some(token) => Err(bad_call(&format!("token {token} is not in the vocabulary"))),
            None => Ok(()),
        }
    }
}
