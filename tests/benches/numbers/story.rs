//! What the logs of the front and its workers say of a takeover or a crash, and when: lines of JSON,
//! to the µs.

use std::fs::File;
use std::io::Read as _;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use holdfast_tests::rig::Front;
use serde_json::Value;

/// A day, which time stamps are taken modulo.
const DAY: Duration = Duration::from_hours(24);

/// A moment of the wall clock, as time since midnight (UTC): log lines of a front on this machine
/// compare with each other and with [`Moment::now`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Moment(Duration);

impl Moment {
    pub(crate) fn now() -> Self {
        let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Self(Duration::new(since_epoch.as_secs() % DAY.as_secs(), since_epoch.subsec_nanos()))
    }

    /// How long after `earlier` this is, within a day.
    pub(crate) fn since(self, earlier: Self) -> Duration {
        self.0.checked_sub(earlier.0).unwrap_or_else(|| (self.0 + DAY).saturating_sub(earlier.0))
    }

    /// Reads `2026-01-02T03:04:05.678901Z`.
    fn parse(timestamp: &str) -> Option<Self> {
        let (hours, rest) = timestamp.split_once('T')?.1.strip_suffix('Z')?.split_once(':')?;
        let (minutes, seconds) = rest.split_once(':')?;
        let minutes = hours.parse::<u64>().ok()? * 60 + minutes.parse::<u64>().ok()?;
        Some(Self(Duration::from_secs(minutes * 60) + parse_seconds(seconds)?))
    }
}

fn parse_seconds(word: &str) -> Option<Duration> {
    let (whole, micros) = word.split_once('.')?;
    let whole = Duration::from_secs(whole.parse().ok()?);
    (micros.len() == 6).then_some(whole + Duration::from_micros(micros.parse().ok()?))
}

/// One line of a log.
#[derive(Clone, Debug)]
pub(crate) struct Line {
    pub(crate) at: Moment,
    pub(crate) message: String,
    fields: Value,
}

impl Line {
    fn parse(text: &str) -> Option<Self> {
        // What the front tells people on its stdout is no JSON.
        let fields: Value = serde_json::from_str(text).ok()?;
        let at = Moment::parse(fields["timestamp"].as_str()?)?;
        let message = fields["message"].as_str()?.to_owned();
        Some(Self { at, message, fields })
    }

    /// What a field of it says.
    pub(crate) fn field(&self, name: &str) -> &Value {
        &self.fields[name]
    }
}

/// The file that a front is given as its `--log-file`, in which its workers write.
pub(crate) const WORKERS_LOG: &str = "workers.log";

/// A log, read line by line as it is written.
#[derive(Debug)]
pub(crate) struct Story {
    file: File,
    unread: Vec<u8>,
}

impl Story {
    /// Everything the front writes from here on. Give it a `--log-file`, so that its workers write
    /// elsewhere.
    pub(crate) fn of(front: &Front) -> Self {
        Self::of_file(front, "front.log")
    }

    /// Everything the workers of a front with [`WORKERS_LOG`] write from here on.
    pub(crate) fn of_workers(front: &Front) -> Self {
        Self::of_file(front, WORKERS_LOG)
    }

    fn of_file(front: &Front, name: &str) -> Self {
        let file = File::open(front.directory().join(name)).expect("a running front has its logs");
        let mut story = Self { file, unread: Vec::new() };
        story.read();
        story
    }

    /// The lines that were written since the last call.
    pub(crate) fn read(&mut self) -> Vec<Line> {
        self.file.read_to_end(&mut self.unread).expect("a log can be read");
        let end = self.unread.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
        let whole: Vec<u8> = self.unread.drain(..end).collect();
        String::from_utf8_lossy(&whole).lines().filter_map(Line::parse).collect()
    }
}
