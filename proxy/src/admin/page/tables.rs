//! What the page says in words and numbers.

use std::fmt::Write as _;

use handoff::GenerationId;
use handoff::message::Connections;

use super::html::{escaped, size, spoken};
use super::picture;
use crate::control::document::{GenerationStatus, LastTakeover, Status};
use crate::control::protocol::Outcome;

/// How many takeovers are shown, and how many events: the last ones.
const MOST_TAKEOVERS: usize = 10;
const MOST_EVENTS: usize = 20;

/// The numbers that are looked at first.
pub(super) fn numbers(status: &Status) -> String {
    let all = |of: fn(Connections) -> u64| -> u64 {
        status.generations.iter().filter_map(|generation| generation.connections).map(of).sum()
    };
    let in_flight: u64 =
        status.generations.iter().filter_map(|generation| generation.in_flight).sum();
    let memory: u64 =
        status.generations.iter().filter_map(|generation| generation.resident_bytes).sum();
    let mut list = "<dl class=\"numbers\">".to_owned();
    for (name, value) in [
        ("HTTP connections", all(|open| open.http).to_string()),
        ("WebSockets", all(|open| open.websocket).to_string()),
        ("in flight", in_flight.to_string()),
        ("takeovers", status.takeovers.committed.to_string()),
        ("rolled back", status.takeovers.rolled_back.to_string()),
        ("crashes", status.crashes.to_string()),
        ("turned away", status.turned_away.to_string()),
        ("re-execs", status.reexecs.done.to_string()),
        ("front's memory", size(status.front.resident_bytes)),
        ("workers' memory", size(memory)),
    ] {
        let _ = write!(list, "<div><dt>{name}</dt><dd>{value}</dd></div>");
    }
    list.push_str("</dl>");
    list
}

/// Every generation that lives.
pub(super) fn generations(status: &Status) -> String {
    let heads =
        ["", "state", "age", "HTTP", "WebSockets", "in flight", "memory", "lease", "program"];
    let mut table = opened(&heads);
    for generation in &status.generations {
        row(&mut table, &cells(generation));
    }
    table.push_str("</tbody></table></div>");
    for generation in &status.generations {
        let id = generation.generation;
        if !generation.failing.is_empty() {
            let conditions = generation.failing.join(", ");
            let _ = write!(table, "<p class=\"note\">{id} fails at: {}</p>", escaped(&conditions));
        }
        if let (Some(oldest), "draining" | "emptying") =
            (&generation.oldest, generation.state.as_str())
        {
            let (what, age) = (escaped(&oldest.what), spoken(oldest.age_ms));
            let _ = write!(table, "<p class=\"note\">{id} waits for {what} ({age})</p>");
        }
    }
    table
}

fn cells(generation: &GenerationStatus) -> [String; 9] {
    let count =
        |number: Option<u64>| number.map_or_else(|| "?".to_owned(), |number| number.to_string());
    [
        generation.generation.to_string(),
        format!("<span class=\"state\">{}</span>", escaped(&generation.state)),
        spoken(generation.age_ms),
        count(generation.connections.map(|open| open.http)),
        count(generation.connections.map(|open| open.websocket)),
        count(generation.in_flight),
        generation.resident_bytes.map_or_else(|| "?".to_owned(), size),
        if generation.lease { "held" } else { "" }.to_owned(),
        format!("<code>{}</code>", escaped(&generation.program)),
    ]
}

/// The last takeovers, the last one first.
pub(super) fn takeovers(status: &Status) -> String {
    let of_a_former_front = status.recent_takeovers.is_empty();
    let last = status.last_takeover.iter().filter(|_| of_a_former_front);
    let recent: Vec<_> =
        status.recent_takeovers.iter().chain(last).rev().take(MOST_TAKEOVERS).collect();
    if recent.is_empty() {
        return "<p>None yet: <code>holdfast takeover</code> replaces the worker.</p>".to_owned();
    }
    let mut table = opened(&["", "ended as", "began", "phases", "connections"]);
    for takeover in recent {
        row(&mut table, &takeover_cells(takeover));
    }
    table.push_str("</tbody></table></div>");
    table
}

fn takeover_cells(takeover: &LastTakeover) -> [String; 5] {
    let name =
        |id: Option<GenerationId>| id.map_or_else(|| "nobody".to_owned(), |id| id.to_string());
    let outcome = match (takeover.outcome, &takeover.reason) {
        (Outcome::Committed, _) => "<span class=\"good\">committed</span>".to_owned(),
        (Outcome::RolledBack, None) => "<span class=\"warn\">rolled back</span>".to_owned(),
        (Outcome::RolledBack, Some(reason)) => {
            format!("<span class=\"warn\">rolled back</span>: it {}", escaped(reason))
        }
    };
    let phases: Vec<_> = picture::named(&takeover.phases)
        .into_iter()
        .map(|(word, ms)| format!("<span class=\"phase {word}\">{word} {}</span>", spoken(ms)))
        .collect();
    let became: Vec<_> = [
        ("moved", takeover.moved),
        ("finished", takeover.finished),
        ("closed", takeover.closed),
        ("cut", takeover.cut),
        ("lost", takeover.lost),
    ]
    .into_iter()
    .filter_map(|(what, connections)| Some((what, connections?.total())))
    .filter(|(what, count)| *count > 0 || *what == "moved" || *what == "cut")
    .map(|(what, count)| format!("<span class=\"whole\">{what} {count}</span>"))
    .collect();
    [
        format!("{} → {}", name(takeover.incumbent), name(takeover.successor)),
        outcome,
        format!("<span class=\"whole\">{} ago</span>", spoken(takeover.age_ms)),
        format!("{}{}", picture::phases(&takeover.phases), phases.join(" ")),
        became.join(" "),
    ]
}

/// What happened, the last first.
pub(super) fn events(status: &Status) -> String {
    let mut list = "<ol class=\"events\">".to_owned();
    for event in status.events.iter().rev().take(MOST_EVENTS) {
        let (sentence, age) = (escaped(&event.sentence), spoken(event.age_ms));
        let _ = write!(list, "<li><span class=\"age\">{age} ago</span> {sentence}</li>");
    }
    list.push_str("</ol>");
    list
}

/// The front itself.
pub(super) fn front(status: &Status) -> String {
    let front = &status.front;
    let addresses: Vec<_> =
        status.listeners.iter().map(|listener| listener.address.as_str()).collect();
    format!(
        "<p>front {} · pid {} · up {} · listens on {}</p>",
        escaped(&front.version),
        front.pid,
        spoken(front.uptime_ms),
        escaped(&addresses.join(", "))
    )
}

fn opened(heads: &[&str]) -> String {
    let mut table = "<div class=\"wide\"><table><thead><tr>".to_owned();
    for head in heads {
        let _ = match *head {
            "" => write!(table, "<td></td>"),
            head => write!(table, "<th scope=\"col\">{head}</th>"),
        };
    }
    table.push_str("</tr></thead><tbody>");
    table
}

fn row(table: &mut String, cells: &[String]) {
    table.push_str("<tr>");
    for (at, cell) in cells.iter().enumerate() {
        let _ = match at {
            0 => write!(table, "<th scope=\"row\">{cell}</th>"),
            _ => write!(table, "<td>{cell}</td>"),
        };
    }
    table.push_str("</tr>");
}
