//! What the tests of a run have shown.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use quick_xml::Reader;
use quick_xml::events::{BytesStart, Event};

/// How a test ended, by binary and test as nextest names them.
#[derive(Debug, Default)]
pub(super) struct Results {
    tests: BTreeMap<(String, String), bool>,
}

/// What is known of the tests that a row names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Outcome {
    /// So many ran, and all passed.
    Passed(usize),
    /// One of them failed.
    Failed,
    /// None of that name ran.
    Missing,
}

impl Results {
    /// Reads a JUnit file.
    ///
    /// # Errors
    ///
    /// When it is not there, is none, or names no test.
    pub(super) fn read(path: &Path) -> Result<Self> {
        let text = std::fs::read_to_string(path).with_context(|| {
            format!(
                "cannot read {}; run all tests first: cargo nextest run --release --workspace",
                path.display()
            )
        })?;
        let results = Self::parse(&text).with_context(|| path.display().to_string())?;
        ensure!(
            !results.tests.is_empty(),
            "{} names no test",
            path.display()
        );
        Ok(results)
    }

    /// `<testsuite name="net::net"><testcase name="links::…">`, with `<failure>` or `<error>` inside where it failed.
    fn parse(text: &str) -> Result<Self> {
        let mut reader = Reader::from_str(text);
        let (mut results, mut suite, mut test) = (Self::default(), String::new(), None);
        loop {
            let event = reader.read_event()?;
            match &event {
                Event::Eof => return Ok(results),
                Event::Start(tag) | Event::Empty(tag) => match tag.name().as_ref() {
                    "testsuite" => suite = name(tag)?,
                    "testcase" => {
                        let key = (suite.clone(), name(tag)?);
                        results.tests.insert(key.clone(), true);
                        test = matches!(event, Event::Start(_)).then_some(key);
                    }
                    "failure" | "error" | "skipped" => {
                        if let Some(key) = &test {
                            results.tests.insert(key.clone(), false);
                        }
                    }
                    _ => {}
                },
                Event::End(tag) if tag.name().as_ref() == "testcase" => test = None,
                _ => {}
            }
        }
    }

    /// How the tests ended that `wanted` names: `binary test`, or `binary module::*`.
    pub(super) fn of(&self, wanted: &str) -> Outcome {
        let (binary, test) = wanted.split_once(' ').unwrap_or((wanted, ""));
        let is_wanted = |name: &str| match test.strip_suffix('*') {
            Some(module) => name.starts_with(module),
            None => name == test,
        };
        let ended: Vec<bool> = self
            .tests
            .iter()
            .filter(|((suite, name), _)| suite == binary && is_wanted(name))
            .map(|(_, passed)| *passed)
            .collect();
        match ended.len() {
            0 => Outcome::Missing,
            count if ended.iter().all(|passed| *passed) => Outcome::Passed(count),
            _ => Outcome::Failed,
        }
    }
}

fn name(tag: &BytesStart<'_>) -> Result<String> {
    let name = tag
        .try_get_attribute("name")?
        .context("a test or suite without a name")?;
    Ok(name
        .normalized_value(quick_xml::XmlVersion::Implicit1_0)?
        .into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    const JUNIT: &str = r#"<?xml version="1.0" encoding="UTF-8"?>
<testsuites name="nextest-run" tests="4" failures="1" errors="0">
    <testsuite name="net::net" tests="3" disabled="0" errors="0" failures="1">
        <testcase name="links::a" classname="net::net" time="0.1"/>
        <testcase name="links::b" classname="net::net" time="0.1">
            <failure message="m" type="test failure">text</failure>
            <system-out>x</system-out>
        </testcase>
        <testcase name="ways::c" classname="net::net" time="0.1">
        </testcase>
    </testsuite>
    <testsuite name="node::e2e" tests="1" disabled="0" errors="0" failures="0">
        <testcase name="links::b" classname="node::e2e" time="0.1"/>
    </testsuite>
</testsuites>"#;

    #[track_caller]
    fn check(wanted: &str, outcome: Outcome) {
        let results = Results::parse(JUNIT).unwrap();
        assert_eq!(results.of(wanted), outcome, "{wanted}");
    }

    #[test]
    fn a_test_is_found_by_binary_and_name() {
        check("net::net links::a", Outcome::Passed(1));
        check("net::net links::b", Outcome::Failed);
        check("node::e2e links::b", Outcome::Passed(1));
        check("net::net ways::*", Outcome::Passed(1));
        check("net::net links::*", Outcome::Failed);
        check("net::net links", Outcome::Missing);
        check("net::net gone::*", Outcome::Missing);
        check("other links::a", Outcome::Missing);
    }

    #[test]
    fn what_is_no_xml_is_an_error() {
        assert!(Results::parse("<testsuites><a></b>").is_err());
    }
}
