//! The status page: one document, of which what changes is sent again.
//!
//! ```text
//! Status ──► sections (verdict, picture, numbers, tables) ──► document.rs's frame      GET /
//!                            └── those that have changed ──► page.js puts them in      GET /events
//! ```
//!
//! **Invariants**
//! - The same words make the first page and its later states: without a script the page is whole, and loaded again.
//! - Whatever a worker or an operator has said is text: nothing of it is ever markup.

mod html;
mod life;
mod picture;
mod tables;

use super::look::Seen;
use crate::control::document::Status;
use crate::control::protocol::Outcome;
use html::{escaped, spoken};

/// How it looks.
pub(super) const STYLE: &str = include_str!("page.css");
/// What puts news into its place.
pub(super) const SCRIPT: &str = include_str!("page.js");

/// A part of the page: its `id`, and what it holds.
pub(super) type Section = (&'static str, String);

/// Every part that changes. Of a front that does not answer that is only what to say about it.
pub(super) fn sections(look: &Result<Seen, String>) -> Vec<Section> {
    let status = match look {
        Ok(seen) => &seen.status,
        Err(why) => {
            let words = format!("The front does not answer: {why}. Workers that live serve on.");
            return vec![("verdict", verdict_of(Tone::Gone, &words))];
        }
    };
    let (tone, words) = verdict(status);
    vec![
        ("verdict", verdict_of(tone, &words)),
        ("picture", picture::timeline(&life::lives(status))),
        ("numbers", tables::numbers(status)),
        ("generations", tables::generations(status)),
        ("takeovers", tables::takeovers(status)),
        ("events", tables::events(status)),
        ("front", tables::front(status)),
    ]
}

/// The whole page.
pub(super) fn document(look: &Result<Seen, String>) -> String {
    let sections = sections(look);
    let part = |id: &str| {
        sections.iter().find(|(name, _)| *name == id).map_or("", |(_, content)| content.as_str())
    };
    let section = |id: &str, heading: &str| {
        format!(
            "<section aria-labelledby=\"{id}-heading\"><h2 id=\"{id}-heading\">{heading}</h2>\
             <div id=\"{id}\">{}</div></section>\n",
            part(id)
        )
    };
    let mut page = String::from(HEAD);
    page.push_str(&format!(
        "<body>\n<header><h1>Holdfast</h1>\
         <div id=\"verdict\" role=\"status\">{}</div><p id=\"feed\" role=\"status\"></p></header>\n<main>\n",
        part("verdict")
    ));
    page.push_str(&section("picture", "Generations over time"));
    page.push_str(&section("numbers", "Now"));
    page.push_str(&section("generations", "Generations"));
    page.push_str(&section("takeovers", "Last takeovers"));
    page.push_str(&section("events", "What happened"));
    page.push_str(&format!(
        "</main>\n<footer><div id=\"front\">{}</div><p><a href=\"status.json\">status.json</a> · \
         <a href=\"metrics\">metrics</a></p></footer>\n</body>\n</html>\n",
        part("front")
    ));
    page
}

/// Without a script it is loaded again by itself.
const HEAD: &str = "<!doctype html>
<html lang=\"en\">
<head>
<meta charset=\"utf-8\">
<title>Holdfast</title>
<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">
<meta name=\"color-scheme\" content=\"light dark\">
<link rel=\"icon\" href=\"data:,\">
<link rel=\"stylesheet\" href=\"page.css\">
<script src=\"page.js\" defer></script>
<noscript><meta http-equiv=\"refresh\" content=\"5\"></noscript>
</head>
";

/// How well it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Tone {
    Good,
    Busy,
    Warn,
    Bad,
    Gone,
}

impl Tone {
    const fn class(self) -> &'static str {
        match self {
            Self::Good => "good",
            Self::Busy => "busy",
            Self::Warn => "warn",
            Self::Bad => "bad",
            Self::Gone => "bad gone",
        }
    }
}

fn verdict_of(tone: Tone, words: &str) -> String {
    format!("<p class=\"{}\">{}</p>", tone.class(), escaped(words))
}

/// The one sentence that somebody looks for who has no time.
fn verdict(status: &Status) -> (Tone, String) {
    if status.stopping {
        return (Tone::Warn, "The front is stopping.".to_owned());
    }
    if let Some(paused) = &status.paused {
        let (who, left) = (paused.generation, spoken(paused.remaining_ms));
        let words = format!(
            "Paused: nobody accepts, and {who} serves what it has open. It ends in {left} at the latest."
        );
        return (Tone::Warn, words);
    }
    if let Some(takeover) = &status.takeover {
        let name = |id: Option<handoff::GenerationId>| {
            id.map_or_else(|| "nobody".to_owned(), |id| id.to_string())
        };
        let (from, to) = (name(takeover.incumbent), name(takeover.successor));
        return (
            Tone::Busy,
            format!("A takeover is on its way, from {from} to {to}: {}.", takeover.step),
        );
    }
    let Some(serving) = status.generations.iter().find(|generation| generation.state == "serving")
    else {
        let next = status.respawn.map_or_else(
            || "The next worker is being started.".to_owned(),
            |respawn| format!("The next start is in {}.", spoken(respawn.in_ms)),
        );
        return (Tone::Bad, format!("Nobody serves. {next}"));
    };
    let id = serving.generation;
    if !serving.failing.is_empty() {
        return (Tone::Warn, format!("{id} serves, and fails at: {}.", serving.failing.join(", ")));
    }
    if let Some(left) = &status.left_program {
        let words = format!(
            "{id} serves: back to {}, for {} crashed again and again.",
            left.back_to, left.program
        );
        return (Tone::Warn, words);
    }
    let rolled_back =
        status.last_takeover.as_ref().filter(|last| last.outcome == Outcome::RolledBack);
    if let Some(reason) = rolled_back.and_then(|last| last.reason.as_ref()) {
        return (
            Tone::Warn,
            format!("{id} serves. The last takeover was rolled back: it {reason}."),
        );
    }
    let draining: Vec<_> =
        status.generations.iter().filter(|generation| generation.state == "draining").collect();
    match draining.first() {
        Some(drains) => (
            Tone::Good,
            format!("{id} serves, and {} finishes what it has open.", drains.generation),
        ),
        None => (Tone::Good, format!("{id} serves.")),
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::admin::look::Seen;
    use crate::tally::Tally;

    /// A front whose g1 serves.
    pub(in crate::admin) fn status() -> Status {
        serde_json::from_str(
            r#"{"schema":1,"front":{"pid":1,"version":"0.1.0 (abc)","uptime_ms":9000,"resident_bytes":3000000,
            "descriptors":9},"listeners":[{"address":"127.0.0.1:1","shard":0,"inode":1}],"generations":[
            {"generation":"g1","state":"serving","pid":2,"age_ms":8000,"program":"/bin/worker","lease":true,
            "failing":[],"connections":{"http":1,"websocket":2},"in_flight":1,"oldest":null}],"takeover":null,
            "last_takeover":null,"last_failure":null,"next_takeover":{"possible":"now"},"respawn":null,
            "stopping":false,"takeovers":{"committed":0,"rolled_back":0},"crashes":0}"#,
        )
        .unwrap()
    }

    pub(in crate::admin) fn seen(status: Status) -> Result<Seen, String> {
        Ok(Seen { status, tally: Some(Tally::default()) })
    }

    #[test]
    fn the_page_has_every_section_whether_or_not_somebody_follows_it() {
        let look = seen(status());
        let page = document(&look);
        for (id, content) in sections(&look) {
            assert!(page.contains(&format!("id=\"{id}\"")), "no place for {id}");
            assert!(!content.is_empty() && page.contains(&content), "{id}: {content}");
        }
    }

    #[test]
    fn nothing_in_the_page_is_a_script_or_a_style_of_its_own() {
        let page = document(&seen(status()));
        assert_eq!(page.matches("<script").count(), 1);
        for forbidden in
            ["<style", "style=", "onload=", "onclick=", "javascript:", "http://", "https://"]
        {
            assert!(!page.contains(forbidden), "{forbidden} in {page}");
        }
    }

    #[test]
    fn whatever_a_worker_says_is_text() {
        let evil = "<img src=x onerror=alert(1)>\"'&";
        let mut status = status();
        status.generations[0].program = evil.to_owned();
        status.generations[0].state = evil.to_owned();
        status.generations[0].failing = vec![evil.to_owned()];
        status.generations[0].oldest =
            Some(handoff::message::OldestWork { what: evil.to_owned(), age_ms: 1 });
        status.listeners[0].address = evil.to_owned();
        status.front.version = evil.to_owned();
        status.events = vec![crate::control::document::Happened {
            age_ms: 1,
            kind: evil.to_owned(),
            generation: None,
            sentence: evil.to_owned(),
        }];
        let last = r#"{"successor":"g2","incumbent":"g1","outcome":"rolled-back","reason":"REASON",
            "phases":{},"finished":null,"closed":null,"cut":null}"#;
        let mut last: crate::control::document::LastTakeover = serde_json::from_str(last).unwrap();
        last.reason = Some(evil.to_owned());
        status.recent_takeovers = vec![last.clone()];
        status.last_takeover = Some(last);
        let page = document(&seen(status));
        assert!(!page.contains("<img"), "{page}");
        assert!(page.contains("&lt;img"), "it is not shown");
        let gone = document(&Err(evil.to_owned()));
        assert!(!gone.contains("<img") && gone.contains("does not answer"), "{gone}");
    }

    #[test]
    fn the_first_sentence_says_how_it_is() {
        let says = |change: fn(&mut Status)| {
            let mut status = status();
            change(&mut status);
            verdict(&status)
        };
        assert_eq!(says(|_| {}), (Tone::Good, "g1 serves.".to_owned()));
        assert_eq!(says(|s| s.stopping = true).0, Tone::Warn);
        assert_eq!(says(|s| s.generations[0].failing = vec!["store".into()]).0, Tone::Warn);
        let (tone, words) = says(|s| {
            s.generations.clear();
            s.respawn = Some(crate::control::document::Respawn { in_ms: 4000 });
        });
        assert_eq!(
            (tone, words.as_str()),
            (Tone::Bad, "Nobody serves. The next start is in 4.0 s.")
        );
    }
}
