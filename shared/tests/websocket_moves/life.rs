//! A WebSocket's life with moves in it, told as an account that can be compared with one without.

use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use handoff::migrate::websocket::tungstenite::Message;
use handoff::migrate::websocket::tungstenite::protocol::WebSocketConfig;
use handoff::migrate::websocket::{Frozen, MovableWebSocket, NotMovable};

use crate::client::{Client, TEXT};
use crate::wire::Wire;

/// What happens to a connection.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Step {
    /// So many more bytes of the transcript arrive.
    Arrive(usize),
    /// The application takes up to so many messages, and sends what it can if there were fewer.
    Take(usize),
    /// The client reads so many more bytes.
    Fetch(usize),
    /// The connection moves, if it is movable.
    Move,
}

/// All of the transcript, or all that was sent.
pub(crate) const ALL: usize = usize::MAX;

/// Something that goes wrong in a move; the tests must notice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    None,
    /// A commit struck out one byte too many.
    CommittedTooMuch,
    /// A commit left one byte standing.
    CommittedTooLittle,
    JournalDropped,
    SpillDropped,
    /// What was unsent is sent by both sides.
    SpillDoubled,
    /// What was unsent is sent in another order.
    SpillReordered,
}

/// What the application and the client saw.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Account {
    heard: Vec<String>,
    received: Vec<u8>,
}

/// How a life with moves went differently from the one without.
#[derive(Debug)]
#[expect(dead_code, reason = "shown when a test fails")]
pub(crate) struct Difference {
    moved: Account,
    unmoved: Account,
}

/// What the moves came to.
#[derive(Clone, Debug, Default)]
pub(crate) struct Moves {
    pub(crate) made: usize,
    pub(crate) refused: Vec<NotMovable>,
    /// How many were made worse by the fault.
    pub(crate) spoilt: usize,
}

/// One connection: its settings, its client's words, what happens, what goes wrong.
#[derive(Clone)]
pub(crate) struct Life<'a> {
    pub(crate) transcript: &'a [u8],
    pub(crate) steps: &'a [Step],
    /// How much of the transcript comes along with the upgrade.
    pub(crate) upgraded_with: usize,
    /// The most that one read or write takes, in bytes.
    pub(crate) bite: usize,
    pub(crate) config: WebSocketConfig,
    pub(crate) fault: Fault,
}

impl<'a> Life<'a> {
    pub(crate) fn new(transcript: &'a [u8], steps: &'a [Step]) -> Self {
        let config = WebSocketConfig::default().read_buffer_size(1024).write_buffer_size(0);
        Self { transcript, steps, upgraded_with: 0, bite: ALL, config, fault: Fault::None }
    }

    /// What happens when nothing moves, and nobody is slow.
    pub(crate) fn unmoved(&self) -> Account {
        let plain = Life { bite: ALL, upgraded_with: 0, fault: Fault::None, ..self.clone() };
        let steps = [Step::Fetch(ALL), Step::Arrive(ALL), Step::Take(ALL)];
        Life { steps: &steps, ..plain }.live().0
    }

    /// Lives it and compares.
    pub(crate) fn check(&self) -> (Moves, Result<(), Difference>) {
        self.check_against(&self.unmoved())
    }

    pub(crate) fn check_against(&self, unmoved: &Account) -> (Moves, Result<(), Difference>) {
        let (moved, moves) = self.live();
        let outcome = if moved == *unmoved {
            Ok(())
        } else {
            Err(Difference { moved, unmoved: unmoved.clone() })
        };
        (moves, outcome)
    }

    fn live(&self) -> (Account, Moves) {
        let (along, mut coming) = self.transcript.split_at(self.upgraded_with);
        let wire = Wire::new(self.bite);
        let along = Bytes::copy_from_slice(along);
        let mut websocket = MovableWebSocket::accept(wire.clone(), along, self.config);
        let mut heard = Vec::new();
        let mut moves = Moves::default();
        let rest = [Step::Arrive(ALL), Step::Take(ALL), Step::Fetch(ALL), Step::Take(ALL)];
        for step in self.steps.iter().chain(&rest) {
            match *step {
                Step::Arrive(size) => {
                    let (now, later) = coming.split_at(size.min(coming.len()));
                    wire.arrive(now);
                    coming = later;
                }
                Step::Take(most) => take(&mut websocket, most, &mut heard),
                Step::Fetch(size) => wire.make_room(size),
                Step::Move => websocket = self.relocate(websocket, &mut moves),
            }
        }
        // What a move left behind shows at the next message.
        wire.arrive(&Client::new().whole(TEXT, b"still there?").bytes);
        take(&mut websocket, ALL, &mut heard);
        (Account { heard, received: wire.received() }, moves)
    }

    fn relocate(
        &self,
        websocket: MovableWebSocket<Wire>,
        moves: &mut Moves,
    ) -> MovableWebSocket<Wire> {
        let backlog = websocket.backlog();
        match websocket.freeze() {
            Ok(mut frozen) => {
                assert_eq!(frozen.unsent.len() as u64, backlog, "the backlog is what is unsent");
                moves.made += 1;
                if self.fault.spoil(&mut frozen) {
                    moves.spoilt += 1;
                }
                MovableWebSocket::thaw(frozen, self.config)
            }
            Err((websocket, reason)) => {
                moves.refused.push(reason);
                websocket
            }
        }
    }
}

impl Fault {
    /// Goes wrong, if there is anything to spoil.
    fn spoil(self, frozen: &mut Frozen<Wire>) -> bool {
        let Frozen { read, unsent, .. } = frozen;
        let before = (read.clone(), unsent.clone());
        match self {
            Self::None => {}
            Self::CommittedTooMuch => drop(read.drain(..read.len().min(1))),
            // 0x00 is the end of a message of which the rest was struck out.
            Self::CommittedTooLittle => read.insert(0, 0x00),
            Self::JournalDropped => read.clear(),
            Self::SpillDropped => unsent.clear(),
            Self::SpillDoubled => unsent.extend_from_within(..),
            Self::SpillReordered => unsent.sort_unstable(),
        }
        before != (read.clone(), unsent.clone())
    }
}

/// An application that echoes.
fn take(websocket: &mut MovableWebSocket<Wire>, most: usize, heard: &mut Vec<String>) {
    let mut context = Context::from_waker(Waker::noop());
    for _ in 0..most {
        match websocket.poll_next(&mut context) {
            Poll::Ready(Some(Ok(message))) => {
                heard.push(format!("{message:?}"));
                if let Message::Text(_) | Message::Binary(_) = message {
                    websocket.feed(message).expect("it is open");
                }
            }
            Poll::Ready(Some(Err(error))) => heard.push(format!("{error:?}")),
            Poll::Ready(None) | Poll::Pending => {
                // A client that is slow is no error, and of a broken one was heard above.
                let _ = websocket.poll_flush(&mut context);
                return;
            }
        }
    }
}
