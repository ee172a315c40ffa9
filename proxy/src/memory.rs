//! The memory that the front's start, or a takeover, leaves behind: heap that holds nothing, and code that nobody runs.
//!
//! Reading a command line, or telling somebody everything, takes a few hundred KB for a moment. glibc keeps what is
//! freed of that: it gives back only the heap's end, and only when that is large (mallopt(3), `M_TRIM_THRESHOLD`). The
//! kernel keeps code mapped that was run once, with up to 64 KiB around each page of it; what is run again is mapped
//! again from the page cache, without a read.
//!
//! **Invariants**
//! - It is asked when nothing has happened for a while, never on a way that anybody waits for.
//! - Only mappings that cannot be written, and never were, are let go of: their pages are the file's.
#![expect(unsafe_code, reason = "no safe crate has malloc_trim(3), nor madvise(2)")]

use std::ffi::c_void;
use std::fs;

use rustix::mm::{Advice, madvise};

#[cfg(target_env = "gnu")]
unsafe extern "C" {
    /// malloc_trim(3): it takes a lock of its own, and never a page that is in use.
    safe fn malloc_trim(pad: usize) -> std::ffi::c_int;
}

/// Gives back the pages that hold nothing, where the allocator keeps such, and those that are a file's.
pub(crate) fn give_back() {
    // Without a list nothing is let go of.
    let maps = fs::read_to_string("/proc/self/smaps").unwrap_or_default();
    for (start, length) in of_files(&maps) {
        let start = std::ptr::with_exposed_provenance_mut::<c_void>(start);
        // SAFETY: the mapping is a file's, private and not writable, and no page of it was ever written, so whatever is
        // read there next is what was there: the kernel maps the file's page again (madvise(2), MADV_DONTNEED).
        let let_go = unsafe { madvise(start, length, Advice::LinuxDontNeed) };
        // Locked pages stay, and nothing else can be wrong with a mapping that is there.
        let _ = let_go;
    }
    // Last: the list was long.
    drop(maps);
    #[cfg(target_env = "gnu")]
    malloc_trim(0);
}

/// Where nothing but a file's pages is mapped: code and constants. From proc_pid_smaps(5): a line `start-end rights offset
/// device inode path` a mapping, and lines about it. What was relocated at the start is not writable any more, and has
/// pages that are no file's (`Anonymous`).
fn of_files(maps: &str) -> Vec<(usize, usize)> {
    let mut found = Vec::new();
    let mut mapping = None;
    for line in maps.lines() {
        if let Some(anonymous) = line.strip_prefix("Anonymous:") {
            found.extend(mapping.take().filter(|_| anonymous.trim() == "0 kB"));
        } else if let Some(next) = mapped(line) {
            mapping = next;
        }
    }
    found
}

/// Of the line that begins a mapping: where it is, if it is a file's, private and not writable.
fn mapped(line: &str) -> Option<Option<(usize, usize)>> {
    let mut fields = line.split_whitespace();
    let (start, end) = fields.next()?.split_once('-')?;
    let number = |digits| usize::from_str_radix(digits, 16).ok();
    let (start, end) = (number(start)?, number(end)?);
    let is_a_files = matches!(fields.next()?, "r-xp" | "r--p") && fields.nth(2)? != "0";
    Some(is_a_files.then_some((start, end.checked_sub(start)?)))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A mapping and two of the lines about it.
    fn mapping(rights: &str, inode: u64, anonymous: u64) -> String {
        format!(
            "1000-3000 {rights} 00001000 fe:00 {inode}    /usr/bin/x\nRss:    8 kB\nAnonymous:    {anonymous} kB\n"
        )
    }

    #[test]
    fn only_what_is_a_files_and_was_never_written_is_let_go_of() {
        for rights in ["r-xp", "r--p"] {
            assert_eq!(of_files(&mapping(rights, 7, 0)), [(0x1000, 0x2000)], "{rights}");
        }
        for (rights, inode, anonymous) in
            [("r--p", 7, 4), ("rw-p", 7, 0), ("rwxp", 7, 0), ("r-xs", 7, 0), ("r-xp", 0, 0)]
        {
            assert_eq!(of_files(&mapping(rights, inode, anonymous)), [], "{rights} {inode}");
        }
        assert_eq!(of_files("Anonymous: 0 kB\n"), []);
        let several =
            [mapping("rw-p", 7, 0), mapping("r--p", 7, 0), mapping("r--p", 7, 8)].concat();
        assert_eq!(of_files(&several), [(0x1000, 0x2000)]);
    }

    #[test]
    fn what_was_given_back_is_there_when_it_is_needed() {
        let before: Vec<String> = (0..100).map(|n| format!("{n:x}")).collect();
        give_back();
        assert_eq!(before, (0..100).map(|n| format!("{n:x}")).collect::<Vec<_>>());
        assert!(!of_files(&fs::read_to_string("/proc/self/smaps").unwrap()).is_empty());
    }
}
