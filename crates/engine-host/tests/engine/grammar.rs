//! Grammars in llama.cpp's notation, on the starter's vocabulary.

use engine_host::chat::GbnfGrammar;
use engine_host::llama::{Model, Reading};
use proto::host::Gbnf;
use std::sync::Arc;

fn model() -> Arc<Model> {
    let file = specimen::starter().display().to_string();
    Arc::new(Model::load(&[file], Reading::Mapped).unwrap())
}

fn gbnf(rules: &str) -> Gbnf {
    Gbnf {
        rules: rules.to_owned(),
        ..Gbnf::default()
    }
}

fn tokens(model: &Model, text: &str) -> Vec<i32> {
    model.tokenize(text, false, true).unwrap()
}

fn end(model: &Model) -> i32 {
    let vocabulary = model.vocabulary() as i32;
    (0..vocabulary).find(|token| model.ends(*token)).unwrap()
}

/// Accepts a text token by token; whether all of it fits.
fn fits(grammar: &mut GbnfGrammar, model: &Model, text: &str) -> bool {
    tokens(model, text)
        .into_iter()
        .all(|token| grammar.allows(token) && grammar.accept(token).is_ok())
}

#[test]
fn a_grammar_allows_what_it_says_and_nothing_else() {
    let model = model();
    let answer = gbnf("root ::= (\"yes\" | \"no\") \".\"");
    for (text, expected) in [("yes.", true), ("no.", true), ("yes no.", false)] {
        let mut grammar = GbnfGrammar::new(&model, &answer).unwrap();
        assert_eq!(fits(&mut grammar, &model, text), expected, "{text}");
    }
    let mut grammar = GbnfGrammar::new(&model, &answer).unwrap();
    assert!(!grammar.allows(end(&model)) && !grammar.allows(-1) && !grammar.allows(i32::MAX));
    // The mask says the same as single questions.
    let mut logits = vec![1.0; model.vocabulary() as usize];
    grammar.mask(&mut logits).unwrap();
    let allowed: Vec<i32> = (0..)
        .zip(&logits)
        .filter(|(_, l)| **l == 1.0)
        .map(|(t, _)| t)
        .collect();
    assert!(!allowed.is_empty() && allowed.iter().all(|token| grammar.allows(*token)));
    let beginnings = ["y", "ye", "yes", "n", "no", "yes.", "no."];
    for token in allowed {
        let piece = String::from_utf8(model.piece(token)).unwrap();
        assert!(beginnings.contains(&piece.as_str()), "{piece:?}");
    }
    assert!(grammar.mask(&mut [1.0]).is_err());
    // A copy goes its own way.
    assert!(fits(&mut grammar, &model, "yes"));
    let mut copy = grammar.try_clone().unwrap();
    assert!(fits(&mut copy, &model, "."));
    assert!(copy.allows(end(&model)) && !grammar.allows(end(&model)));
    copy.accept(end(&model)).unwrap();
}

#[test]
fn what_does_not_fit_is_an_error_and_never_an_abort() {
    let model = model();
    let mut grammar = GbnfGrammar::new(&model, &gbnf("root ::= \"yes\"")).unwrap();
    assert!(grammar.accept(end(&model)).is_err());
    assert!(
        grammar.accept(tokens(&model, "yes")[0]).is_err(),
        "it was left"
    );
    let mut logits = vec![1.0; model.vocabulary() as usize];
    grammar.mask(&mut logits).unwrap();
    assert!(logits.iter().all(|logit| *logit == f32::NEG_INFINITY));
    let mut grammar = GbnfGrammar::new(&model, &gbnf("root ::= \"yes\"")).unwrap();
    assert!(grammar.accept(tokens(&model, "no")[0]).is_err());
    assert!(!grammar.allows(tokens(&model, "yes")[0]));
}

#[test]
fn bad_grammars_are_named() {
    let model = model();
    let deep = format!(
        "root ::= {}\"a\"{}",
        "(".repeat(100_000),
        ")".repeat(100_000)
    );
    let many: String = (0..20_000)
        .map(|i| format!("r{i} ::= r{}\n", i + 1))
        .collect();
    for (rules, cause) in [
        ("", "cannot be read"),
        ("other ::= \"a\"", "no rule"),
        ("root ::= missing", "cannot be read"),
        ("root ::= root \"a\"", "left recursion"),
        ("root ::= \"a\"{100000,}", "cannot be read"),
        ("root ::= \"\0\"", "zero byte"),
        (&deep, "nested"),
        (&many, "more than 10000 rules"),
    ] {
        let why = GbnfGrammar::new(&model, &gbnf(rules)).expect_err(cause);
        assert!(why.contains(cause), "{why}");
    }
    for (trigger, cause) in [("(", "no regular expression"), ("", "empty")] {
        let bad = Gbnf {
            triggers: vec![trigger.to_owned()],
            ..gbnf("root ::= \"a\"")
        };
        let why = GbnfGrammar::new(&model, &bad).unwrap_err();
        assert!(why.contains(cause), "{why}");
    }
    let bad = Gbnf {
        trigger_tokens: vec![-1],
        ..gbnf("root ::= \"a\"")
    };
    assert!(
        GbnfGrammar::new(&model, &bad)
            .unwrap_err()
            .contains("token -1")
    );
}

#[test]
fn a_trigger_binds_from_its_capture_on() {
    let model = model();
    let call = Gbnf {
        triggers: vec!["(<call>)".to_owned()],
        thinking_start: "<think>".to_owned(),
        thinking_ends: vec!["</think>".to_owned()],
        ..gbnf("root ::= \"<call>\" [0-9]+ \"</call>\"")
    };
    // (what is written, whether it is still free then, what may follow, what may not)
    let free = "word ".repeat(3_000);
    for (text, waits, next, not) in [
        ("Let me see. ", true, "anything", None),
        (&*free, true, "anything", None),
        ("Let me see. <call>", false, "12", Some("no")),
        (&*format!("{free}<call>"), false, "12", Some("no")),
        ("<think>A <call> may help", true, "anything", None),
        ("<think>A <call></think><call>", false, "1", Some("no")),
    ] {
        let mut grammar = GbnfGrammar::new(&model, &call).unwrap();
        assert!(fits(&mut grammar, &model, text), "{text}");
        assert_eq!(grammar.waits(), waits, "{text}");
        let not = not.map(|not| tokens(&model, not)[0]);
        assert!(not.is_none_or(|not| !grammar.allows(not)), "{text}");
        assert!(fits(&mut grammar, &model, next), "{text}");
    }
    // A prompt that ends in reasoning counts as well.
    let open = Gbnf {
        prefix: "<|im_start|>assistant\n<think>\n".to_owned(),
        ..call.clone()
    };
    let mut grammar = GbnfGrammar::new(&model, &open).unwrap();
    assert!(fits(&mut grammar, &model, "A <call>x") && grammar.waits());
    assert!(fits(&mut grammar, &model, "</think><call>") && !grammar.waits());
    // A token can be the trigger.
    let token = Gbnf {
        triggers: Vec::new(),
        trigger_tokens: tokens(&model, "<|im_start|>"),
        ..gbnf("root ::= \"<|im_start|>\" \"a\"")
    };
    let mut grammar = GbnfGrammar::new(&model, &token).unwrap();
    assert!(fits(&mut grammar, &model, "x<|im_start|>") && !grammar.waits());
    assert!(!grammar.allows(tokens(&model, "b")[0]) && grammar.allows(tokens(&model, "a")[0]));
}

#[test]
fn what_the_prompt_has_already_is_read_first() {
    let model = model();
    let rules = gbnf("root ::= \"<|im_start|>assistant\\n\" \"yes\"");
    let behind = Gbnf {
        prefix: "<|im_start|>assistant\n".to_owned(),
        ..rules.clone()
    };
    let yes = tokens(&model, "yes")[0];
    assert!(GbnfGrammar::new(&model, &behind).unwrap().allows(yes));
    assert!(!GbnfGrammar::new(&model, &rules).unwrap().allows(yes));
    let other = Gbnf {
        prefix: "other".to_owned(),
        ..rules
    };
    assert!(GbnfGrammar::new(&model, &other).is_err());
}
