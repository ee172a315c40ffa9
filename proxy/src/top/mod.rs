//! `holdfast top`: the front on a screen, with keys for a takeover and a pause.
//!
//! ```text
//! watcher.rs ─ status ─►┐
//! keyboard ─── keys ───►├─► view.rs (what is known) ─► draw/ (what is shown)
//! answers ── outcomes ─►┘        └─► a question to the front
//! ```
//!
//! It is a program of its own that asks the control socket, as `holdfast status` does. The front knows nothing of it.
//!
//! **Invariants**
//! - The terminal is as it was after every end: a key, a signal, an error, a panic.
//! - What is drawn is a function of the view and the size; the view changes in one task.
//! - Nothing here waits for the front: questions are tasks, and their outcomes messages.

mod draw;
mod screen;
mod view;
mod watcher;

use std::io;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use crossterm::event::{Event, KeyEventKind};
use handoff::chain;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::mpsc;

use self::screen::Screen;
use self::view::{Act, View};
use self::watcher::Sight;
use crate::colour::Colour;
use crate::control::client::{self, AskFailed, Conversation};
use crate::control::protocol::{Answer, Command, TakeoverRequest};

/// How many messages of a kind may wait to be shown.
const QUEUE: usize = 16;
/// How long a pause lasts that nobody ends.
const PAUSE: Duration = Duration::from_secs(60);

/// Why nothing can be shown, or no longer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TopFailed {
    #[error(transparent)]
    Front { source: AskFailed },
    #[error("could not use the terminal")]
    Terminal {
        #[from]
        source: io::Error,
    },
}

/// Shows the front behind the control socket at `path`, until somebody has seen enough.
///
/// # Errors
/// When no front answers at first, or the terminal cannot be used.
pub(crate) async fn run(path: PathBuf, interval: Duration) -> Result<ExitCode, TopFailed> {
    let first = client::status(&path).await.map_err(|source| TopFailed::Front { source })?;
    let mut view = View::new(path.clone(), Colour::of_stdout());
    view.on_sight(Sight::Status(Box::new(first)), Duration::ZERO);
    let (told, mut sights) = mpsc::channel(QUEUE);
    tokio::spawn(watcher::watch(path.clone(), interval, told));
    let (outcome, mut outcomes) = mpsc::channel(QUEUE);
    let mut ends = Ends::listen()?;
    let mut screen = Screen::take()?;
    loop {
        screen.show(&view)?;
        tokio::select! {
            Some((sight, elapsed)) = sights.recv() => view.on_sight(sight, elapsed),
            Some(outcome) = outcomes.recv() => view.on_outcome(outcome),
            input = screen.input() => match input? {
                Event::Key(key) if key.kind != KeyEventKind::Release => match view.on_key(key) {
                    Act::Nothing => {}
                    Act::Quit => return Ok(ExitCode::SUCCESS),
                    Act::Takeover => {
                        let request = TakeoverRequest::default();
                        ask(&path, Command::Takeover(request), &outcome);
                    }
                    Act::Pause => {
                        let timeout_ms = handoff::message::millis(PAUSE);
                        ask(&path, Command::Pause { timeout_ms }, &outcome);
                    }
                    Act::Resume => ask(&path, Command::Resume, &outcome),
                },
                // Whatever else it is, it is drawn anew.
                _ => {}
            },
            number = ends.next() => return Ok(ExitCode::from(128 + number)),
        }
    }
}

/// Asks the front, and has the outcome told.
fn ask(path: &std::path::Path, command: Command, outcome: &mpsc::Sender<Result<String, String>>) {
    let (path, outcome) = (path.to_owned(), outcome.clone());
    tokio::spawn(async move {
        let what = match &command {
            Command::Pause { .. } => "paused: nobody accepts",
            Command::Resume => "resumed",
            _ => "asked",
        };
        let answer = async { Conversation::begin(&path, command).await?.expect().await };
        let said = match answer.await {
            Ok(Answer::Requested { takeover }) => Ok(format!("takeover {takeover} is requested")),
            Ok(_) => Ok(what.to_owned()),
            Err(failed) => Err(chain(&failed)),
        };
        // Who asked may have left.
        let _ = outcome.send(said).await;
    });
}

/// The signals that end it.
struct Ends([(Signal, u8); 3]);

impl Ends {
    fn listen() -> io::Result<Self> {
        let of = |kind: SignalKind| {
            let number = u8::try_from(kind.as_raw_value()).unwrap_or_default();
            Ok::<_, io::Error>((signal(kind)?, number))
        };
        Ok(Self([
            of(SignalKind::terminate())?,
            of(SignalKind::interrupt())?,
            of(SignalKind::hangup())?,
        ]))
    }

    /// The number of the next one. Cancel safe.
    async fn next(&mut self) -> u8 {
        let [terminate, interrupt, hangup] = &mut self.0;
        tokio::select! {
            _ = terminate.0.recv() => terminate.1,
            _ = interrupt.0.recv() => interrupt.1,
            _ = hangup.0.recv() => hangup.1,
        }
    }
}
