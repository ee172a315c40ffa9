//! The view on a screen of any size.
//!
//! ```text
//! the front, and how it is                2 lines
//! ── generations ──                       each, and what its drain waits for
//! ── takeovers ──                         with a bar of phases, the newest first
//! ── lately ──                            events, the newest first, as many as there is room for
//! keys, or a question                     1 line
//! ```

mod generations;
mod takeovers;

use handoff::message::millis;
use ratatui::Frame;
use ratatui::layout::Rect;
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::{Line, Span};
use ratatui::widgets::Paragraph;

use super::view::{Asks, View};
use crate::colour::{Colour, Tone};
use crate::control::document::{NextTakeover, Status};
use crate::spoken;

/// The smallest screen that has room for what matters.
const LEAST: (u16, u16) = (70, 16);
/// The lines that are neither a section's title nor in it.
const FRAME: usize = 3;
const SECTIONS: usize = 3;
/// The lines that takeovers and events have at least.
const LEAST_OF_THE_REST: usize = 6;

/// Draws it all.
pub(super) fn draw(frame: &mut Frame<'_>, view: &View) {
    let area = frame.area();
    let ink = Ink(view.colour);
    if area.width < LEAST.0 || area.height < LEAST.1 {
        let text = format!(
            "too small: {} × {}, and at least {} × {} are needed (q quits)",
            area.width, area.height, LEAST.0, LEAST.1
        );
        let wrapped = Paragraph::new(text).wrap(ratatui::widgets::Wrap { trim: true });
        return frame.render_widget(wrapped, area);
    }
    let lines = lines(view, ink, usize::from(area.width), usize::from(area.height));
    for (row, line) in (area.y..area.bottom()).zip(lines) {
        let line = fitted(line, usize::from(area.width));
        frame.render_widget(line, Rect { y: row, height: 1, ..area });
    }
}

/// As many lines as the screen has.
fn lines(view: &View, ink: Ink, width: usize, height: usize) -> Vec<Line<'static>> {
    let mut lines = vec![front(view, ink), how_it_is(view, ink)];
    if let Some(status) = &view.status {
        let room = height - FRAME - SECTIONS;
        let mut generations = generations::lines(view, status, ink);
        generations.truncate(room - LEAST_OF_THE_REST);
        let rest = room - generations.len();
        let mut takeovers = takeovers::lines(status, ink, width);
        takeovers.truncate(rest / 2);
        let mut events = events(status, ink);
        events.truncate(rest - takeovers.len());
        lines.push(title("generations", "", ink, width));
        lines.extend(generations);
        lines.push(title("takeovers", takeovers::LEGEND, ink, width));
        lines.extend(takeovers);
        lines.push(title("lately", "", ink, width));
        lines.extend(events);
    }
    lines.resize(height - 1, Line::default());
    lines.push(keys(view, ink));
    lines
}

/// The line, and a `…` where there was no room for all of it.
fn fitted(mut line: Line<'static>, width: usize) -> Line<'static> {
    if line.width() <= width {
        return line;
    }
    let mut room = width.saturating_sub(1);
    for span in &mut line.spans {
        span.content = span.content.chars().take(room).collect::<String>().into();
        room = room.saturating_sub(span.width());
    }
    line.push_span("…");
    line
}

/// How tones look here.
#[derive(Clone, Copy, Debug)]
struct Ink(Colour);

impl Ink {
    fn of(self, tone: Tone, text: impl Into<String>) -> Span<'static> {
        Span::styled(text.into(), self.style(tone))
    }

    fn strong(self, text: impl Into<String>) -> Span<'static> {
        Span::styled(text.into(), Style::new().add_modifier(Modifier::BOLD))
    }

    fn style(self, tone: Tone) -> Style {
        let style = Style::new();
        match (self.0, tone) {
            (Colour::None, _) | (_, Tone::Plain) => style,
            (Colour::Some, Tone::Good) => style.fg(Color::Green),
            (Colour::Some, Tone::Changing) => style.fg(Color::Yellow),
            (Colour::Some, Tone::Bad) => style.fg(Color::Red),
            (Colour::Some, Tone::Faint) => style.add_modifier(Modifier::DIM),
        }
    }
}

fn front(view: &View, ink: Ink) -> Line<'static> {
    let Some(status) = &view.status else { return Line::from(ink.strong(" holdfast")) };
    let front = &status.front;
    let addresses: Vec<_> = status.listeners.iter().map(|l| l.address.as_str()).collect();
    let mut seen = std::collections::BTreeSet::new();
    let addresses: Vec<_> = addresses.into_iter().filter(|address| seen.insert(*address)).collect();
    Line::from(vec![
        ink.strong(" holdfast "),
        Span::raw(format!(
            "{} · pid {} · up {} · {} · {}",
            // Without its commit: there is little room.
            front.version.split(' ').next().unwrap_or_default(),
            front.pid,
            spoken::short_time(front.uptime_ms),
            spoken::memory(front.resident_bytes),
            addresses.join(" ")
        )),
    ])
}

/// Who serves, and when the next takeover can begin; or that nobody answers.
fn how_it_is(view: &View, ink: Ink) -> Line<'static> {
    if let Some(away) = &view.away {
        let since = spoken::time(millis(away.since));
        let path = view.path.display();
        let text = format!(" {} on {path} for {since}; trying again", away.reason);
        return Line::from(ink.of(Tone::Bad, text));
    }
    let Some(status) = &view.status else { return Line::default() };
    let (tone, text) = standing(status);
    Line::from(vec![
        Span::raw(" "),
        ink.of(tone, text),
        Span::raw(format!(" · next takeover: {}", next(status))),
    ])
}

fn standing(status: &Status) -> (Tone, String) {
    let serving = status.generations.iter().find(|generation| generation.state == "serving");
    let starting = status.generations.last();
    let awaits = status.attach.as_ref().is_some_and(|attach| attach.awaits_worker);
    if status.stopping {
        (Tone::Changing, "stopping".to_owned())
    } else if let Some(paused) = &status.paused {
        let left = spoken::time(paused.remaining_ms);
        (Tone::Changing, format!("paused for {left}, {} accepts nobody", paused.generation))
    } else if let Some(takeover) = &status.takeover {
        (Tone::Changing, format!("takeover {}: {}", takeover.number, takeover.step))
    } else if let Some(serving) = serving {
        (Tone::Good, format!("{} serves", serving.generation))
    } else if awaits {
        (Tone::Bad, "nobody serves; waits for a worker to attach".to_owned())
    } else if let Some(respawn) = &status.respawn {
        let within = spoken::time(respawn.in_ms);
        (Tone::Bad, format!("nobody serves; the next start is in {within}"))
    } else if let Some(starting) = starting {
        (Tone::Changing, format!("{} is {}", starting.generation, starting.state))
    } else {
        (Tone::Bad, "nobody serves".to_owned())
    }
}

fn next(status: &Status) -> String {
    match &status.next_takeover {
        NextTakeover::Now => "possible now".to_owned(),
        NextTakeover::After { generation, within_ms } => {
            let word = if status.takeover_pending { "one waits for" } else { "after" };
            format!("{word} {generation}'s drain, {} at most", spoken::time(*within_ms))
        }
        NextTakeover::AfterThisOne => "after this one".to_owned(),
        NextTakeover::AfterPause => "when resumed".to_owned(),
        NextTakeover::Never => "never".to_owned(),
    }
}

fn title(name: &str, legend: &str, ink: Ink, width: usize) -> Line<'static> {
    let mut text = format!("── {name} ");
    let legend = if legend.is_empty() { String::new() } else { format!(" {legend} ──") };
    let used = text.chars().count() + legend.chars().count();
    text.push_str(&"─".repeat(width.saturating_sub(used)));
    Line::from(ink.of(Tone::Faint, text + &legend))
}

fn events(status: &Status, ink: Ink) -> Vec<Line<'static>> {
    if status.events.is_empty() {
        return vec![Line::from(ink.of(Tone::Faint, " nothing that this front remembers"))];
    }
    let line = |event: &crate::control::document::Happened| {
        let age = format!(" {:>7}  ", spoken::short_time(event.age_ms));
        let tone = Tone::of_event(&event.kind);
        Line::from(vec![ink.of(Tone::Faint, age), ink.of(tone, event.sentence.clone())])
    };
    status.events.iter().rev().map(line).collect()
}

fn keys(view: &View, ink: Ink) -> Line<'static> {
    if view.asks == Asks::WhetherToTakeOver {
        return Line::from(vec![
            ink.of(Tone::Changing, " Replace the worker now?   "),
            ink.strong("y"),
            Span::raw(" yes   "),
            ink.strong("n"),
            Span::raw(" no"),
        ]);
    }
    let pause = if view.is_paused() { " resume   " } else { " pause   " };
    let mut spans = vec![
        ink.strong(" t"),
        Span::raw(" takeover   "),
        ink.strong("p"),
        Span::raw(pause),
        ink.strong("q"),
        Span::raw(" quit"),
    ];
    if let Some(notice) = &view.notice {
        spans.push(Span::raw("   "));
        spans.push(ink.of(notice.tone, notice.text.clone()));
    }
    Line::from(spans)
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;
    use std::time::Duration;

    use crossterm::event::{KeyCode, KeyEvent, KeyModifiers};
    use ratatui::Terminal;
    use ratatui::backend::TestBackend;

    use super::*;
    use crate::snapshot::assert_snapshot;
    use crate::top::watcher::Sight;

    fn status() -> Status {
        let text = include_str!("../../../tests/status/draining.json");
        let mut status: Status = serde_json::from_str(text).unwrap();
        status.paused = None;
        status.respawn = None;
        status
    }

    fn view_of(status: Status) -> View {
        let mut view = View::new(PathBuf::from("/run/holdfast/control.sock"), Colour::None);
        view.on_sight(Sight::Status(Box::new(status)), Duration::ZERO);
        view
    }

    fn drawn(view: &View, width: u16, height: u16) -> String {
        let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
        terminal.draw(|frame| draw(frame, view)).unwrap();
        let buffer = terminal.backend().buffer();
        let row = |y| (0..width).map(|x| buffer[(x, y)].symbol()).collect::<String>();
        let lines: Vec<_> = (0..height).map(|y| row(y).trim_end().to_owned()).collect();
        lines.join("\n")
    }

    #[test]
    fn a_takeover_with_a_drain_fits_eighty_by_twenty_four() {
        let mut view = view_of(status());
        let mut later = status();
        later.generations[0].connections =
            Some(handoff::message::Connections { http: 2, websocket: 10 });
        view.on_sight(Sight::Status(Box::new(later)), Duration::from_millis(500));
        assert_snapshot("top-draining-80x24", &drawn(&view, 80, 24));
    }

    #[test]
    fn a_large_screen_shows_more_of_the_same() {
        assert_snapshot("top-draining-120x40", &drawn(&view_of(status()), 120, 40));
    }

    #[test]
    fn a_front_that_has_just_started_has_little_to_show() {
        let mut quiet = status();
        quiet.generations.remove(0);
        quiet.generations[0].failing.clear();
        quiet.takeover = None;
        quiet.takeover_pending = false;
        quiet.recent_takeovers.clear();
        quiet.events.clear();
        quiet.next_takeover = NextTakeover::Now;
        assert_snapshot("top-quiet-80x24", &drawn(&view_of(quiet), 80, 24));
    }

    #[test]
    fn a_question_and_a_front_that_is_away_are_said() {
        let mut view = view_of(status());
        view.on_key(KeyEvent::new(KeyCode::Char('t'), KeyModifiers::NONE));
        assert!(drawn(&view, 80, 24).ends_with(" Replace the worker now?   y yes   n no"));
        for _ in 0..2 {
            let away = Sight::Away("no front answers".to_owned());
            view.on_sight(away, Duration::from_secs(3));
        }
        let text = drawn(&view, 80, 24);
        let said = " no front answers on /run/holdfast/control.sock for 3.0 s; trying again";
        assert!(text.lines().any(|line| line == said), "{text}");
        assert!(text.contains("g7"), "what was there is not shown any more: {text}");
    }

    #[test]
    fn a_screen_that_is_too_small_says_so_and_none_makes_it_panic() {
        let mut crowded = status();
        for number in 20..60 {
            let mut more = crowded.generations[0].clone();
            more.generation = handoff::GenerationId::new(number);
            crowded.generations.push(more);
        }
        let view = view_of(crowded);
        assert!(drawn(&view, 69, 24).contains("too small: 69 × 24"));
        for width in (1..100).step_by(7) {
            for height in 1..60 {
                drawn(&view, width, height);
            }
        }
        let least = drawn(&view, LEAST.0, LEAST.1);
        assert!(least.contains("── lately") && least.contains("q quit"), "{least}");
    }
}
