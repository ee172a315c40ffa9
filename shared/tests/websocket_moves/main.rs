//! WebSockets that move at every byte: nothing is lost, doubled or reordered.

#![expect(clippy::unwrap_used, reason = "a test that fails says where")]

mod client;
mod life;
mod sockets;
mod wire;

use proptest::collection::vec;
use proptest::prelude::{Just, ProptestConfig, Strategy, any, prop_oneof, proptest};

use handoff::migrate::websocket::tungstenite::protocol::WebSocketConfig;
use handoff::migrate::websocket::{MAX_JOURNAL, NotMovable};

use client::{BINARY, Client, PING, PONG, TEXT, broken_transcripts, transcripts};
use life::{ALL, Fault, Life, Moves, Step};

/// Everything that the exhaustive tests do to a transcript: each is one life.
fn lives(transcript: &[u8], mut each: impl FnMut(&Life<'_>)) {
    let echoed = transcript.len() + 40;
    for cut in 0..=transcript.len() {
        // Idle, and with messages left that the application has not taken yet.
        for taken in [ALL, 0, 1, 2, 3] {
            let steps = [Step::Fetch(ALL), Step::Arrive(cut), Step::Take(taken), Step::Move];
            each(&Life::new(transcript, &steps));
        }
        // Twice, without a word between.
        let steps = [Step::Arrive(cut), Step::Take(ALL), Step::Move, Step::Move, Step::Fetch(3)];
        each(&Life::new(transcript, &steps));
        // The beginning came with the upgrade.
        let steps = [Step::Fetch(ALL), Step::Move, Step::Take(1), Step::Move];
        each(&Life { upgraded_with: cut, ..Life::new(transcript, &steps) });
        // Nobody reads what the server says until it has moved, and then slowly.
        for taken in [ALL, 1] {
            let steps = [Step::Arrive(cut), Step::Take(taken), Step::Move, Step::Fetch(1)];
            each(&Life { bite: 3, ..Life::new(transcript, &steps) });
        }
    }
    // What the server says is cut at every byte too.
    for fetched in 0..=echoed {
        let steps = [Step::Fetch(fetched), Step::Arrive(ALL), Step::Take(ALL), Step::Move];
        each(&Life::new(transcript, &steps));
        let again = [&steps[..], &[Step::Fetch(1), Step::Take(ALL), Step::Move]].concat();
        each(&Life { bite: 5, ..Life::new(transcript, &again) });
    }
}

#[test]
fn twenty_transcripts_cut_at_every_byte_are_heard_and_answered_as_if_they_were_not() {
    let mut made = 0;
    for (name, transcript) in transcripts().into_iter().chain(broken_transcripts()) {
        let unmoved = Life::new(&transcript, &[]).unmoved();
        lives(&transcript, |life| {
            let (moves, outcome) = life.check_against(&unmoved);
            made += moves.made;
            outcome.unwrap_or_else(|how| panic!("{name}, {:?}: {how:#?}", life.steps));
        });
    }
    assert!(made > 20_000, "only {made} moves were made");
}

#[test]
fn two_moves_at_any_two_bytes_are_as_good_as_none() {
    for (name, transcript) in transcripts().into_iter().filter(|(_, it)| it.len() <= 60) {
        let unmoved = Life::new(&transcript, &[]).unmoved();
        for first in 0..=transcript.len() {
            for more in 0..=transcript.len() - first {
                let steps = [first, more].map(|size| [Step::Arrive(size), Step::Take(ALL)]);
                let steps = [&steps[0][..], &[Step::Move], &steps[1], &[Step::Move]].concat();
                let (_, outcome) = Life::new(&transcript, &steps).check_against(&unmoved);
                outcome.unwrap_or_else(|how| panic!("{name}, {steps:?}: {how:#?}"));
            }
        }
    }
}

#[test]
fn a_message_of_more_than_64_kib_moves_at_any_byte_of_its_header_and_at_many_of_the_rest() {
    let payload: Vec<u8> = (0..=250).cycle().take(0x1_0000).collect();
    let transcript = Client::new().whole(BINARY, &payload).whole(TEXT, b"after").bytes;
    let unmoved = Life::new(&transcript, &[]).unmoved();
    let end = transcript.len();
    for cut in (0..20).chain((20..end - 20).step_by(4001)).chain(end - 20..=end) {
        let steps = [Step::Arrive(cut), Step::Take(ALL), Step::Move];
        let (moves, outcome) = Life::new(&transcript, &steps).check_against(&unmoved);
        outcome.unwrap_or_else(|how| panic!("cut at {cut}: {how:#?}"));
        assert_eq!(moves.made, 1);
    }
}

#[test]
fn the_same_tests_fail_for_every_move_that_a_fault_has_spoilt() {
    let faults = [
        Fault::CommittedTooMuch,
        Fault::CommittedTooLittle,
        Fault::JournalDropped,
        Fault::SpillDropped,
        Fault::SpillDoubled,
        Fault::SpillReordered,
    ];
    // A message that a close cuts short is seen by nobody, whole or not.
    let seen = || transcripts().into_iter().filter(|(name, _)| *name != client::CUT_SHORT);
    for fault in faults {
        let (mut spoilt, mut noticed) = (0, 0);
        for (_, transcript) in seen() {
            let unmoved = Life::new(&transcript, &[]).unmoved();
            lives(&transcript, |life| {
                let (moves, outcome) = Life { fault, ..life.clone() }.check_against(&unmoved);
                if moves.spoilt > 0 {
                    spoilt += 1;
                    noticed += usize::from(outcome.is_err());
                } else {
                    assert!(outcome.is_ok(), "a move that was not spoilt went wrong");
                }
            });
        }
        assert!(spoilt > 500, "{fault:?} spoilt only {spoilt} lives");
        assert_eq!(noticed, spoilt, "{fault:?} was not always noticed");
    }
}

#[test]
fn beyond_the_cap_a_connection_moves_after_its_message_and_not_before() {
    let half = vec![b'h'; MAX_JOURNAL / 2 + 1];
    let transcript = Client::new()
        .whole(TEXT, b"before")
        .first(BINARY, &half)
        .whole(PING, b"1")
        .middle(&half)
        .whole(PING, b"2")
        .whole(PONG, b"3")
        .last(b"end")
        .whole(PING, b"4")
        .first(TEXT, b"af")
        .last(b"ter");
    let transcript = transcript.bytes;
    let tail = 14 + 7 + 7 + 9 + 7 + 8 + 9;
    let unmoved = Life::new(&transcript, &[]).unmoved();
    let arrive = |size| [Step::Arrive(size), Step::Take(ALL), Step::Move];
    // Up to the cap, then one by one through everything that is beyond it, and all at once.
    let mut steps = arrive(MAX_JOURNAL).to_vec();
    steps.extend(arrive(transcript.len() - MAX_JOURNAL - tail));
    steps.extend((0..tail).flat_map(|_| arrive(1)));
    for life in [
        Life::new(&transcript, &steps),
        Life { bite: 999, ..Life::new(&transcript, &steps) },
        Life::new(&transcript, &arrive(ALL)),
        Life {
            config: WebSocketConfig::default().read_buffer_size(64 * 1024),
            ..Life::new(&transcript, &steps)
        },
    ] {
        let (moves, outcome) = life.check_against(&unmoved);
        outcome.map_err(|_| "it went wrong").unwrap();
        assert!(moves.refused.iter().all(|reason| *reason == NotMovable::MessageTooLarge));
        assert_eq!(moves.made + moves.refused.len(), life.steps.len() / 3);
        assert!(life.steps.len() == 3 || moves.refused.len() >= 10, "{moves:?}");
        assert!(moves.made >= 1);
    }
    // With a message of the next left in tungstenite, and none taken of this one.
    for taken in 0..8 {
        let steps = [Step::Arrive(ALL), Step::Take(taken), Step::Move, Step::Take(1), Step::Move];
        let (_, outcome) = Life::new(&transcript, &steps).check_against(&unmoved);
        outcome.map_err(|_| "it went wrong").unwrap();
    }
}

#[test]
fn after_a_close_frame_and_after_the_end_nothing_moves() {
    let closing = |transcript: &[u8]| {
        let took_close = [Step::Fetch(ALL), Step::Arrive(ALL), Step::Take(2), Step::Move];
        let steps = [&took_close[..], &[Step::Take(ALL), Step::Move]].concat();
        let (Moves { made, refused, .. }, outcome) = Life::new(transcript, &steps).check();
        outcome.unwrap();
        assert_eq!(made, 0);
        refused
    };
    let closed = Client::new().whole(TEXT, b"bye").whole(client::CLOSE, b"").bytes;
    assert_eq!(closing(&closed), [NotMovable::Closing, NotMovable::Ended]);
    let broken = Client::new().whole(TEXT, b"hm").frame(0xff, b"").bytes;
    assert_eq!(closing(&broken), [NotMovable::Ended, NotMovable::Ended]);
}

/// A message in fragments, with a control frame after some of them.
fn message() -> impl Strategy<Value = Client> {
    let length = prop_oneof![6 => 0..40_usize, 2 => 100..400_usize, 1 => 65_000..66_000_usize];
    let fragments =
        vec((any::<u8>(), prop_oneof![3 => Just(None), 1 => (0..9_usize).prop_map(Some)]), 0..5);
    (length, any::<bool>(), fragments).prop_map(|(length, text, cuts)| {
        let payload: Vec<u8> = if text {
            "aä€😀".bytes().cycle().take(length / 10 * 10).collect()
        } else {
            (0..=255).cycle().take(length).collect()
        };
        let opcode = if text { TEXT } else { BINARY };
        let mut client = Client::new();
        let mut rest = &payload[..];
        for (index, (cut, control)) in cuts.iter().enumerate() {
            let (now, later) = rest.split_at(rest.len() * usize::from(*cut) / 256);
            client = client.frame(if index == 0 { opcode } else { 0 }, now);
            rest = later;
            if let Some(size) = control {
                let opcode = if size % 3 == 0 { PONG } else { PING };
                client = client.whole(opcode, &payload[..payload.len().min(*size)]);
            }
        }
        if cuts.is_empty() { client.whole(opcode, rest) } else { client.last(rest) }
    })
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => prop_oneof![4 => 0..60_usize, 1 => 0..30_000_usize].prop_map(Step::Arrive),
        4 => prop_oneof![1 => 0..4_usize, 1 => Just(ALL)].prop_map(Step::Take),
        2 => prop_oneof![4 => 0..60_usize, 1 => 0..30_000_usize].prop_map(Step::Fetch),
        2 => Just(Step::Move),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_client_any_moves(
        messages in vec(message(), 1..12),
        steps in vec(step(), 1..60),
        bite in prop_oneof![1..20_usize, 100..5000_usize, Just(ALL)],
        read_buffer in prop_oneof![1..200_usize, Just(4096)],
        write_buffer in prop_oneof![Just(0), 1..200_usize],
        upgraded_with in 0..30_usize,
    ) {
        let transcript: Vec<u8> = messages.into_iter().flat_map(|client| client.bytes).collect();
        let config = WebSocketConfig::default()
            .read_buffer_size(read_buffer)
            .write_buffer_size(write_buffer);
        let upgraded_with = upgraded_with.min(transcript.len());
        let life = Life { bite, config, upgraded_with, ..Life::new(&transcript, &steps) };
        life.check().1.unwrap();
    }
}
