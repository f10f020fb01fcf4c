//! Token bytes to text.
//!
//! A token's bytes may end within a character, and a stop string may begin in one token and end in another. So
//! [`TextStream`] holds back two things: bytes that may still become a character, and text that may still become a stop
//! string. What comes out does not depend on how the bytes were split into tokens: it equals
//! [`String::from_utf8_lossy`] of them all, cut before the stop string that is complete first (of several that end at
//! the same place, before the longest).

/// Turns the tokens of one answer into text.
#[derive(Debug)]
pub struct TextStream {
    stops: Vec<String>,
    /// An incomplete character at the end of what came: at most 3 bytes.
    partial: Vec<u8>,
    /// Text that may be the beginning of a stop string.
    held: String,
    /// The stop string that came.
    stop: Option<String>,
}

/// What a token added.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Released {
    /// Text that is certain now; often empty.
    pub text: String,
    /// The stop string that came. It and what follows is no part of the text, and further tokens add nothing.
    pub stop: Option<String>,
}

impl TextStream {
    /// Begins an answer that ends before the first of `stops`. Empty stop strings are ignored.
    #[must_use]
    pub fn new(mut stops: Vec<String>) -> Self {
        stops.retain(|stop| !stop.is_empty());
        Self {
            stops,
            partial: Vec::new(),
            held: String::new(),
            stop: None,
        }
    }

    /// Adds a token's bytes.
    pub fn push(&mut self, piece: &[u8]) -> Released {
        if self.stop.is_some() {
            return Released {
                text: String::new(),
                stop: self.stop.clone(),
            };
        }
        self.partial.extend_from_slice(piece);
        let searched = self.held.len();
        self.decode();
        if let Some((begin, stop)) = self.find_stop(searched) {
            self.stop = Some(stop);
            self.partial.clear();
            self.held.truncate(begin);
            return Released {
                text: std::mem::take(&mut self.held),
                stop: self.stop.clone(),
            };
        }
        let kept = self
            .held
            .split_off(self.held.len() - self.stop_prefix_bytes());
        Released {
            text: std::mem::replace(&mut self.held, kept),
            stop: None,
        }
    }

    /// Ends the answer: what was held back. An incomplete character becomes U+FFFD.
    #[must_use]
    pub fn finish(mut self) -> Released {
        if self.stop.is_some() {
            return Released {
                text: String::new(),
                stop: self.stop.clone(),
            };
        }
        let searched = self.held.len();
        self.held.push_str(&String::from_utf8_lossy(&self.partial));
        let (begin, stop) = self.find_stop(searched).unzip();
        self.held.truncate(begin.unwrap_or(self.held.len()));
        Released {
            text: self.held,
            stop,
        }
    }

    /// Moves all that can be decided from `partial` to `held`.
    fn decode(&mut self) {
        let mut undecided = 0;
        let mut chunks = self.partial.utf8_chunks().peekable();
        while let Some(chunk) = chunks.next() {
            self.held.push_str(chunk.valid());
            let last = chunks.peek().is_none();
            if last && may_be_completed(chunk.invalid()) {
                undecided = chunk.invalid().len();
            } else if !chunk.invalid().is_empty() {
                self.held.push(char::REPLACEMENT_CHARACTER);
            }
        }
        self.partial.drain(..self.partial.len() - undecided);
    }

    /// The stop string that is complete first, and where it begins. Up to `searched` there is none.
    fn find_stop(&self, searched: usize) -> Option<(usize, String)> {
        let first_end = |(nth, stop): (usize, &String)| {
            // A stop that ends after `searched` begins at most its own length before it.
            let mut from = (searched + 1).saturating_sub(stop.len());
            while !self.held.is_char_boundary(from) {
                from -= 1;
            }
            let begin = from + self.held[from..].find(stop.as_str())?;
            Some((begin + stop.len(), begin, nth))
        };
        let ends = self.stops.iter().enumerate().filter_map(first_end);
        ends.min()
            .map(|(_, begin, nth)| (begin, self.stops[nth].clone()))
    }

    /// The length of the longest end of `held` with which a stop string begins.
    fn stop_prefix_bytes(&self) -> usize {
        let held = self.held.as_bytes();
        let longest = |stop: &String| {
            let most = held.len().min(stop.len() - 1);
            (1..=most)
                .rev()
                .find(|&n| held.ends_with(&stop.as_bytes()[..n]))
        };
        self.stops.iter().filter_map(longest).max().unwrap_or(0)
    }
}

/// Whether bytes that are not a character yet can become one when more bytes follow.
fn may_be_completed(bytes: &[u8]) -> bool {
    std::str::from_utf8(bytes).is_err_and(|error| error.error_len().is_none())
}

#[cfg(test)]
mod tests;
