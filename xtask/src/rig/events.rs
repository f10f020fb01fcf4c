//! Server-sent events (HTML standard, section 9.2.6), as far as the OpenAI dialect uses them.

/// What came out of a stream of bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Event {
    /// The data of an event, most often a JSON object.
    Data(String),
    /// `[DONE]`: nothing follows.
    Done,
}

/// Turns bytes, cut anywhere, into events.
#[derive(Debug, Default)]
pub(crate) struct Events {
    /// The beginning of a line that is not complete.
    line: Vec<u8>,
    /// The data lines of an event that is not complete.
    data: Option<String>,
}

impl Events {
    /// The events that `bytes` completes. Comments and other fields than `data` are skipped.
    pub(crate) fn feed(&mut self, bytes: &[u8]) -> Vec<Event> {
        let mut events = Vec::new();
        for byte in bytes {
            if *byte != b'\n' {
                self.line.push(*byte);
                continue;
            }
            let line = std::mem::take(&mut self.line);
            let line = String::from_utf8_lossy(&line);
            events.extend(self.take(line.trim_end_matches('\r')));
        }
        events
    }

    fn take(&mut self, line: &str) -> Option<Event> {
        if line.is_empty() {
            let data = self.data.take()?;
            return Some(if data == "[DONE]" {
                Event::Done
            } else {
                Event::Data(data)
            });
        }
        let value = line.strip_prefix("data:")?;
        let value = value.strip_prefix(' ').unwrap_or(value);
        match &mut self.data {
            Some(data) => {
                data.push('\n');
                data.push_str(value);
            }
            None => self.data = Some(value.to_owned()),
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, expected: &[&str]) {
        let plain = |event: Event| match event {
            Event::Data(data) => data,
            Event::Done => "(done)".to_owned(),
        };
        for piece in [1, 2, 7, text.len().max(1)] {
            let mut events = Events::default();
            let got: Vec<String> = text
                .as_bytes()
                .chunks(piece)
                .flat_map(|b| events.feed(b))
                .map(plain)
                .collect();
            assert_eq!(got, expected, "in pieces of {piece}");
        }
    }

    #[test]
    fn events_end_at_an_empty_line_however_the_bytes_are_cut() {
        check("", &[]);
        check("data: {}\n\n", &["{}"]);
        check(
            "data: {\"a\":\"é\"}\r\n\r\ndata:x\n\n",
            &["{\"a\":\"é\"}", "x"],
        );
        check("data: a\ndata: b\n\n", &["a\nb"]);
        check("data: a\n\ndata: [DONE]\n\n", &["a", "(done)"]);
    }

    #[test]
    fn comments_other_fields_and_unfinished_events_are_skipped() {
        check(": keep-alive\n\nevent: x\nid: 7\ndata: a\n\n", &["a"]);
        check("data: a", &[]);
        check("data: a\n", &[]);
    }
}
