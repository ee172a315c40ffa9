//! The terminal, while it is taken.

use std::io;

use crossterm::event::{self, Event};
use ratatui::DefaultTerminal;
use tokio::sync::mpsc;

use super::draw;
use super::view::View;

/// How many keys may wait.
const KEYS: usize = 64;

/// A terminal in raw mode, on its other page. It is given back when this is dropped, and by a panic.
pub(super) struct Screen {
    terminal: DefaultTerminal,
    inputs: mpsc::Receiver<io::Result<Event>>,
}

impl Screen {
    pub(super) fn take() -> io::Result<Self> {
        // It has a panic give the terminal back before it is told.
        let terminal = ratatui::try_init().inspect_err(|_| give_back())?;
        let (input, inputs) = mpsc::channel(KEYS);
        // The thread ends with the process: nothing wakes who reads a terminal.
        let reading = std::thread::Builder::new().name("keyboard".to_owned()).spawn(move || {
            loop {
                let event = event::read();
                let is_last = event.is_err();
                if input.blocking_send(event).is_err() || is_last {
                    return;
                }
            }
        });
        let screen = Self { terminal, inputs };
        reading.map(|_| screen)
    }

    pub(super) fn show(&mut self, view: &View) -> io::Result<()> {
        self.terminal.draw(|frame| draw::draw(frame, view)).map(|_| ())
    }

    /// What is typed next. Cancel safe.
    pub(super) async fn input(&mut self) -> io::Result<Event> {
        self.inputs.recv().await.unwrap_or_else(|| Err(io::ErrorKind::UnexpectedEof.into()))
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        // A terminal that is gone shows no cursor.
        let _ = self.terminal.show_cursor();
        // A panic has given it back before it was told; once more, and the cursor would be where it was before.
        if !std::thread::panicking() {
            give_back();
        }
    }
}

fn give_back() {
    // There is nobody left to tell.
    let _ = ratatui::try_restore();
}
