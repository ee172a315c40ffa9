//! What decoders of other people's words are fed with: entries of the corpus with a few things changed.
//!
//! `tests/corpus/{frames,connect,config}/` has what clients and operators really write; an entry is added when a
//! decoder has stumbled, and none is removed. `PROPTEST_CASES` says how many times; `just fuzz` says many.

#[path = "../../shared/src/migrate/fuzzed/mutation.rs"]
mod mutation;

use std::path::PathBuf;

use proptest::prelude::{ProptestConfig, Strategy};

use self::mutation::{mutated, mutations};

/// The entries of this kind.
pub(crate) fn corpus(of: &str) -> Vec<Vec<u8>> {
    let directory: PathBuf = [env!("CARGO_MANIFEST_DIR"), "tests", "corpus", of].iter().collect();
    let mut paths: Vec<_> =
        std::fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    assert!(!paths.is_empty(), "there is nothing to begin with");
    paths.into_iter().map(|path| std::fs::read(path).unwrap()).collect()
}

/// What is nearly an entry of this kind, as text.
pub(crate) fn nearly(of: &str) -> impl Strategy<Value = String> + use<> {
    let corpus = corpus(of);
    mutations().prop_map(move |(entry, mutations)| {
        String::from_utf8_lossy(&mutated(&corpus, entry, &mutations)).into_owned()
    })
}

/// Four cases where others have one.
pub(crate) fn config() -> ProptestConfig {
    let default = ProptestConfig::default();
    ProptestConfig { cases: default.cases * 4, failure_persistence: None, ..default }
}
