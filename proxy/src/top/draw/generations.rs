//! The generations, each with how its drain goes and what that waits for.

use ratatui::text::{Line, Span};

use super::Ink;
use crate::colour::Tone;
use crate::control::document::{GenerationStatus, OriginStatus, Status};
use crate::spoken;
use crate::top::view::{Drain, View};

/// How wide a drain's bar is.
const BAR: u64 = 20;

pub(super) fn lines(view: &View, status: &Status, ink: Ink) -> Vec<Line<'static>> {
    let header = " gen  state          age   http  websocket  in flight     memory  lease      pid";
    let mut lines = vec![Line::from(ink.of(Tone::Faint, header))];
    if status.generations.is_empty() {
        lines.push(Line::from(ink.of(Tone::Bad, " nobody")));
    }
    for generation in &status.generations {
        lines.push(row(generation, ink));
        if let Some(drain) = view.drains.get(&generation.generation) {
            lines.push(drains(*drain, generation, ink));
            if let Some(oldest) = &generation.oldest {
                let age = spoken::time(oldest.age_ms);
                let text = format!("      waits for {} ({age})", oldest.what);
                lines.push(Line::from(ink.of(Tone::Changing, text)));
            }
        }
        if !generation.failing.is_empty() {
            let text = format!("      fails at: {}", generation.failing.join(", "));
            lines.push(Line::from(ink.of(Tone::Bad, text)));
        }
    }
    lines
}

fn row(generation: &GenerationStatus, ink: Ink) -> Line<'static> {
    let count = |n: Option<u64>| n.map_or_else(|| "?".to_owned(), |n| n.to_string());
    let memory = generation.resident_bytes.map_or_else(|| "?".to_owned(), spoken::memory);
    let rest = format!(
        "{:>8} {:>6} {:>10} {:>10} {:>10}  {:<5} {:>8}",
        spoken::short_time(generation.age_ms),
        count(generation.connections.map(|c| c.http)),
        count(generation.connections.map(|c| c.websocket)),
        count(generation.in_flight),
        memory,
        if generation.lease { "held" } else { "" },
        match generation.origin {
            Some(OriginStatus::Attached { .. }) => "–".to_owned(),
            _ => generation.pid.to_string(),
        },
    );
    Line::from(vec![
        ink.strong(format!(" {:<4} ", generation.generation.to_string())),
        ink.of(Tone::of_state(&generation.state), format!("{:<10}", generation.state)),
        Span::raw(rest),
    ])
}

/// `████████░░░░ 42 of 230 left · 24 leave each second · ended within 24.1 s`.
fn drains(drain: Drain, generation: &GenerationStatus, ink: Ink) -> Line<'static> {
    let Drain { most, left, per_second } = drain;
    let done = (most - left.min(most)) * BAR / most.max(1);
    let bar: String = (0..BAR).map(|cell| if cell < done { '█' } else { '░' }).collect();
    let mut text = format!(" {left} of {most} left");
    if per_second > 0 {
        text.push_str(&format!(" · {per_second}/s leave"));
    }
    if let Some(within) = generation.drains_within_ms {
        text.push_str(&format!(" · ended within {}", spoken::time(within)));
    }
    Line::from(vec![Span::raw("      "), ink.of(Tone::Changing, bar), Span::raw(text)])
}
