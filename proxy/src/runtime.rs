//! The event loop of one thread that every `holdfast` runs on.

use std::io;

use tokio::runtime::{Builder, LocalOptions, LocalRuntime};

/// A local one: another kind would bring the scheduler of many threads along, and libm for that.
pub(crate) fn build() -> io::Result<LocalRuntime> {
    Builder::new_current_thread().enable_all().build_local(LocalOptions::default())
}
