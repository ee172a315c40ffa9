//! The takeovers, the newest first: a bar of phases each, its length the whole of that takeover.

use handoff::message::GenerationId;
use ratatui::text::{Line, Span};

use super::Ink;
use crate::colour::Tone;
use crate::control::document::{LastTakeover, Phases, Status, TakeoverStatus};
use crate::control::protocol::Outcome;
use crate::spoken;

/// What the parts of a bar mean.
pub(super) const LEGEND: &str = "░ start ▒ switch ▓ soak █ drain";
/// How wide a bar is; a wide screen has twice as much for it.
const BAR: usize = 16;
const WIDE: usize = 110;

pub(super) fn lines(status: &Status, ink: Ink, width: usize) -> Vec<Line<'static>> {
    let bar = if width >= WIDE { 2 * BAR } else { BAR };
    let running = status.takeover.as_ref().map(|takeover| running(takeover, ink, bar));
    let ended = status.recent_takeovers.iter().rev().map(|takeover| ended(takeover, ink, bar));
    let lines: Vec<_> = running.into_iter().chain(ended).collect();
    if lines.is_empty() {
        return vec![Line::from(ink.of(Tone::Faint, " none yet"))];
    }
    lines
}

fn running(takeover: &TakeoverStatus, ink: Ink, bar: usize) -> Line<'static> {
    let glyph = match takeover.step.as_str() {
        "emptying" => '█',
        "starting" => '░',
        "admitting" | "switching" => '▒',
        "soaking" => '▓',
        _ => '·',
    };
    let mut marks = marks(takeover.phases);
    marks.push((takeover.age_ms, glyph));
    let who = (takeover.incumbent, takeover.successor);
    let pending = if takeover.pending { "another one waits" } else { "" };
    let word = (Tone::Changing, takeover.step.as_str());
    line(takeover.number, who, word, &marks, pending.to_owned(), ink, bar)
}

fn ended(takeover: &LastTakeover, ink: Ink, bar: usize) -> Line<'static> {
    let mut marks = marks(takeover.phases);
    let who = (takeover.incumbent, takeover.successor);
    let (word, rest) = match takeover.outcome {
        Outcome::RolledBack => {
            ((Tone::Bad, "rolled back"), takeover.reason.clone().unwrap_or_default())
        }
        Outcome::Committed if takeover.phases.drained_ms.is_none() => {
            marks.push((takeover.age_ms, '█'));
            ((Tone::Changing, "draining"), String::new())
        }
        Outcome::Committed => ((Tone::Good, "committed"), moved(takeover)),
    };
    line(takeover.number, who, word, &marks, rest, ink, bar)
}

/// When each part ended, in order: with `stop-first` the drain is the first.
fn marks(phases: Phases) -> Vec<(u64, char)> {
    let ends = [
        (phases.ready_ms, '░'),
        (phases.switched_ms, '▒'),
        (phases.committed_ms, '▓'),
        (phases.drained_ms, '█'),
    ];
    let mut marks: Vec<_> = ends.into_iter().filter_map(|(ms, c)| Some((ms?, c))).collect();
    // Stable: of two that came at once the order stays.
    marks.sort_by_key(|(ms, _)| *ms);
    marks
}

/// `moved 200 615/s · cut 0`.
fn moved(takeover: &LastTakeover) -> String {
    let total = |connections: Option<handoff::message::Connections>| {
        connections.map_or(0, handoff::message::Connections::total)
    };
    let (moved, cut) = (total(takeover.moved), total(takeover.cut));
    let took = match (takeover.phases.committed_ms, takeover.phases.drained_ms) {
        (Some(committed), Some(drained)) => drained.saturating_sub(committed),
        _ => 0,
    };
    let rate = match moved.saturating_mul(1000).checked_div(took) {
        Some(rate) if moved > 0 => format!(" {rate}/s"),
        _ => String::new(),
    };
    format!("moved {moved}{rate} · cut {cut}")
}

fn line(
    number: u64,
    (incumbent, successor): (Option<GenerationId>, Option<GenerationId>),
    (tone, word): (Tone, &str),
    marks: &[(u64, char)],
    rest: String,
    ink: Ink,
    width: usize,
) -> Line<'static> {
    let name = |id: Option<GenerationId>| id.map_or_else(|| "–".to_owned(), |id| id.to_string());
    let who = format!("{}→{}", name(incumbent), name(successor));
    let total = marks.last().map_or(0, |(ms, _)| *ms);
    Line::from(vec![
        ink.strong(format!(" {:<4} ", format!("#{number}"))),
        Span::raw(format!("{who:<10}")),
        ink.of(tone, format!("{word:<12}")),
        ink.of(tone, bar(marks, width)),
        Span::raw(format!(" {:>7}  ", spoken::short_time(total))),
        Span::raw(rest),
    ])
}

/// A bar whose parts are as long as they took; what took time at all is seen.
fn bar(marks: &[(u64, char)], width: usize) -> String {
    let total = marks.last().map_or(0, |(ms, _)| *ms).max(1);
    let mut cells = String::new();
    let (mut drawn, mut before) = (0, 0);
    for (number, (ms, glyph)) in marks.iter().enumerate() {
        if *ms > before {
            let to_come = marks[number..].windows(2).filter(|pair| pair[1].0 > pair[0].0).count();
            let share = u128::from(*ms) * width as u128 / u128::from(total);
            let end = usize::try_from(share).unwrap_or(width);
            let end = end.max(drawn + 1).min(width.saturating_sub(to_come)).max(drawn);
            cells.extend(std::iter::repeat_n(*glyph, end - drawn));
            drawn = end;
        }
        before = *ms;
    }
    cells.extend(std::iter::repeat_n(' ', width - drawn));
    cells
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bar_is_as_wide_as_it_may_be_and_shows_every_part_that_took_time() {
        let bar =
            |ends: [u64; 4]| bar(&ends.into_iter().zip("░▒▓█".chars()).collect::<Vec<_>>(), 16);
        assert_eq!(bar([4, 8, 12, 16]), "░░░░▒▒▒▒▓▓▓▓████");
        assert_eq!(bar([1, 2, 3, 60_000]), "░▒▓█████████████");
        assert_eq!(bar([60_000, 60_001, 60_002, 60_003]), "░░░░░░░░░░░░░▒▓█");
        assert_eq!(bar([500, 500, 1000, 1000]), "░░░░░░░░▓▓▓▓▓▓▓▓");
        assert_eq!(bar([0, 0, 0, 0]), " ".repeat(16));
        assert_eq!(super::bar(&[], 4), "    ");
    }

    #[test]
    fn with_stop_first_the_drain_is_the_first_part() {
        let phases = Phases {
            started_ms: Some(500),
            ready_ms: Some(800),
            switched_ms: Some(801),
            committed_ms: Some(1000),
            drained_ms: Some(500),
            ..Phases::default()
        };
        let glyphs: String = marks(phases).into_iter().map(|(_, glyph)| glyph).collect();
        assert_eq!(glyphs, "█░▒▓");
    }
}
