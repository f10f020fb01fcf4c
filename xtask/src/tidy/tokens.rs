//! Facts from the arguments of macros, which `syn` keeps as bare tokens.
//!
//! Coarser than the parser, but it sees what hides in `format!`, `assert!` or `tokio::select!`: paths of
//! two segments or more, method calls, macro calls, the word `unsafe`, and functions of `proptest!`.

use proc_macro2::{Delimiter, Span, TokenStream, TokenTree};

use super::scan::Fact;

/// All facts in `stream`, in order of their appearance.
pub(crate) fn facts(stream: TokenStream) -> Vec<(Span, Fact)> {
    let tokens: Vec<TokenTree> = stream.into_iter().collect();
    let mut facts = Vec::new();
    let mut at = 0;
    while at < tokens.len() {
        at += match &tokens[at] {
            TokenTree::Group(group) => {
                facts.extend(self::facts(group.stream()));
                1
            }
            TokenTree::Ident(_) => word(&tokens[at..], &mut facts),
            TokenTree::Punct(dot) if dot.as_char() == '.' => {
                facts.extend(method(&tokens[at..]));
                1
            }
            _ => 1,
        };
    }
    facts
}

/// Reads what begins with an identifier and returns how many tokens it took.
fn word(tokens: &[TokenTree], facts: &mut Vec<(Span, Fact)>) -> usize {
    let span = tokens[0].span();
    match tokens[0].to_string().as_str() {
        "unsafe" => facts.push((span, Fact::Unsafe("unsafe code in a macro"))),
        "fn" => facts.extend(function(tokens)),
        _ => return path(tokens, facts),
    }
    1
}

/// `a::b::c`, and `a::b!` as a macro.
fn path(tokens: &[TokenTree], facts: &mut Vec<(Span, Fact)>) -> usize {
    let span = tokens[0].span();
    let mut segments = vec![tokens[0].to_string()];
    let mut taken = 1;
    while let [colon, other, TokenTree::Ident(next), ..] = &tokens[taken..]
        && is_punct(colon, ':')
        && is_punct(other, ':')
    {
        segments.push(next.to_string());
        taken += 3;
    }
    let calls_macro =
        matches!(&tokens[taken..], [bang, TokenTree::Group(_), ..] if is_punct(bang, '!'));
    if calls_macro {
        facts.push((span, Fact::Macro(segments[segments.len() - 1].clone())));
    }
    if segments.len() > 1 {
        facts.push((span, Fact::Path(segments.join("::"))));
    }
    taken
}

/// `.name(…)`.
fn method(tokens: &[TokenTree]) -> Option<(Span, Fact)> {
    let [_, TokenTree::Ident(name), TokenTree::Group(arguments), ..] = tokens else {
        return None;
    };
    let is_call = arguments.delimiter() == Delimiter::Parenthesis;
    is_call.then(|| (name.span(), Fact::Method(name.to_string())))
}

/// `fn name … { … }`.
fn function(tokens: &[TokenTree]) -> Option<(Span, Fact)> {
    let [start, TokenTree::Ident(name), rest @ ..] = tokens else {
        return None;
    };
    let body = rest
        .iter()
        .take_while(|token| !is_punct(token, ';'))
        .find_map(|token| match token {
            TokenTree::Group(group) if group.delimiter() == Delimiter::Brace => Some(group),
            _ => None,
        })?;
    let lines = body.span_close().end().line + 1 - start.span().start().line;
    Some((
        start.span(),
        Fact::Function {
            name: name.to_string(),
            lines,
        },
    ))
}

fn is_punct(token: &TokenTree, expected: char) -> bool {
    matches!(token, TokenTree::Punct(punct) if punct.as_char() == expected)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, expected: &[Fact]) {
        let found: Vec<Fact> = facts(text.parse().unwrap())
            .into_iter()
            .map(|(_, fact)| fact)
            .collect();
        assert_eq!(found, expected, "{text}");
    }

    #[test]
    fn tokens_give_paths_methods_macros_and_functions() {
        let path = |text: &str| Fact::Path(text.into());
        let method = |text: &str| Fact::Method(text.into());
        check("std::fs::read(x)", &[path("std::fs::read")]);
        check("plain", &[]);
        check("a.unwrap()", &[method("unwrap")]);
        check("a.field", &[]);
        check("{ deep(b.c(d::e)) }", &[method("c"), path("d::e")]);
        check("dbg!(x)", &[Fact::Macro("dbg".into())]);
        check("a != (b)", &[]);
        check("unsafe { x }", &[Fact::Unsafe("unsafe code in a macro")]);
        check(
            "fn f(a in 0..3) {\n\n}",
            &[Fact::Function {
                name: "f".into(),
                lines: 3,
            }],
        );
        check("fn f(a: u8); { }", &[]);
    }
}
