//! The memory that the front's start, or a takeover, leaves behind: heap that holds nothing, and code that nobody runs.
//!
//! Reading a command line, or telling somebody everything, takes a few hundred KB for a moment. glibc keeps what is
//! freed of that: it gives back only the heap's end, and only when that is large (mallopt(3), `M_TRIM_THRESHOLD`). The
//! kernel keeps code mapped that was run once, with up to 64 KiB around each page of it; what is run again is mapped
//! again from the page cache, without a read.
//!
//! **Invariants**
//! - It is asked when something is over, never on a way that anybody waits for.
//! - Only mappings that are executable and cannot be written are let go of: their pages are the file's.
#![expect(unsafe_code, reason = "no safe crate has malloc_trim(3), nor madvise(2)")]

use std::ffi::c_void;
use std::fs;

use rustix::mm::{Advice, madvise};

#[cfg(target_env = "gnu")]
unsafe extern "C" {
    /// malloc_trim(3): it takes a lock of its own, and never a page that is in use.
    safe fn malloc_trim(pad: usize) -> std::ffi::c_int;
}

/// Gives back the pages that hold nothing, where the allocator keeps such, and those of code.
pub(crate) fn give_back() {
    #[cfg(target_env = "gnu")]
    malloc_trim(0);
    // Without a list nothing is let go of.
    let maps = fs::read_to_string("/proc/self/maps").unwrap_or_default();
    for (start, length) in maps.lines().filter_map(code) {
        let start = std::ptr::with_exposed_provenance_mut::<c_void>(start);
        // SAFETY: the mapping is a file's, private and not writable, so whatever is read there next is what was there:
        // the kernel maps the file's page again (madvise(2), MADV_DONTNEED).
        let let_go = unsafe { madvise(start, length, Advice::LinuxDontNeed) };
        // Locked pages stay, and nothing else can be wrong with a mapping that is there.
        let _ = let_go;
    }
}

/// Where code of a file is mapped, from a line of proc_pid_maps(5): `start-end r-xp offset device inode path`.
fn code(line: &str) -> Option<(usize, usize)> {
    let mut fields = line.split_whitespace();
    let (start, end) = fields.next()?.split_once('-')?;
    if fields.next()? != "r-xp" || fields.nth(2)? == "0" {
        return None;
    }
    let number = |digits| usize::from_str_radix(digits, 16).ok();
    let (start, end) = (number(start)?, number(end)?);
    Some((start, end.checked_sub(start)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_code_of_files_is_let_go_of() {
        let line =
            |rights, inode| format!("1000-3000 {rights} 00001000 fe:00 {inode}    /usr/bin/x");
        assert_eq!(code(&line("r-xp", 7)), Some((0x1000, 0x2000)));
        for (rights, inode) in [("r--p", 7), ("rw-p", 7), ("rwxp", 7), ("r-xs", 7), ("r-xp", 0)] {
            assert_eq!(code(&line(rights, inode)), None, "{rights} {inode}");
        }
        assert_eq!(code(""), None);
    }

    #[test]
    fn what_was_given_back_is_there_when_it_is_needed() {
        let before: Vec<String> = (0..100).map(|n| format!("{n:x}")).collect();
        give_back();
        assert_eq!(before, (0..100).map(|n| format!("{n:x}")).collect::<Vec<_>>());
    }
}
