//! Every decoder of the front's that reads other processes' words, fed with what nearly is one of them: requests on
//! the control socket, and the state that an earlier image leaves. Links are read by `handoff`, and fuzzed there.
//!
//! The corpus holds what was really written, by this version and by earlier ones: `tests/corpus/control/` and the
//! suite's fixtures of states. `PROPTEST_CASES` says how many times; `just fuzz` says many.
//!
//! **Invariants**
//! - No decoder panics, whatever the bytes, and what it has read it writes and reads again.

#[path = "../../shared/src/migrate/fuzzed/mutation.rs"]
mod mutation;

use std::path::PathBuf;

use proptest::collection::vec;
use proptest::prelude::{ProptestConfig, any, prop_assert_eq, proptest};

use self::mutation::{mutated, mutations};
use crate::control::protocol::{Answer, Request, VERSION};
use crate::control::understood::understood;
use crate::reexec::state::State;

/// How many cases there are for each of proptest's.
const TIMES: u32 = 4;

fn config() -> ProptestConfig {
    let default = ProptestConfig::default();
    ProptestConfig { cases: default.cases * TIMES, failure_persistence: None, ..default }
}

fn corpus(of: &str) -> Vec<Vec<u8>> {
    let directory: PathBuf = [env!("CARGO_MANIFEST_DIR"), of].iter().collect();
    let mut paths: Vec<_> =
        std::fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    assert!(!paths.is_empty(), "there is nothing to begin with");
    paths.into_iter().map(|path| std::fs::read(path).unwrap()).collect()
}

fn requests() -> Vec<Vec<u8>> {
    corpus("tests/corpus/control")
}

fn states() -> Vec<Vec<u8>> {
    corpus("../tests/fixtures/reexec")
}

fn asked(line: &[u8]) {
    if let Ok(command) = understood(line) {
        let request = Request { version: VERSION, command };
        let again = serde_json::to_vec(&request).unwrap();
        assert_eq!(understood(&again), Ok(request.command));
    }
    // What the command line reads of a front that is not what it seems.
    let _ = serde_json::from_slice::<Answer>(line);
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn no_request_makes_the_front_panic((entry, mutations) in mutations()) {
        asked(&mutated(&requests(), entry, &mutations));
    }

    #[test]
    fn no_bytes_make_the_front_panic(line in vec(any::<u8>(), 0..200)) {
        asked(&line);
    }

    #[test]
    fn no_state_makes_an_image_panic((entry, mutations) in mutations()) {
        if let Ok(state) = State::from_json(&mutated(&states(), entry, &mutations)) {
            // Moments are written as how long ago they were, so no two writings are the same.
            let again = State::from_json(&state.to_json().unwrap()).unwrap();
            prop_assert_eq!(again.descriptors(), state.descriptors());
        }
    }
}

#[test]
fn every_request_that_was_ever_written_is_read() {
    for line in requests() {
        let read = understood(&line);
        let later = line.starts_with(br#"{"version":2"#);
        assert_eq!(read.is_err(), later, "{read:?}");
    }
}
