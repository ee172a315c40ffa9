//! Texts that tests compare with what was drawn before: `tests/status/*.txt`.
//!
//! `UPDATE_SNAPSHOTS=1` writes them anew.

/// Fails when the text is not the one that is kept under this name.
#[track_caller]
pub(crate) fn assert_snapshot(name: &str, text: &str) {
    let path = format!("{}/tests/status/{name}.txt", env!("CARGO_MANIFEST_DIR"));
    if std::env::var_os("UPDATE_SNAPSHOTS").is_some() {
        std::fs::write(&path, text).unwrap();
    }
    let expected = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(expected == text, "{path} is:\n{expected}\nand this was drawn:\n{text}");
}
