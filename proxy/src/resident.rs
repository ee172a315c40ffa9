//! How much memory processes have, for status.
//!
//! **Invariants**
//! - A process that is gone, or that another user hides, has no answer; nothing is guessed.
//! - However many processes a worker has started, status looks at [`MOST_PROCESSES`] of them.

use std::fs;

/// How many processes of one generation are looked at.
const MOST_PROCESSES: usize = 256;

/// What a process has resident, in bytes (proc_pid_status(5)). It is there in kB too, so that nobody has to know the
/// size of a page: who looks that up in the auxiliary vector is led astray by valgrind.
pub(crate) fn of(pid: u32) -> Option<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kilobytes: u64 = resident.trim().strip_suffix(" kB")?.parse().ok()?;
    Some(kilobytes * 1024)
}

/// The same of a process and of all below it: an adapter is small, and its program is not. Pages that they share are
/// counted for each.
pub(crate) fn of_family(head: u32) -> Option<u64> {
    let mut sum = of(head)?;
    let mut family = vec![head];
    let mut looked_at = 0;
    while looked_at < family.len() && looked_at < MOST_PROCESSES {
        for child in children(family[looked_at]) {
            sum += of(child).unwrap_or(0);
            family.push(child);
        }
        looked_at += 1;
    }
    Some(sum)
}

/// Each thread lists the children that it has started (proc_tid_children(5)).
fn children(pid: u32) -> Vec<u32> {
    let Ok(threads) = fs::read_dir(format!("/proc/{pid}/task")) else { return Vec::new() };
    let lists =
        threads.filter_map(|thread| fs::read_to_string(thread.ok()?.path().join("children")).ok());
    lists
        .flat_map(|list| {
            list.split_whitespace().filter_map(|pid| pid.parse().ok()).collect::<Vec<u32>>()
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_family_has_more_than_its_head() {
        let own = std::process::id();
        let mut child = std::process::Command::new("sleep").arg("60").spawn().unwrap();
        let (alone, together) = (of(own).unwrap(), of_family(own).unwrap());
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(alone > 0 && together > alone, "{alone} {together}");
    }

    #[test]
    fn a_process_that_is_gone_has_no_memory_to_tell_of() {
        let mut child = std::process::Command::new("true").spawn().unwrap();
        child.wait().unwrap();
        assert_eq!(of_family(child.id()), None);
    }
}
