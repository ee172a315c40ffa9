//! Lives as a picture. To the right is now, and each mark of the axis is further back than the one before by more than
//! that one: a switch of 1 ms and a week of service have to fit beside each other.

use std::fmt::Write as _;

use super::html::spoken;
use super::life::{Life, Phase, Span};
use crate::control::document::Phases;

/// The picture's width, and where its lines begin and end.
const WIDTH: f64 = 960.0;
const LEFT: f64 = 56.0;
const RIGHT: f64 = 944.0;
/// The height of a line, and of what is below the last.
const LINE: f64 = 34.0;
const AXIS: f64 = 30.0;
/// The narrowest that something is drawn.
const NARROWEST: f64 = 2.0;
/// How far apart two marks are at least.
const MARKS_APART: f64 = 60.0;
/// The least that the picture spans, in ms.
const SHORTEST: u64 = 10_000;
/// The marks of the axis, in seconds.
const MARKS: [u64; 12] =
    [1, 3, 10, 30, 60, 300, 900, 3600, 6 * 3600, 86_400, 7 * 86_400, 30 * 86_400];

/// Where on the axis an age is.
struct Scale {
    oldest: u64,
}

impl Scale {
    fn x(&self, age: u64) -> f64 {
        let depth = |ms: u64| (1.0 + seconds(ms)).ln();
        RIGHT - (RIGHT - LEFT) * (depth(age) / depth(self.oldest)).min(1.0)
    }
}

#[expect(clippy::cast_precision_loss, reason = "a picture needs no more")]
fn seconds(ms: u64) -> f64 {
    ms as f64 / 1000.0
}

/// The timeline of generations.
pub(super) fn timeline(lives: &[Life]) -> String {
    if lives.is_empty() {
        return "<p>No generation has been started.</p>".to_owned();
    }
    let begins = lives.iter().filter_map(|life| life.spans.first());
    let oldest = begins.map(|span| span.from).max().unwrap_or(0).max(SHORTEST);
    let scale = Scale { oldest };
    #[expect(clippy::cast_precision_loss, reason = "there are a handful")]
    let bottom = LINE * lives.len() as f64;
    let height = bottom + AXIS;
    let mut svg = format!(
        "<figure class=\"timeline\"><svg viewBox=\"0 0 {WIDTH} {height}\" role=\"img\" aria-labelledby=\"picture-said\">\
         <title id=\"picture-said\">{}</title>",
        said(lives)
    );
    axis(&mut svg, &scale, bottom);
    let mut top = 0.0;
    for life in lives {
        line(&mut svg, life, &scale, top);
        top += LINE;
    }
    svg.push_str("</svg><figcaption>");
    for phase in [Phase::Starting, Phase::Ready, Phase::Serving, Phase::Draining] {
        let word = phase.word();
        let _ = write!(
            svg,
            "<span class=\"key\"><svg viewBox=\"0 0 18 24\" aria-hidden=\"true\">{}</svg>{word}</span>",
            bar(phase, 0.0, 18.0, 12.0, "")
        );
    }
    svg.push_str("<span class=\"key\"><svg viewBox=\"0 0 18 24\" aria-hidden=\"true\">");
    cross(&mut svg, 9.0, 12.0);
    svg.push_str("</svg>gone</span></figcaption></figure>");
    svg
}

/// The same in words.
fn said(lives: &[Life]) -> String {
    let told = |life: &Life| {
        let id = life.generation;
        match (life.gone, life.spans.last()) {
            (Some(age), _) => format!("{id} has been gone for {}", spoken(age)),
            (None, Some(span)) => {
                format!("{id} has been {} for {}", span.phase.word(), spoken(span.from))
            }
            (None, None) => id.to_string(),
        }
    };
    lives.iter().map(told).collect::<Vec<_>>().join("; ")
}

fn axis(svg: &mut String, scale: &Scale, bottom: f64) {
    let below = bottom + 20.0;
    let _ = write!(
        svg,
        "<line class=\"axis\" x1=\"{LEFT}\" y1=\"{bottom}\" x2=\"{RIGHT}\" y2=\"{bottom}\"/>\
         <text class=\"mark\" x=\"{RIGHT}\" y=\"{below}\" text-anchor=\"end\">now</text>"
    );
    let mut last = RIGHT;
    for mark in MARKS {
        let x = scale.x(mark * 1000);
        if mark * 1000 > scale.oldest || last - x < MARKS_APART {
            continue;
        }
        last = x;
        let word = humantime::format_duration(std::time::Duration::from_secs(mark));
        let _ = write!(
            svg,
            "<line class=\"grid\" x1=\"{x:.1}\" y1=\"0\" x2=\"{x:.1}\" y2=\"{bottom}\"/>\
             <text class=\"mark\" x=\"{x:.1}\" y=\"{below}\" text-anchor=\"middle\">{word} ago</text>"
        );
    }
}

fn line(svg: &mut String, life: &Life, scale: &Scale, top: f64) {
    let middle = top + LINE / 2.0;
    let (id, baseline) = (life.generation, middle + 5.0);
    let _ = write!(svg, "<text class=\"name\" x=\"0\" y=\"{baseline}\">{id}</text>");
    for Span { phase, from, to } in &life.spans {
        let (x, end) = (scale.x(*from), scale.x(*to));
        let width = (end - x).max(NARROWEST);
        let word = phase.word();
        let title = format!(
            "{id} {word} for {}, until {} ago",
            spoken(from.saturating_sub(*to)),
            spoken(*to)
        );
        svg.push_str(&bar(*phase, x, width, middle, &title));
        #[expect(clippy::cast_precision_loss, reason = "words are short")]
        let needs = 7.5 * word.len() as f64 + 8.0;
        if *phase == Phase::Serving && width > needs {
            let at = x + width / 2.0;
            let _ = write!(
                svg,
                "<text class=\"word\" x=\"{at:.1}\" y=\"{baseline}\" text-anchor=\"middle\" aria-hidden=\"true\">{word}</text>"
            );
        }
    }
    if let Some(age) = life.gone {
        cross(svg, scale.x(age) + 5.0, middle);
    }
}

/// A bar, whose height tells the phase as well as its colour does.
fn bar(phase: Phase, x: f64, width: f64, middle: f64, title: &str) -> String {
    let height = match phase {
        Phase::Starting => 6.0,
        Phase::Ready => 14.0,
        Phase::Serving => 24.0,
        Phase::Draining => 10.0,
    };
    let (word, y) = (phase.word(), middle - height / 2.0);
    let rect = format!(
        "<rect class=\"{word}\" x=\"{x:.1}\" y=\"{y}\" width=\"{width:.1}\" height=\"{height}\" rx=\"2\""
    );
    if title.is_empty() {
        format!("{rect}/>")
    } else {
        format!("{rect}><title>{title}</title></rect>")
    }
}

fn cross(svg: &mut String, x: f64, y: f64) {
    let (left, right, above, below) = (x - 4.0, x + 4.0, y - 4.0, y + 4.0);
    let _ = write!(
        svg,
        "<path class=\"gone\" d=\"M{left:.1} {above}L{right:.1} {below}M{left:.1} {below}L{right:.1} {above}\"/>"
    );
}

/// How long each phase of a takeover took, the longest of them as wide as it is of the whole.
pub(super) fn phases(phases: &Phases) -> String {
    let all: Vec<(&str, u64)> = named(phases);
    let whole: u64 = all.iter().map(|(_, ms)| *ms).sum();
    if whole == 0 {
        return String::new();
    }
    let mut svg = "<svg class=\"phases\" viewBox=\"0 0 200 10\" preserveAspectRatio=\"none\" aria-hidden=\"true\">".to_owned();
    let mut x = 0.0;
    for (word, ms) in all {
        let width = 200.0 * seconds(ms) / seconds(whole);
        let _ = write!(
            svg,
            "<rect class=\"{word}\" x=\"{x:.2}\" y=\"0\" width=\"{width:.2}\" height=\"10\"><title>{word} {}</title></rect>",
            spoken(ms)
        );
        x += width;
    }
    svg.push_str("</svg>");
    svg
}

/// Each phase that a takeover has gone through, in order, and how long it took, in ms.
pub(super) fn named(phases: &Phases) -> Vec<(&'static str, u64)> {
    let took = phases.durations();
    [
        ("emptying", took.emptying),
        ("starting", took.starting),
        ("admitting", took.admitting),
        ("switching", took.switching),
        ("soaking", took.soaking),
        ("draining", phases.draining()),
    ]
    .into_iter()
    .filter_map(|(word, ms)| Some((word, ms?)))
    .collect()
}
