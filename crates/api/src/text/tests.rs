use super::*;
use proptest::prelude::*;

/// What comes out after each piece, and at the end.
fn steps(stops: &[&str], pieces: &[&[u8]]) -> Vec<String> {
    let mut stream = TextStream::new(stops.iter().map(ToString::to_string).collect());
    let mut out: Vec<_> = pieces.iter().map(|piece| stream.push(piece).text).collect();
    out.push(stream.finish().text);
    out
}

#[track_caller]
fn check(stops: &[&str], pieces: &[&[u8]], expected: &[&str]) {
    assert_eq!(steps(stops, pieces), expected);
}

#[test]
fn characters_come_out_whole() {
    check(&[], &[b"a", b"b"], &["a", "b", ""]);
    check(&[], &[b"\xC3", b"\xA9!"], &["", "é!", ""]);
    check(
        &[],
        &[b"x\xF0\x9F", b"\x98", b"\x80y"],
        &["x", "", "😀y", ""],
    );
    check(&[], &[b"", b""], &["", "", ""]);
}

#[test]
fn invalid_bytes_become_one_mark_as_soon_as_they_are_hopeless() {
    check(&[], &[b"a\xFF", b"b"], &["a\u{FFFD}", "b", ""]);
    check(&[], &[b"\xC3", b"("], &["", "\u{FFFD}(", ""]);
    check(
        &[],
        &[b"\xF0\x9F", b"\xF0\x9F"],
        &["", "\u{FFFD}", "\u{FFFD}"],
    );
    check(&[], &[b"\xE2\x82"], &["", "\u{FFFD}"]);
    check(
        &[],
        &[b"\xED", b"\xA0\x80"],
        &["", "\u{FFFD}\u{FFFD}\u{FFFD}", ""],
    );
}

#[test]
fn a_stop_string_ends_the_text_and_is_not_part_of_it() {
    check(&["STOP"], &[b"go STOP on"], &["go ", ""]);
    check(
        &["STOP"],
        &[b"go S", b"TO", b"P on", b"more"],
        &["go ", "", "", "", ""],
    );
    check(&["\n\n"], &[b"a\n", b"\nb"], &["a", "", ""]);
    check(&["é"], &[b"caf\xC3", b"\xA9s"], &["caf", "", ""]);
    check(&["\u{FFFD}"], &[b"a\xE2\x82"], &["a", ""]);
}

#[test]
fn what_turns_out_not_to_be_a_stop_is_not_lost() {
    check(&["STOP"], &[b"ST", b"AY"], &["", "STAY", ""]);
    check(&["STOP"], &[b"ST"], &["", "ST"]);
    check(&["aab"], &[b"aaa", b"b"], &["a", "", ""]);
    check(
        &["aab"],
        &[b"a", b"a", b"a", b"c"],
        &["", "", "a", "aac", ""],
    );
}

#[test]
fn of_several_stops_the_first_complete_one_counts_and_then_the_longest() {
    check(&["abcd", "bc"], &[b"abcd"], &["a", ""]);
    check(&["bc", "abc"], &[b"xabc"], &["x", ""]);
    check(&["x", ""], &[b"ax"], &["a", ""]);
}

#[test]
fn after_a_stop_nothing_comes_and_it_stays_known() {
    let mut stream = TextStream::new(vec!["x".into()]);
    assert_eq!(stream.push(b"ax").stop.as_deref(), Some("x"));
    let nothing = Released {
        text: String::new(),
        stop: Some("x".into()),
    };
    assert_eq!(stream.push(b"b"), nothing);
    assert_eq!(stream.finish(), nothing);
    let mut late = TextStream::new(vec!["\u{FFFD}".into()]);
    assert!(late.push(b"\xC3").stop.is_none());
    assert!(late.finish().stop.is_some());
}

/// The same by looking at the whole.
fn naive(bytes: &[u8], stops: &[String]) -> (String, Option<String>) {
    let text = String::from_utf8_lossy(bytes).into_owned();
    for (at, char) in text.char_indices() {
        let end = at + char.len_utf8();
        let longest = stops
            .iter()
            .filter(|stop| !stop.is_empty() && text[..end].ends_with(stop.as_str()))
            .max_by_key(|stop| stop.len());
        if let Some(stop) = longest {
            return (text[..end - stop.len()].to_owned(), Some(stop.clone()));
        }
    }
    (text, None)
}

fn few_letters() -> impl Strategy<Value = String> {
    proptest::collection::vec(prop_oneof!["a", "b", "é", "😀"], 0..5).prop_map(|v| v.concat())
}

fn mostly_text() -> impl Strategy<Value = Vec<u8>> {
    let letter = prop_oneof![
        6 => few_letters().prop_map(String::into_bytes),
        1 => proptest::collection::vec(any::<u8>(), 1..3),
        1 => Just(b"\xF0\x9F".to_vec()),
    ];
    proptest::collection::vec(letter, 0..12).prop_map(|v| v.concat())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 4000, failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn the_split_into_tokens_does_not_matter(
        bytes in mostly_text(),
        cuts in proptest::collection::vec(any::<prop::sample::Index>(), 0..8),
        stops in proptest::collection::vec(few_letters(), 0..3),
    ) {
        let mut cuts: Vec<_> = cuts.iter().map(|cut| cut.index(bytes.len() + 1)).collect();
        cuts.extend([0, bytes.len()]);
        cuts.sort_unstable();
        let mut stream = TextStream::new(stops.clone());
        let mut text = String::new();
        for pair in cuts.windows(2) {
            text += &stream.push(&bytes[pair[0]..pair[1]]).text;
        }
        let end = stream.finish();
        text += &end.text;
        prop_assert_eq!((text, end.stop), naive(&bytes, &stops));
    }
}
