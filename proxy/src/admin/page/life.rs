//! What each generation was, and when: told by the events that the front remembers, and by what is now.
//!
//! **Invariants**
//! - The front remembers so many events and no more: what they do not tell any more is left out or, of a generation
//!   that lives, told by its age.
//! - Events of a kind unknown here are passed over.

use std::collections::BTreeMap;

use handoff::GenerationId;

use crate::control::document::{Happened, Status};

/// How many generations are shown, the last ones.
const MOST_LIVES: usize = 8;

/// What a generation is, as far as a picture needs it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    Starting,
    Ready,
    Serving,
    Draining,
}

impl Phase {
    pub(super) const fn word(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Ready => "ready",
            Self::Serving => "serving",
            Self::Draining => "draining",
        }
    }

    /// The phase of a state that `status` has a word for.
    fn of(state: &str) -> Self {
        match state {
            "starting" => Self::Starting,
            "standby" | "admitting" => Self::Ready,
            "serving" => Self::Serving,
            _ => Self::Draining,
        }
    }

    /// What it was before, when nobody remembers.
    const fn before(self) -> Self {
        match self {
            Self::Starting | Self::Ready => Self::Starting,
            Self::Serving => Self::Ready,
            Self::Draining => Self::Serving,
        }
    }
}

/// One generation's life; times are ages in ms, so the later is the smaller.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Life {
    pub(super) generation: GenerationId,
    pub(super) spans: Vec<Span>,
    /// When it ended, if it has.
    pub(super) gone: Option<u64>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Span {
    pub(super) phase: Phase,
    pub(super) from: u64,
    pub(super) to: u64,
}

/// What is known of a generation while the events are gone through.
#[derive(Debug, Default)]
struct Traced {
    begins: Vec<(u64, Phase)>,
    gone: Option<u64>,
}

impl Traced {
    fn phase(&self) -> Option<Phase> {
        self.begins.last().map(|(_, phase)| *phase)
    }

    fn begin(&mut self, phase: Phase, age: u64) {
        if self.phase() != Some(phase) && self.gone.is_none() {
            self.begins.push((age, phase));
        }
    }
}

/// The lives of the last generations, the oldest first.
pub(super) fn lives(status: &Status) -> Vec<Life> {
    let mut traced: BTreeMap<GenerationId, Traced> = BTreeMap::new();
    for event in &status.events {
        trace(&mut traced, event);
    }
    let oldest = status.events.first().map_or(0, |event| event.age_ms);
    for living in &status.generations {
        let known = traced.entry(living.generation).or_default();
        if known.begins.is_empty() {
            known.begins.push((living.age_ms, Phase::of(&living.state)));
        }
        // It may be `ending`, and so not be gone.
        known.gone = None;
    }
    let last = traced.len().saturating_sub(MOST_LIVES);
    traced
        .into_iter()
        .skip(last)
        .filter_map(|(generation, known)| {
            let age =
                status.generations.iter().find(|g| g.generation == generation).map(|g| g.age_ms);
            life(generation, known, age.unwrap_or(oldest))
        })
        .collect()
}

fn trace(traced: &mut BTreeMap<GenerationId, Traced>, event: &Happened) {
    let Some(id) = event.generation else { return };
    let age = event.age_ms;
    match event.kind.as_str() {
        "started" => traced.entry(id).or_default().begin(Phase::Starting, age),
        "ready" | "stands-by" => traced.entry(id).or_default().begin(Phase::Ready, age),
        "accepting" | "serving" => traced.entry(id).or_default().begin(Phase::Serving, age),
        "emptying" => traced.entry(id).or_default().begin(Phase::Draining, age),
        "switched" => {
            for (_, known) in traced.iter_mut().filter(|(other, _)| **other != id) {
                if known.phase() == Some(Phase::Serving) {
                    known.begin(Phase::Draining, age);
                }
            }
        }
        "rolled-back" => {
            traced.entry(id).or_default().gone.get_or_insert(age);
            for (_, known) in traced.iter_mut().filter(|(_, known)| known.gone.is_none()) {
                // It serves again; whoever drained for another takeover will be gone sooner than it is seen.
                if known.phase() == Some(Phase::Draining) {
                    known.begin(Phase::Serving, age);
                }
            }
        }
        "drained" | "gone" | "crashed" | "not-serving" | "standby-failed" | "standby-ended" => {
            traced.entry(id).or_default().gone.get_or_insert(age);
        }
        _ => {}
    }
}

/// A life of which the first event may be forgotten; it began at `age` then.
fn life(generation: GenerationId, known: Traced, age: u64) -> Option<Life> {
    let Traced { mut begins, gone } = known;
    let earlier = match (begins.first(), gone) {
        (Some((first, phase)), _) if *phase != Phase::Starting && *first < age => {
            Some(phase.before())
        }
        (None, Some(ended)) if ended < age => Some(Phase::Serving),
        (None, _) => return None,
        (Some(_), _) => None,
    };
    if let Some(phase) = earlier {
        begins.insert(0, (age, phase));
    }
    let ends = begins.iter().skip(1).map(|(age, _)| *age).chain([gone.unwrap_or(0)]);
    let spans =
        begins.iter().zip(ends).map(|((from, phase), to)| Span { phase: *phase, from: *from, to });
    Some(Life { generation, spans: spans.collect(), gone })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admin::page::tests::status;

    fn told(events: &[(&str, Option<u64>, u64)], living: &[(u64, &str, u64)]) -> Vec<String> {
        let mut status = status();
        status.events = events
            .iter()
            .map(|(kind, generation, age_ms)| Happened {
                age_ms: *age_ms,
                kind: (*kind).to_owned(),
                generation: generation.map(GenerationId::new),
                sentence: String::new(),
            })
            .collect();
        let one = status.generations[0].clone();
        status.generations = living
            .iter()
            .map(|(number, state, age_ms)| crate::control::document::GenerationStatus {
                generation: GenerationId::new(*number),
                state: (*state).to_owned(),
                age_ms: *age_ms,
                ..one.clone()
            })
            .collect();
        let span = |span: &Span| format!("{} {}-{}", span.phase.word(), span.from, span.to);
        lives(&status)
            .iter()
            .map(|life| {
                let spans: Vec<_> = life.spans.iter().map(span).collect();
                let gone = life.gone.map_or_else(String::new, |age| format!(", gone {age}"));
                format!("{} {}{gone}", life.generation, spans.join(", "))
            })
            .collect()
    }

    #[test]
    fn a_takeover_is_told_from_start_to_end() {
        let events = [
            ("started", Some(1), 900),
            ("ready", Some(1), 890),
            ("serving", Some(1), 880),
            ("takeover-began", Some(1), 500),
            ("started", Some(2), 500),
            ("ready", Some(2), 400),
            ("accepting", Some(2), 390),
            ("switched", Some(2), 380),
            ("committed", Some(2), 280),
            ("drained", Some(1), 200),
        ];
        let expected = [
            "g1 starting 900-890, ready 890-880, serving 880-380, draining 380-200, gone 200",
            "g2 starting 500-400, ready 400-390, serving 390-0",
        ];
        assert_eq!(told(&events, &[(2, "serving", 500)]), expected);
    }

    #[test]
    fn what_serves_again_after_a_rollback_does_not_drain() {
        let events = [
            ("serving", Some(1), 880),
            ("started", Some(2), 500),
            ("accepting", Some(2), 390),
            ("switched", Some(2), 380),
            ("rolled-back", Some(2), 280),
        ];
        let expected = [
            "g1 ready 950-880, serving 880-380, draining 380-280, serving 280-0",
            "g2 starting 500-390, serving 390-280, gone 280",
        ];
        assert_eq!(told(&events, &[(1, "serving", 950)]), expected);
    }

    #[test]
    fn whose_events_are_forgotten_is_told_by_its_age_and_state() {
        let living = [(7, "serving", 10_000), (8, "starting", 5)];
        let events = [("sang", Some(9), 3), ("pause-ended", None, 2)];
        assert_eq!(told(&events, &living), ["g7 serving 10000-0", "g8 starting 5-0"]);
        let ends = [("committed", Some(7), 60), ("drained", Some(6), 50), ("crashed", Some(5), 60)];
        let expected = ["g6 serving 60-50, gone 50", "g7 serving 10000-0", "g8 starting 5-0"];
        assert_eq!(told(&ends, &living), expected);
    }

    #[test]
    fn the_last_lives_are_shown_and_no_more() {
        let events: Vec<_> = (1..=20).map(|n| ("started", Some(n), 100 - n)).collect();
        let told = told(&events, &[]);
        assert_eq!(told.len(), MOST_LIVES);
        assert!(told[0].starts_with("g13 ") && told[7].starts_with("g20 "), "{told:?}");
    }
}
