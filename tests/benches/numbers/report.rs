//! The printed report: the machine, then each number beside its goal.

#![expect(clippy::print_stdout, reason = "the report is what a bench is for")]

use std::fs;
use std::process::Command;

use holdfast_tests::rig::binaries;

use crate::ledger::Promise;

/// How wide the description of a number is.
const WIDTH: usize = 58;

/// Where numbers are printed, as soon as they are known.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Report;

/// A goal, and whether it was reached.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Goal {
    words: &'static str,
    reached: bool,
}

impl Goal {
    /// The goal in words, and whether the number beside it reaches it.
    pub(crate) const fn new(words: &'static str, reached: bool) -> Self {
        Self { words, reached }
    }
}

impl Report {
    /// The machine and the command; builds the binaries if they are not fresh.
    pub(crate) fn begin(self, words: &[String]) {
        println!("Building the binaries, unless they are fresh.");
        let holdfast = binaries::holdfast();
        let profile = holdfast.parent().and_then(|directory| directory.file_name());
        let profile = profile.map_or_else(String::new, |name| name.to_string_lossy().into_owned());
        let version = Command::new(&holdfast).arg("--version").output();
        let version = version.map(|output| output.stdout).unwrap_or_default();
        let chosen: String = words.iter().map(|word| format!(" {word}")).collect();
        let separator = if chosen.is_empty() { "" } else { " --" };
        println!();
        println!("The numbers of {} ({profile})", String::from_utf8_lossy(&version).trim());
        println!();
        println!("  command   cargo bench -p holdfast-tests{separator}{chosen}");
        println!("  machine   {} cores, {}", cores(), processor());
        println!("  kernel    {}", read("/proc/sys/kernel/osrelease"));
        println!("  load      {} when it began", load());
    }

    /// A new group of numbers, and under which conditions they were taken.
    pub(crate) fn heading(self, title: &str, conditions: &str) {
        println!();
        println!("{title}");
        for line in wrapped(conditions) {
            println!("  {line}");
        }
        println!();
    }

    /// A line of text; an empty one is empty.
    pub(crate) fn note(self, line: &str) {
        println!("{}", format!("  {line}").trim_end());
    }

    /// A number that explains another one.
    pub(crate) fn figure(self, what: &str, result: &str) {
        println!("  {what:<WIDTH$} {result}");
    }

    /// A number beside its goal.
    pub(crate) fn figure_with_goal(self, what: &str, result: &str, goal: Goal) {
        let verdict = if goal.reached { "reached" } else { "MISSED" };
        println!("  {what:<WIDTH$} {result:<24} goal {:<18} {verdict}", goal.words);
    }

    /// Whether everything that was promised an answer got one.
    pub(crate) fn end(self, promise: Promise) {
        println!();
        println!("  load      {} when it ended", load());
        println!(
            "  {}",
            match promise {
                Promise::Kept => "no request was lost that was promised an answer",
                Promise::Broken => "REQUESTS WERE LOST that were promised an answer",
            }
        );
    }
}

fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, std::num::NonZero::get)
}

fn processor() -> String {
    let text = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = text.lines().find_map(|line| line.strip_prefix("model name")?.split_once(':'));
    model.map_or_else(|| "unnamed processor".to_owned(), |(_, name)| name.trim().to_owned())
}

/// The load averages of the last 1, 5 and 15 minutes: a number above 0 is somebody else's work.
fn load() -> String {
    let text = read("/proc/loadavg");
    text.split(' ').take(3).collect::<Vec<_>>().join(" ")
}

fn read(path: &str) -> String {
    fs::read_to_string(path).unwrap_or_default().trim().to_owned()
}

/// The text in lines of a readable length.
fn wrapped(text: &str) -> Vec<String> {
    const LENGTH: usize = 96;
    let mut lines: Vec<String> = Vec::new();
    for word in text.split_whitespace() {
        match lines.last_mut() {
            Some(line) if line.len() + word.len() < LENGTH => {
                line.push(' ');
                line.push_str(word);
            }
            _ => lines.push(word.to_owned()),
        }
    }
    lines
}
