//! Texts in sealed hosts: templates, replies and tokens, and what happens to a template that never ends.

use crate::Test;
use crate::hosts::{spec, start, with_ward};
use crate::models::with_template;
use engine::{EngineError, State, Supervisor};
use proto::host::{FailCode, LoadSpec, Output, ReadReply, Role, Run};
use proto::ids::SessionId;
use serde_json::{Value, json};

pub(crate) const TESTS: &[Test] = &[
    ("a_sealed_host_works_with_texts", works),
    ("texts_do_not_wait_for_a_long_step", beside_a_step),
    (
        "a_template_that_goes_too_far_ends_the_process_and_not_the_node",
        too_far,
    ),
];

/// Tells the year, knows tools, and goes too far when it is asked to.
const TEMPLATE: &str = concat!(
    "{{ strftime_now('%Y') }}{%- set many = 100000 %}{%- set ns = namespace(x='aaaaaaaa') %}",
    "{%- for message in messages %}",
    "{%- if message.content == 'loop' %}{%- for a in range(many) %}{%- for b in range(many) %}",
    "{%- set ns.x = 'a' %}{%- endfor %}{%- endfor %}{%- endif %}",
    "{%- if message.content == 'grow' %}{%- for a in range(60) %}{%- set ns.x = ns.x ~ ns.x %}{%- endfor %}{%- endif %}",
    "{{ '[' + message.role + ']' + message.content }}{%- endfor %}[assistant]",
);

fn said(text: &str) -> String {
    json!({"messages": [{"role": "user", "content": text}]}).to_string()
}

fn works() {
    with_ward(|dir, ward| async move {
        let supervisor = start(spec(&[with_template(&dir, TEMPLATE)]), &ward);
        let host = supervisor.ready().await.unwrap();
        let prompt = host.render(said("x")).await.unwrap();
        let year = prompt.text.strip_suffix("[user]x[assistant]").unwrap();
        assert!(year.parse::<u32>().is_ok_and(|year| year > 2_000), "{year}");
        assert_eq!(prompt.syntax, None);
        let pieces = host.detokenize(prompt.tokens).await.unwrap();
        assert_eq!(
            String::from_utf8(pieces.concat()).unwrap().trim_start(),
            prompt.text
        );
        let error = host.detokenize(vec![-1]).await.unwrap_err();
        assert!(error.to_string().contains("token -1"), "{error}");

        let mut request: Value = serde_json::from_str(&said("x")).unwrap();
        request["tools"] = json!([{"type": "function", "function": {"name": "f"}}]);
        let prompt = host.render(request.to_string()).await.unwrap();
        let reply = ReadReply {
            syntax: prompt.syntax.unwrap(),
            text: r#"{"tool_calls":[{"name":"f","arguments":{}}]}"#.to_owned(),
            partial: false,
        };
        let message = host.read(reply.clone()).await.unwrap();
        assert!(message.contains(r#""name":"f""#), "{message}");
        let syntax = "rubbish".to_owned();
        let error = host.read(ReadReply { syntax, ..reply }).await.unwrap_err();
        assert!(
            matches!(&error, EngineError::Failed(f) if f.code == FailCode::BadCall),
            "{error}"
        );
        request["messages"][0]["role"] = json!("robot");
        let error = host.render(request.to_string()).await.unwrap_err();
        assert!(
            matches!(&error, EngineError::Failed(f) if f.code == FailCode::BadCall),
            "{error}"
        );
    });
}

/// The whole step is one call of llama.cpp; its answer can only come when all of it is computed.
fn beside_a_step() {
    const ROWS: u32 = 1_500;
    with_ward(|_, ward| async move {
        let spec = LoadSpec {
            positions_max: 2_048,
            step_rows_max: ROWS,
            ..spec(&[specimen::starter()])
        };
        let supervisor = start(spec, &ward);
        let host = supervisor.ready().await.unwrap();
        let words = host.render(said("x")).await.unwrap();
        let run = Run {
            session: SessionId([1; 16]),
            role: Role::Whole,
            position: 0,
            tokens: vec![words.tokens[0]; ROWS as usize],
            output: Output::Nothing,
            scope: None,
            adapters: Vec::new(),
            guesses: Vec::new(),
        };
        let mut answers = host.run(run, &[]).unwrap();
        tokio::select! {
            biased;
            _ = answers.next() => panic!("the step was over first"),
            rendered = host.render(said("y")) => assert!(rendered.unwrap().text.contains('y')),
        }
        assert!(answers.next().await.unwrap().is_ok());
    });
}

async fn until_up(supervisor: &Supervisor) {
    let mut state = supervisor.watch();
    drop(
        state
            .wait_for(|state| matches!(state, State::Up(_)))
            .await
            .unwrap(),
    );
}

fn too_far() {
    with_ward(|dir, ward| async move {
        let supervisor = start(spec(&[with_template(&dir, TEMPLATE)]), &ward);
        for (what, cause) in [
            ("loop", "takes longer than 10 s"),
            ("grow", "needs more than 1 GiB"),
            ("grow", "needs more than 1 GiB"),
            ("grow", "needs more than 1 GiB"),
        ] {
            until_up(&supervisor).await;
            let host = supervisor.host().unwrap();
            assert!(host.render(said("x")).await.is_ok());
            let error = host.render(said(what)).await.unwrap_err();
            assert!(error.to_string().contains(cause), "{what}: {error}");
            let mut state = supervisor.watch();
            let gone = |state: &State| !matches!(state, State::Up(_));
            drop(state.wait_for(gone).await.unwrap());
        }
        until_up(&supervisor).await;
        assert!(supervisor.host().unwrap().render(said("x")).await.is_ok());
        assert_eq!(
            ward.quarantined(),
            [],
            "a caller's text is not the model's fault"
        );
    });
}
