//! What is known of the front, and what a key means: no terminal, no socket, no clock.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use crossterm::event::{KeyCode, KeyEvent, KeyModifiers};
use handoff::message::GenerationId;

use super::watcher::Sight;
use crate::colour::{Colour, Tone};
use crate::control::document::Status;

/// For how many looks a notice is shown.
const NOTICE: u32 = 12;

/// Everything that is shown.
#[derive(Clone, Debug)]
pub(super) struct View {
    /// The front's control socket.
    pub(super) path: PathBuf,
    pub(super) colour: Colour,
    /// The last that was seen of it.
    pub(super) status: Option<Box<Status>>,
    pub(super) away: Option<Away>,
    pub(super) asks: Asks,
    pub(super) notice: Option<Notice>,
    pub(super) drains: BTreeMap<GenerationId, Drain>,
}

/// A front that does not answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Away {
    pub(super) reason: String,
    pub(super) since: Duration,
}

/// What is to be answered with `y` or `n`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Asks {
    Nothing,
    WhetherToTakeOver,
}

/// A sentence that is shown for a while.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Notice {
    pub(super) tone: Tone,
    pub(super) text: String,
    looks: u32,
}

/// How a drain goes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Drain {
    /// The most connections that were seen.
    pub(super) most: u64,
    pub(super) left: u64,
    /// How many leave in a second.
    pub(super) per_second: u64,
}

/// What comes of a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Act {
    Nothing,
    Quit,
    Takeover,
    Pause,
    Resume,
}

impl View {
    pub(super) const fn new(path: PathBuf, colour: Colour) -> Self {
        Self {
            path,
            colour,
            status: None,
            away: None,
            asks: Asks::Nothing,
            notice: None,
            drains: BTreeMap::new(),
        }
    }

    /// Takes what was seen, so long after the last time.
    pub(super) fn on_sight(&mut self, sight: Sight, elapsed: Duration) {
        self.notice = self.notice.take().filter(|notice| notice.looks > 0);
        if let Some(notice) = &mut self.notice {
            notice.looks -= 1;
        }
        match sight {
            Sight::Away(reason) => {
                let since = self.away.take().map_or(Duration::ZERO, |away| away.since + elapsed);
                self.away = Some(Away { reason, since });
            }
            Sight::Status(status) => {
                let was_away = self.away.take().is_some();
                if let Some(news) = self.news(&status, was_away) {
                    self.tell(Tone::Good, news);
                }
                self.follow_drains(&status, elapsed);
                self.status = Some(status);
            }
        }
    }

    /// What has become of the front itself since the last look.
    fn news(&self, status: &Status, was_away: bool) -> Option<String> {
        let before = self.status.as_ref()?;
        if before.front.pid != status.front.pid {
            return Some(format!("another front answers: pid {}", status.front.pid));
        }
        if status.reexecs.done > before.reexecs.done {
            return Some(format!("the front renewed itself: {}", status.front.version));
        }
        was_away.then(|| "the front answers again".to_owned())
    }

    fn follow_drains(&mut self, status: &Status, elapsed: Duration) {
        let draining = status
            .generations
            .iter()
            .filter(|generation| matches!(generation.state.as_str(), "draining" | "emptying"));
        let before = std::mem::take(&mut self.drains);
        for generation in draining {
            let last = before.get(&generation.generation).copied();
            let left = match generation.connections {
                Some(connections) => connections.total(),
                // It did not answer in time.
                None => last.unwrap_or_default().left,
            };
            // Until now it has served: who has left since the last look left the drain.
            let earlier = last.map_or_else(|| self.held_by(generation.generation), |d| d.left);
            let gone = earlier.max(left) - left;
            let per_second = u128::from(gone) * 1000 / elapsed.as_millis().max(1);
            let drain = Drain {
                most: last.map_or(earlier, |drain| drain.most).max(left),
                left,
                per_second: u64::try_from(per_second).unwrap_or(u64::MAX),
            };
            self.drains.insert(generation.generation, drain);
        }
    }

    /// The connections that a generation had at the last look.
    fn held_by(&self, id: GenerationId) -> u64 {
        let generations = self.status.as_ref().map_or(&[][..], |status| &status.generations);
        let found = generations.iter().find(|generation| generation.generation == id);
        found.and_then(|generation| generation.connections).map_or(0, |c| c.total())
    }

    /// Takes what came of a question to the front.
    pub(super) fn on_outcome(&mut self, outcome: Result<String, String>) {
        match outcome {
            Ok(said) => self.tell(Tone::Good, said),
            Err(reason) => self.tell(Tone::Bad, reason),
        }
    }

    fn tell(&mut self, tone: Tone, text: String) {
        self.notice = Some(Notice { tone, text, looks: NOTICE });
    }

    pub(super) fn on_key(&mut self, key: KeyEvent) -> Act {
        let is_control_c =
            key.code == KeyCode::Char('c') && key.modifiers.contains(KeyModifiers::CONTROL);
        if is_control_c {
            return Act::Quit;
        }
        match (std::mem::replace(&mut self.asks, Asks::Nothing), key.code) {
            (Asks::WhetherToTakeOver, KeyCode::Char('y' | 'Y')) => Act::Takeover,
            (Asks::WhetherToTakeOver, _) => Act::Nothing,
            (Asks::Nothing, KeyCode::Char('q') | KeyCode::Esc) => Act::Quit,
            // Nobody is there to be asked.
            (Asks::Nothing, _) if self.away.is_some() => Act::Nothing,
            (Asks::Nothing, KeyCode::Char('t')) => {
                self.notice = None;
                self.asks = Asks::WhetherToTakeOver;
                Act::Nothing
            }
            (Asks::Nothing, KeyCode::Char('p')) if self.is_paused() => Act::Resume,
            (Asks::Nothing, KeyCode::Char('p')) => Act::Pause,
            (Asks::Nothing, _) => Act::Nothing,
        }
    }

    pub(super) fn is_paused(&self) -> bool {
        self.status.as_ref().is_some_and(|status| status.paused.is_some())
    }
}

#[cfg(test)]
mod tests {
    use handoff::message::Connections;

    use super::*;

    fn status() -> Box<Status> {
        let text = include_str!("../../tests/status/draining.json");
        let mut status: Status = serde_json::from_str(text).unwrap();
        status.paused = None;
        Box::new(status)
    }

    fn view() -> View {
        let mut view = View::new(PathBuf::from("/run/control.sock"), Colour::None);
        view.on_sight(Sight::Status(status()), Duration::ZERO);
        view
    }

    fn pressed(view: &mut View, keys: &str) -> Vec<Act> {
        let press = |key| view.on_key(KeyEvent::new(KeyCode::Char(key), KeyModifiers::NONE));
        keys.chars().map(press).collect()
    }

    #[test]
    fn a_takeover_is_asked_about_and_only_y_begins_it() {
        let mut view = view();
        assert_eq!(pressed(&mut view, "ty"), [Act::Nothing, Act::Takeover]);
        for other in ["tn", "tq", "tp", "tt"] {
            assert_eq!(pressed(&mut view, other), [Act::Nothing, Act::Nothing], "{other}");
            assert_eq!(view.asks, Asks::Nothing);
        }
        assert_eq!(pressed(&mut view, "y"), [Act::Nothing]);
    }

    #[test]
    fn p_pauses_and_resumes_and_control_c_always_quits() {
        let mut view = view();
        assert_eq!(pressed(&mut view, "p"), [Act::Pause]);
        let mut paused = status();
        let generation = GenerationId::new(8);
        paused.paused = Some(crate::control::document::Paused { generation, remaining_ms: 1 });
        view.on_sight(Sight::Status(paused), Duration::ZERO);
        assert_eq!(pressed(&mut view, "p"), [Act::Resume]);
        pressed(&mut view, "t");
        let key = KeyEvent::new(KeyCode::Char('c'), KeyModifiers::CONTROL);
        assert_eq!(view.on_key(key), Act::Quit);
    }

    #[test]
    fn a_front_that_is_away_is_asked_nothing_and_its_return_is_told() {
        let mut view = view();
        for _ in 0..3 {
            let away = Sight::Away("no front answers".to_owned());
            view.on_sight(away, Duration::from_millis(500));
        }
        assert_eq!(view.away.as_ref().unwrap().since, Duration::from_secs(1));
        assert_eq!(pressed(&mut view, "tpq"), [Act::Nothing, Act::Nothing, Act::Quit]);
        let mut renewed = status();
        renewed.reexecs.done += 1;
        view.on_sight(Sight::Status(renewed), Duration::ZERO);
        let notice = view.notice.clone().unwrap();
        assert!(notice.text.contains("renewed itself") && view.away.is_none(), "{notice:?}");
        let mut other = status();
        other.front.pid += 1;
        view.on_sight(Sight::Status(other), Duration::ZERO);
        assert!(view.notice.clone().unwrap().text.contains("another front"));
    }

    #[test]
    fn a_drain_is_measured_from_look_to_look() {
        let mut view = view();
        let drain = |view: &View| view.drains[&GenerationId::new(7)];
        assert_eq!(drain(&view), Drain { most: 42, left: 42, per_second: 0 });
        let mut later = status();
        later.generations[0].connections = Some(Connections { http: 2, websocket: 10 });
        view.on_sight(Sight::Status(later.clone()), Duration::from_millis(500));
        assert_eq!(drain(&view), Drain { most: 42, left: 12, per_second: 60 });
        later.generations[0].connections = None;
        view.on_sight(Sight::Status(later.clone()), Duration::from_millis(500));
        assert_eq!(drain(&view), Drain { most: 42, left: 12, per_second: 0 });
        later.generations.remove(0);
        view.on_sight(Sight::Status(later), Duration::from_millis(500));
        assert!(view.drains.is_empty());
    }

    #[test]
    fn a_notice_goes_by_itself() {
        let mut view = view();
        view.on_outcome(Err("the front is stopping".to_owned()));
        assert_eq!(view.notice.clone().unwrap().tone, Tone::Bad);
        for _ in 0..=NOTICE {
            view.on_sight(Sight::Status(status()), Duration::ZERO);
        }
        assert_eq!(view.notice, None);
    }
}
