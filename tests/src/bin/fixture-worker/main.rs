//! A worker that misbehaves in whichever way its arguments say.
//!
//! It speaks the link by hand, so that it can break every rule of it, and serves just enough
//! HTTP/1.1 to say which generation it is. `script.rs` lists what it can be told.

mod bodily;
mod hostile;
mod library;
mod lifecycle;
mod script;
mod serve;

use std::process::ExitCode;

use script::Script;

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    handoff::signals::unblock_all();
    let words: Vec<String> = std::env::args().skip(1).collect();
    if let [word] = &words[..]
        && let Some(file) = word.strip_prefix("library:")
    {
        return library::run(file.as_ref()).await;
    }
    lifecycle::run(Script::read(&words)).await
}
