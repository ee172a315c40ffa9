//! Of every chunking and any bytes, and of lines as they were recorded.

use proptest::prelude::*;
use serde_json::json;

use super::*;

/// A turn as it was recorded, the ids apart.
const RECORDED: &str = concat!(
    r#"{"type":"system","subtype":"init","cwd":"/home/user/ws","session_id":"s-1","tools":[],"model":"m"}"#,
    "\n",
    r#"{"type":"user","message":{"role":"user","content":"one"},"session_id":"s-1","isReplay":true}"#,
    "\n",
    r#"{"type":"stream_event","event":{"type":"message_start","message":{"id":"m1"}},"session_id":"s-1"}"#,
    "\n",
    r#"{"type":"stream_event","event":{"type":"content_block_delta","index":0,"delta":{"type":"text_delta","text":"hello "}},"session_id":"s-1"}"#,
    "\n",
    r#"{"type":"stream_event","event":{"type":"content_block_delta","index":0,"delta":{"type":"text_delta","text":"türn 1"}},"session_id":"s-1"}"#,
    "\n",
    r#"{"type":"assistant","message":{"content":[{"type":"text","text":"hello türn 1"}],"usage":{"input_tokens":3}},"session_id":"s-1"}"#,
    "\n",
    r#"{"type":"result","subtype":"success","is_error":false,"num_turns":1,"result":"hello türn 1","session_id":"s-1","usage":{"input_tokens":3,"output_tokens":4,"cache_read_input_tokens":5,"cache_creation_input_tokens":6}}"#,
    "\r\n",
);

/// What is heard of these bytes, read in pieces that end at `cuts`.
fn heard(bytes: &[u8], cuts: &[usize]) -> (Vec<Heard>, Answer) {
    let mut answer = Answer::default();
    let mut all = Vec::new();
    let mut lines = Lines::resumed(1 << 20, Vec::new());
    let mut begin = 0;
    for end in cuts.iter().copied().chain([bytes.len()]) {
        let end = end.clamp(begin, bytes.len());
        lines.push(&bytes[begin..end]);
        begin = end;
        while let Some(line) = lines.next() {
            all.push(answer.hear(line.unwrap()));
        }
    }
    all.retain(|heard| *heard != Heard::Nothing);
    (all, answer)
}

#[test]
fn a_recorded_turn_is_its_deltas_and_ends_at_its_result() {
    let (all, answer) = heard(RECORDED.as_bytes(), &[]);
    let text = |text: &str| Heard::Text(text.to_owned());
    assert_eq!(all, [text("hello "), text("türn 1"), Heard::End(String::new())]);
    assert_eq!(answer.session_id(), Some("s-1"));
    let usage = Usage { input: 3, output: 4, cache_read: 5, cache_write: 6 };
    assert_eq!(answer.usage(), Some(usage));
}

#[test]
fn it_may_be_cut_at_any_byte() {
    let whole = heard(RECORDED.as_bytes(), &[]).0;
    for cut in 0..=RECORDED.len() {
        assert_eq!(heard(RECORDED.as_bytes(), &[cut]).0, whole, "cut at {cut}");
    }
}

#[test]
fn what_is_not_streamed_is_said_at_the_end() {
    let (all, _) = heard(b"{\"type\":\"result\",\"result\":\"all of it\"}\n", &[]);
    assert_eq!(all, [Heard::End("all of it".to_owned())]);
}

#[test]
fn a_result_that_is_an_error_is_a_refusal() {
    let line = br#"{"type":"result","subtype":"success","is_error":true,"result":"Credit balance is too low"}"#;
    let refused = Answer::default().hear(line);
    assert_eq!(refused, Heard::Refused("Credit balance is too low".to_owned()));
}

#[test]
fn messages_of_one_turn_are_set_apart() {
    let start = br#"{"type":"stream_event","event":{"type":"message_start"}}"#;
    let delta = |text: &str| {
        let delta = json!({"type": "text_delta", "text": text});
        let event = json!({"type": "content_block_delta", "delta": delta});
        json!({"type": "stream_event", "event": event}).to_string().into_bytes()
    };
    let mut answer = Answer::default();
    assert_eq!(answer.hear(start), Heard::Nothing);
    assert_eq!(answer.hear(&delta("a")), Heard::Text("a".to_owned()));
    assert_eq!(answer.hear(start), Heard::Nothing);
    assert_eq!(answer.hear(&delta("b")), Heard::Text("\n\nb".to_owned()));
    assert_eq!(answer.hear(&delta("c")), Heard::Text("c".to_owned()));
}

#[test]
fn a_program_may_speak_in_items() {
    let mut answer = Answer::default();
    answer.hear(br#"{"type":"thread.started","thread_id":"t-1"}"#);
    answer.hear(br#"{"type":"item.completed","item":{"type":"reasoning","text":"hm"}}"#);
    let said =
        answer.hear(br#"{"type":"item.completed","item":{"type":"agent_message","text":"a"}}"#);
    assert_eq!(said, Heard::Text("a".to_owned()));
    assert_eq!(answer.session_id(), Some("t-1"));
}

#[test]
fn what_has_an_unexpected_shape_says_nothing() {
    for line in [
        "",
        "not json",
        "[1]",
        "\"text\"",
        "{",
        "{}",
        r#"{"type":7}"#,
        r#"{"type":"stream_event"}"#,
        r#"{"type":"stream_event","event":[]}"#,
        r#"{"type":"stream_event","event":{"type":"content_block_delta","delta":7}}"#,
        r#"{"type":"stream_event","event":{"type":"content_block_delta","delta":{"type":"text_delta","text":""}}}"#,
        r#"{"type":"stream_event","event":{"type":"content_block_delta","delta":{"type":"thinking_delta","thinking":"hm"}}}"#,
        r#"{"type":"assistant","message":{"content":[{"type":"text","text":"a"}]}}"#,
        r#"{"item":[]}"#,
    ] {
        assert_eq!(Answer::default().hear(line.as_bytes()), Heard::Nothing, "{line}");
    }
}

#[test]
fn an_id_that_could_be_taken_for_something_else_is_not_kept() {
    for (id, is_kept) in [
        ("00000000-0000-4000-8000-000000000001", true),
        (" padded ", true),
        ("", false),
        ("--dangerous", false),
        ("two words", false),
        ("a\u{0}b", false),
        (&*"x".repeat(257), false),
    ] {
        let mut answer = Answer::default();
        answer.hear(json!({"type": "system", "session_id": id}).to_string().as_bytes());
        assert_eq!(answer.session_id().is_some(), is_kept, "{id:?}");
    }
}

#[test]
fn a_message_is_one_line_whatever_is_in_it() {
    for message in ["one", "", "a\nb\r\n\"c\"\u{2028}", "\u{0}"] {
        let line = user_line(message);
        assert_eq!(line.iter().filter(|byte| **byte == b'\n').count(), 1);
        assert_eq!(line.last(), Some(&b'\n'));
        let asked: Value = serde_json::from_slice(&line).unwrap();
        let content = json!({"role": "user", "content": message});
        let expected = json!({"type": "user", "session_id": "", "parent_tool_use_id": null, "message": content});
        assert_eq!(asked, expected);
    }
}

#[test]
fn a_line_beyond_the_limit_is_an_error_whether_or_not_it_ends() {
    for end in ["", "\n", "\nx\n"] {
        let mut lines = Lines::resumed(4, Vec::new());
        lines.push(format!("1234\n12345{end}").as_bytes());
        assert_eq!(lines.next(), Some(Ok(&b"1234"[..])));
        assert_eq!(lines.next(), Some(Err(LineTooLong { most: 4 })));
        assert_eq!(lines.next(), Some(Err(LineTooLong { most: 4 })), "it stays one");
    }
}

#[test]
fn a_whole_output_is_read_as_json_or_taken_as_it_is() {
    for (output, text, id) in [
        (r#"{"response":"a","session_id":"s"}"#, "a", Some("s")),
        (
            r#"{"message":{"content":[{"type":"text","text":"a"},{"type":"text","text":"b"}]}}"#,
            "ab",
            None,
        ),
        (r#"{"session_id":"s"} {"result":"b\n"}"#, "b", Some("s")),
        ("plain\ntext\n", "plain\ntext", None),
    ] {
        let mut answer = Answer::default();
        assert_eq!(answer.hear_whole(output.as_bytes()), Heard::End(text.to_owned()), "{output}");
        assert_eq!(answer.session_id(), id, "{output}");
    }
    let refused = Answer::default().hear_whole(br#"{"is_error":true,"result":"no"}"#);
    assert_eq!(refused, Heard::Refused("no".to_owned()));
}

proptest! {
    #[test]
    fn any_bytes_in_any_chunks_give_the_same_lines_and_never_panic(
        bytes in proptest::collection::vec(prop_oneof![Just(b'\n'), Just(b'{'), Just(b'"'), any::<u8>()], 0..400),
        mut cuts in proptest::collection::vec(0_usize..400, 0..12),
    ) {
        cuts.sort_unstable();
        prop_assert_eq!(heard(&bytes, &cuts).0, heard(&bytes, &[]).0);
    }

    #[test]
    fn a_recorded_turn_in_any_chunks_is_the_same_turn(
        mut cuts in proptest::collection::vec(0_usize..2000, 0..40),
    ) {
        cuts.sort_unstable();
        prop_assert_eq!(heard(RECORDED.as_bytes(), &cuts).0, heard(RECORDED.as_bytes(), &[]).0);
    }

    #[test]
    fn what_is_carried_along_is_what_was_not_taken_out(
        bytes in proptest::collection::vec(prop_oneof![Just(b'\n'), any::<u8>()], 0..200),
        taken in 0_usize..20,
    ) {
        let mut lines = Lines::resumed(1 << 20, Vec::new());
        lines.push(&bytes);
        let whole: Vec<Vec<u8>> = std::iter::from_fn(|| lines.next().map(|line| line.unwrap().to_vec())).collect();
        let mut first = Lines::resumed(1 << 20, Vec::new());
        first.push(&bytes);
        let mut moved: Vec<Vec<u8>> = Vec::new();
        for _ in 0..taken {
            moved.extend(first.next().map(|line| line.unwrap().to_vec()));
        }
        let mut second = Lines::resumed(1 << 20, first.into_read_ahead());
        moved.extend(std::iter::from_fn(|| second.next().map(|line| line.unwrap().to_vec())));
        prop_assert_eq!(moved, whole);
    }
}
