//! The heap that the front's start leaves behind.
//!
//! Reading a command line, or telling somebody everything, takes a few hundred KB for a moment. glibc keeps what is
//! freed of that: it gives back only the heap's end, and only when that is large (mallopt(3), `M_TRIM_THRESHOLD`).
//!
//! **Invariants**
//! - It is asked when something is over, never on a way that anybody waits for.
#![cfg_attr(target_env = "gnu", expect(unsafe_code, reason = "no safe crate has malloc_trim(3)"))]

#[cfg(target_env = "gnu")]
unsafe extern "C" {
    /// malloc_trim(3): it takes a lock of its own, and never a page that is in use.
    safe fn malloc_trim(pad: usize) -> std::ffi::c_int;
}

/// Gives the pages that hold nothing back to the kernel, where the allocator keeps such.
pub(crate) fn give_back() {
    #[cfg(target_env = "gnu")]
    malloc_trim(0);
}
