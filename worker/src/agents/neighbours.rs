//! What two generations of this worker say to one another about runs and jobs, over the migration link.
//!
//! **Invariants**
//! - A word this version does not know is skipped: the generation beside may be a newer one.

use handoff::migrate::{Neighbour, Post};
use serde::{Deserialize, Serialize};

use super::ending::Ending;

/// One word.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "kebab-case")]
pub(super) enum Word {
    /// A run waits here for the lane of this session.
    LaneWanted { session: String },
    /// The lane of this session is yours.
    LaneReleased { session: String },
    /// End the runs of this session, or this one of them, and say which those were.
    AbortRun {
        ask: u64,
        session: String,
        run: Option<String>,
        /// Those before these words said nothing of it.
        #[serde(default)]
        ending: Ending,
    },
    /// These were ended.
    RunsAborted { ask: u64, runs: Vec<String> },
    /// Scheduled jobs have changed: whoever holds the writer lease looks at them.
    JobsChanged,
    /// This run has ended, and what came of it is written down. One that does not know the word looks now and then.
    RunEnded { run: String },
}

impl Word {
    pub(super) fn written(&self) -> String {
        crate::frames::written(self)
    }

    pub(super) fn read(text: &str) -> Option<Self> {
        serde_json::from_str(text).ok()
    }
}

/// Tells whoever is beside that scheduled jobs have changed.
pub(crate) fn tell_of_jobs(post: &Post) {
    tell(post, &Word::JobsChanged);
}

/// Tells whoever is beside that a run has ended here.
pub(super) fn tell_of_end(post: &Post, run: &str) {
    tell(post, &Word::RunEnded { run: run.to_owned() });
}

fn tell(post: &Post, word: &Word) {
    for neighbour in [Neighbour::Incumbent, Neighbour::Successor] {
        // Nobody needs to be there.
        post.tell(neighbour, &word.written());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_read_as_they_were_written_and_unknown_ones_are_skipped() {
        for word in [
            Word::LaneWanted { session: "agent:main:main".into() },
            Word::LaneReleased { session: "agent:main:main".into() },
            Word::AbortRun {
                ask: 1,
                session: "s".into(),
                run: Some("r".into()),
                ending: Ending::LaneCleared,
            },
            Word::RunsAborted { ask: 1, runs: vec!["r".into()] },
            Word::JobsChanged,
            Word::RunEnded { run: "r".into() },
        ] {
            assert_eq!(Word::read(&word.written()), Some(word));
        }
        let older = r#"{"type":"abort-run","ask":1,"session":"s","run":null}"#;
        let ending = Ending::Aborted;
        let read = Word::AbortRun { ask: 1, session: "s".into(), run: None, ending };
        assert_eq!(Word::read(older), Some(read));
        assert_eq!(Word::read(r#"{"type":"dance"}"#), None);
        let newer = r#"{"type":"lane-wanted","session":"s","colour":"green"}"#;
        assert_eq!(Word::read(newer), Some(Word::LaneWanted { session: "s".into() }));
    }
}
