//! A status as tables and sentences for people.
//!
//! **Invariants**
//! - It fits a terminal of 80 columns; nothing is broken into lines where no terminal is.
//! - What is not well has a line of its own, and `deploy/RUNBOOK.md` has that line.

use std::io;

use comfy_table::{CellAlignment, Table, presets};
use handoff::GenerationId;
use handoff::message::Connections;
use rustix::termios::tcgetwinsize;

use crate::cli::takeover::sessions_moved;
use crate::colour::{Colour, Tone};
use crate::control::document::{
    GenerationStatus, Happened, LastTakeover, NextTakeover, OriginStatus, Phases, ReexecCounts,
    Status,
};
use crate::control::protocol::Outcome;
use crate::spoken;

/// How many of the last events are shown.
const EVENTS: usize = 5;

/// What it is drawn on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Page {
    colour: Colour,
    /// Columns and lines, of a terminal.
    size: Option<(usize, usize)>,
}

impl Page {
    pub(super) fn of_stdout() -> Self {
        let size = tcgetwinsize(io::stdout()).ok().filter(|size| size.ws_col > 0);
        Self {
            colour: Colour::of_stdout(),
            size: size.map(|size| (size.ws_col.into(), size.ws_row.into())),
        }
    }

    /// How many lines it has, without the one that the cursor is in.
    pub(super) fn lines(self) -> usize {
        self.size.map_or(usize::MAX, |(_, lines)| lines.saturating_sub(1))
    }
}

/// The status as it is shown.
pub(super) fn drawn(status: &Status, page: Page) -> String {
    let mut sheet = Sheet { page, lines: Vec::new() };
    sheet.front(status);
    sheet.listeners(status);
    sheet.generations(status);
    sheet.takeovers(status);
    sheet.complaints(status);
    sheet.counts(status);
    sheet.events(&status.events);
    sheet.lines.join("\n")
}

/// The lines that there are so far.
struct Sheet {
    page: Page,
    lines: Vec<String>,
}

impl Sheet {
    /// A sentence, or several in a row.
    fn say(&mut self, tone: Tone, text: &str) {
        self.say_indented(tone, text, 2);
    }

    /// The same, with the lines after the first one indented by so much.
    fn say_indented(&mut self, tone: Tone, text: &str, indent: usize) {
        let width = self.page.size.map_or(usize::MAX, |(columns, _)| columns);
        let painted = |line: &String| self.page.colour.paint(tone, line);
        self.lines.extend(wrapped(text, width, indent).iter().map(painted));
    }

    /// A table, and the words of it that are painted, at most one a row.
    fn show(&mut self, table: &Table, painted: &[(String, Tone)]) {
        let text = table.to_string();
        let mut rows = text.lines().map(str::trim_end);
        self.lines.push(String::new());
        self.lines.extend(rows.next().map(|header| self.page.colour.paint(Tone::Faint, header)));
        for (row, line) in rows.enumerate() {
            self.lines.push(match painted.get(row) {
                Some((word, tone)) => line.replacen(word, &self.page.colour.paint(*tone, word), 1),
                None => line.to_owned(),
            });
        }
    }

    fn front(&mut self, status: &Status) {
        let front = &status.front;
        let limit = front.limits.map_or_else(String::new, |l| format!(" of {}", l.descriptors));
        let stopping = if status.stopping { " · stopping" } else { "" };
        let line = format!(
            "front {} · pid {} · up {} · {} resident · {} descriptors{limit}{stopping}",
            front.version,
            front.pid,
            spoken::time(front.uptime_ms),
            spoken::memory(front.resident_bytes),
            front.descriptors,
        );
        self.say(Tone::Plain, &line);
        if let Some(recovered) = &front.recovered {
            let workers: Vec<_> = recovered.generations.iter().map(ToString::to_string).collect();
            let age = spoken::time(recovered.age_ms);
            let workers = workers.join(" and ");
            let line = format!("recovered {workers} from a front that had died ({age} ago)");
            self.say(Tone::Changing, &line);
        }
    }

    fn listeners(&mut self, status: &Status) {
        let mut table = table(["listener", "shard", "inode"], &[1, 2]);
        for listener in &status.listeners {
            let (shard, inode) = (listener.shard.to_string(), listener.inode.to_string());
            table.add_row([listener.address.clone(), shard, inode]);
        }
        self.show(&table, &[]);
    }

    fn generations(&mut self, status: &Status) {
        let header = [
            "generation",
            "state",
            "age",
            "http",
            "websocket",
            "in flight",
            "memory",
            "lease",
            "pid",
        ];
        let mut table = table(header, &[3, 4, 5, 6, 8]);
        for generation in &status.generations {
            table.add_row(row(generation));
        }
        let state = |g: &GenerationStatus| (g.state.clone(), Tone::of_state(&g.state));
        let states: Vec<_> = status.generations.iter().map(state).collect();
        self.show(&table, &states);
        self.lines.push(String::new());
        for GenerationStatus { generation, program, origin, .. } in &status.generations {
            let by = match origin {
                Some(OriginStatus::Attached { user }) => format!(", attached by user {user}"),
                _ => String::new(),
            };
            self.say(Tone::Plain, &format!("{generation} runs {program}{by}"));
        }
        for generation in &status.generations {
            let id = generation.generation;
            if !generation.failing.is_empty() {
                let failing = generation.failing.join(", ");
                self.say(Tone::Bad, &format!("{id} fails at: {failing}"));
            }
            if let (Some(oldest), "draining" | "emptying") =
                (&generation.oldest, generation.state.as_str())
            {
                let age = spoken::time(oldest.age_ms);
                self.say(Tone::Changing, &format!("{id} waits for {} ({age})", oldest.what));
            }
        }
    }

    fn takeovers(&mut self, status: &Status) {
        if let Some(takeover) = &status.takeover {
            let successor = takeover.successor.map_or_else(String::new, |id| format!(" to {id}"));
            let pending = if takeover.pending { ", another one waits" } else { "" };
            let line = format!("takeover{successor}: {}{pending}", takeover.step);
            self.say(Tone::Changing, &line);
        } else if status.takeover_pending {
            self.say(Tone::Changing, "a takeover waits");
        }
        if let Some(last) = &status.last_takeover {
            let tone = match last.outcome {
                Outcome::Committed => Tone::Plain,
                Outcome::RolledBack => Tone::Bad,
            };
            self.say(tone, &last_takeover(last));
        }
        let next = match &status.next_takeover {
            NextTakeover::Now => "possible now".to_owned(),
            NextTakeover::After { generation, within_ms } => {
                format!("when {generation} is drained, within {}", spoken::time(*within_ms))
            }
            NextTakeover::AfterPause => "when the front is resumed".to_owned(),
            NextTakeover::AfterThisOne => "when this start is over".to_owned(),
            NextTakeover::Never => "never, the front stops".to_owned(),
        };
        self.say(Tone::Plain, &format!("next takeover: {next}"));
    }

    fn complaints(&mut self, status: &Status) {
        if let Some(failure) = &status.last_failure {
            let who = failure.generation.map_or_else(String::new, |id| format!("{id} "));
            let age = spoken::time(failure.age_ms);
            self.say(Tone::Bad, &format!("last failure: {who}{} ({age} ago)", failure.reason));
        }
        if let Some(respawn) = &status.respawn {
            let within = spoken::time(respawn.in_ms);
            self.say(Tone::Bad, &format!("nobody serves; the next start is in {within}"));
        }
        if let Some(attach) = &status.attach {
            if attach.awaits_worker {
                let line = format!("nobody serves; waits for a worker to attach ({})", attach.path);
                self.say(Tone::Bad, &line);
            }
            if !attach.waiting.is_empty() {
                let waiting = attach.waiting.join(", ");
                let line = format!("attached, and waiting for a turn: {waiting}");
                self.say(Tone::Changing, &line);
            }
        }
        if let Some(paused) = &status.paused {
            let (generation, left) = (paused.generation, spoken::time(paused.remaining_ms));
            let line = format!(
                "paused: nobody accepts, {generation} serves what it has open; it accepts again in {left} at the latest"
            );
            self.say(Tone::Changing, &line);
        }
        if let Some(next) = &status.next_standby {
            let within = spoken::time(next.in_ms);
            let line = format!("nobody stands by; the next standby is started in {within}");
            self.say(Tone::Changing, &line);
        }
        if let Some(left) = &status.left_program {
            let age = spoken::time(left.age_ms);
            let line = format!(
                "went back to {}: {} crashed again and again, the last time it {} ({age} ago)",
                left.back_to, left.program, left.reason,
            );
            self.say(Tone::Bad, &line);
        }
        if status.turned_away > 0 {
            let count = status.turned_away;
            let line = format!("{count} connections waited too long for a worker, and were closed");
            self.say(Tone::Bad, &line);
        }
    }

    fn counts(&mut self, status: &Status) {
        let line = format!(
            "takeovers: {} committed, {} rolled back · crashes: {}{}",
            status.takeovers.committed,
            status.takeovers.rolled_back,
            status.crashes,
            reexecs(status.reexecs)
        );
        self.say(Tone::Plain, &line);
    }

    fn events(&mut self, events: &[Happened]) {
        if events.is_empty() {
            return;
        }
        self.lines.push(String::new());
        for event in &events[events.len().saturating_sub(EVENTS)..] {
            let line = format!("{:>7} ago  {}", spoken::short_time(event.age_ms), event.sentence);
            self.say_indented(Tone::of_event(&event.kind), &line, 13);
        }
    }
}

fn table<const N: usize>(header: [&str; N], right: &[usize]) -> Table {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_header(header);
    for (number, column) in table.column_iter_mut().enumerate() {
        // The first one begins where the lines around the table do.
        column.set_padding((if number == 0 { 0 } else { 1 }, 1));
        if right.contains(&number) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    table
}

fn row(generation: &GenerationStatus) -> [String; 9] {
    let count = |n: Option<u64>| n.map_or_else(|| "?".to_owned(), |n| n.to_string());
    [
        generation.generation.to_string(),
        generation.state.clone(),
        spoken::short_time(generation.age_ms),
        count(generation.connections.map(|c| c.http)),
        count(generation.connections.map(|c| c.websocket)),
        count(generation.in_flight),
        generation.resident_bytes.map_or_else(|| "?".to_owned(), spoken::memory),
        if generation.lease { "held" } else { "" }.to_owned(),
        match generation.origin {
            Some(OriginStatus::Attached { .. }) => "–".to_owned(),
            _ => generation.pid.to_string(),
        },
    ]
}

/// Of most fronts nobody wants to know that they were never renewed.
fn reexecs(ReexecCounts { done, failed }: ReexecCounts) -> String {
    match (done, failed) {
        (0, 0) => String::new(),
        (done, 0) => format!(" · re-execs: {done}"),
        (done, failed) => format!(" · re-execs: {done}, and {failed} failed"),
    }
}

fn last_takeover(last: &LastTakeover) -> String {
    let name =
        |id: Option<GenerationId>| id.map_or_else(|| "nobody".to_owned(), |id| id.to_string());
    let mut line = format!("last takeover: {} to {}, ", name(last.incumbent), name(last.successor));
    match (last.outcome, &last.reason) {
        (Outcome::Committed, _) => line.push_str("committed"),
        (Outcome::RolledBack, Some(reason)) => line.push_str(&format!("rolled back: it {reason}")),
        (Outcome::RolledBack, None) => line.push_str("rolled back"),
    }
    for (phase, ms) in phases(last.phases) {
        if let Some(ms) = ms {
            line.push_str(&format!(" · {phase} {}", spoken::time(ms)));
        }
    }
    if let Some(ms) = last.held_ms {
        line.push_str(&format!(" · newcomers held {}", spoken::time(ms)));
    }
    if last.turned_away > 0 {
        line.push_str(&format!(" · turned away {}", last.turned_away));
    }
    for (what, connections) in counts(last) {
        if let Some(connections) = connections {
            line.push_str(&format!(" · {what} {}", connections.total()));
        }
    }
    line.push_str(&sessions_moved(last.sessions.unwrap_or(0)));
    line
}

const fn phases(phases: Phases) -> [(&'static str, Option<u64>); 5] {
    [
        ("ready", phases.ready_ms),
        ("accepting", phases.accepting_ms),
        ("switched", phases.switched_ms),
        ("committed", phases.committed_ms),
        ("drained", phases.drained_ms),
    ]
}

const fn counts(last: &LastTakeover) -> [(&'static str, Option<Connections>); 5] {
    [
        ("moved", last.moved),
        ("finished", last.finished),
        ("closed", last.closed),
        ("cut", last.cut),
        ("lost", last.lost),
    ]
}

/// The text in lines of so many characters, where it has spaces enough for that; all but the first are indented.
fn wrapped(text: &str, width: usize, indent: usize) -> Vec<String> {
    let words = text.trim_start_matches(' ');
    let mut line = " ".repeat(text.len() - words.len());
    let (mut lines, mut is_fresh) = (Vec::new(), true);
    for word in words.split(' ') {
        if !is_fresh && line.chars().count() + 1 + word.chars().count() > width {
            lines.push(std::mem::replace(&mut line, " ".repeat(indent)));
            is_fresh = true;
        }
        if !is_fresh {
            line.push(' ');
        }
        line.push_str(word);
        is_fresh = false;
    }
    lines.push(line);
    lines
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::snapshot::assert_snapshot;

    fn status(text: &str) -> Status {
        serde_json::from_str(text).unwrap()
    }

    fn draining() -> Status {
        status(include_str!("../../../tests/status/draining.json"))
    }

    const WIDE: Page = Page { colour: Colour::None, size: None };
    const NARROW: Page = Page { colour: Colour::None, size: Some((80, 24)) };

    #[test]
    fn a_front_that_drains_is_shown_with_everything_that_is_not_well() {
        assert_snapshot("draining", &drawn(&draining(), WIDE));
    }

    #[test]
    fn eighty_columns_are_enough() {
        let text = drawn(&draining(), NARROW);
        assert_snapshot("draining-80", &text);
        for line in text.lines() {
            assert!(line.chars().count() <= 80, "{} columns: {line}", line.chars().count());
        }
    }

    #[test]
    fn colours_change_nothing_else() {
        let page = Page { colour: Colour::Some, ..NARROW };
        let (text, mut plain) = (drawn(&draining(), page), String::new());
        let mut rest = text.as_str();
        while let Some((before, after)) = rest.split_once('\u{1b}') {
            plain.push_str(before);
            rest = after.split_once('m').unwrap().1;
        }
        plain.push_str(rest);
        assert_eq!(plain, drawn(&draining(), NARROW));
        assert!(text.contains("\u{1b}[32mserving\u{1b}[0m"), "{text}");
    }

    #[test]
    fn a_text_without_spaces_is_left_whole() {
        assert_eq!(wrapped("a bc def", 4, 2), ["a bc", "  def"]);
        assert_eq!(wrapped("abcdefgh ij", 4, 2), ["abcdefgh", "  ij"]);
        assert_eq!(wrapped("  a  b", 80, 2), ["  a  b"]);
        assert_eq!(wrapped("", 80, 2), [""]);
    }
}
