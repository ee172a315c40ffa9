//! What a worker says of itself, before the front keeps it, shows it or counts with it.
//!
//! **Invariants**
//! - Nothing that a worker says is kept in more bytes than somebody would read.
//! - Nothing that it says moves the cursor of a terminal it is shown on.
//! - A number that it says is believed only where the kernel has nothing to say.

use handoff::message::{OldestWork, Ready, Report};
use nix::unistd::Pid;

/// The most characters of half a sentence for the operator.
const MOST_CHARACTERS: usize = 500;
/// The most characters of a name: of a condition, of a piece of work.
const MOST_OF_A_NAME: usize = 100;
/// The most conditions, or lines of a greeting.
const MOST_LINES: usize = 16;
/// Descriptors a successor needs beside one for each of the incumbent's connections.
const SPARE_DESCRIPTORS: u64 = 300;

/// Half a sentence for the operator.
pub(crate) fn sentence(said: &str) -> String {
    shown(said, MOST_CHARACTERS)
}

/// What it is called.
pub(crate) fn name(said: &str) -> String {
    shown(said, MOST_OF_A_NAME)
}

/// What it fails at, in a size that fits a log line.
pub(crate) fn conditions(said: &[String]) -> Vec<String> {
    said.iter().take(MOST_LINES).map(|name| shown(name, MOST_OF_A_NAME)).collect()
}

/// The lines for an operator who starts it for the first time.
pub(crate) fn greeting(said: &Ready) -> Vec<String> {
    said.greeting.iter().take(MOST_LINES).map(|line| shown(line, MOST_CHARACTERS)).collect()
}

/// How it is.
pub(crate) fn report(said: Report) -> Report {
    let short = |work: OldestWork| OldestWork { what: shown(&work.what, MOST_OF_A_NAME), ..work };
    Report { oldest: said.oldest.map(short), ..said }
}

/// How many descriptors a successor needs, unless those it has free will do: one for each connection that the
/// incumbent says it holds, or could hold.
pub(crate) fn needs_more_than(free: u64, held: u64, incumbent: Option<Pid>) -> Option<u64> {
    let needed = |held: u64| held.saturating_add(SPARE_DESCRIPTORS);
    if needed(held) <= free {
        return None;
    }
    // It holds no more connections than it has descriptors.
    let listed = |pid: Pid| std::fs::read_dir(format!("/proc/{pid}/fd")).map(Iterator::count).ok();
    let needed = needed(incumbent.and_then(listed).map_or(held, |open| held.min(open as u64)));
    (free < needed).then_some(needed)
}

fn shown(said: &str, most: usize) -> String {
    let plain = |c: char| if c.is_control() { char::REPLACEMENT_CHARACTER } else { c };
    said.chars().take(most).map(plain).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_would_move_a_cursor_is_shown_as_something_else_and_the_rest_as_it_is() {
        let said = "\u{1b}[2Jall\r\nis well\u{9b}2J \u{7}ünd gut";
        assert_eq!(
            sentence(said),
            "\u{fffd}[2Jall\u{fffd}\u{fffd}is well\u{fffd}2J \u{fffd}ünd gut"
        );
    }

    #[test]
    fn nothing_is_kept_longer_than_it_is_read() {
        let long = "ä".repeat(100_000);
        let many = vec![long.clone(); 50];
        assert_eq!(sentence(&long).chars().count(), MOST_CHARACTERS);
        assert_eq!(conditions(&many).len(), MOST_LINES);
        assert!(conditions(&many).iter().all(|name| name.chars().count() == MOST_OF_A_NAME));
        let ready = Ready { greeting: many, ..Ready::default() };
        assert_eq!(greeting(&ready).iter().map(String::len).sum::<usize>(), 16 * 500 * 2);
        let oldest = Some(OldestWork { what: long, age_ms: u64::MAX });
        let report = report(Report { oldest, ..Report::default() });
        assert_eq!(report.oldest.unwrap().what.chars().count(), MOST_OF_A_NAME);
    }

    #[test]
    fn a_successor_needs_room_for_what_the_incumbent_holds_and_not_for_what_it_says() {
        let own = Some(Pid::this());
        let open = std::fs::read_dir("/proc/self/fd").unwrap().count() as u64;
        assert_eq!(needs_more_than(1_000, 700, own), None);
        assert_eq!(needs_more_than(open + 10_000, u64::MAX, own), None);
        let needed = needs_more_than(200, 5, own).unwrap();
        assert!((300..=305).contains(&needed), "{needed}");
        // Nobody of that pid: its word is all there is.
        assert_eq!(needs_more_than(200, u64::MAX, Some(Pid::from_raw(i32::MAX))), Some(u64::MAX));
    }
}
