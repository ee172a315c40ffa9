//! What the kernel says of a process (proc_pid_stat(5)): with the time of its start, an id means one process and no other
//! that has or had it.

use std::io;

/// The state of a process, and when it started, in clock ticks since the boot: fields 3 and 22.
///
/// # Errors
/// Those of reading it; `NotFound` when there is none.
pub(crate) fn state_and_start(pid: i32) -> io::Result<(char, u64)> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
    read(&stat).ok_or_else(|| io::ErrorKind::InvalidData.into())
}

/// The name before them may itself hold spaces and parentheses.
fn read(stat: &str) -> Option<(char, u64)> {
    let mut fields = stat.rsplit_once(')')?.1.split_ascii_whitespace();
    let state = fields.next()?.chars().next()?;
    let started = fields.nth(18)?.parse().ok()?;
    Some((state, started))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_may_hold_anything() {
        let numbers = (4..=21).map(|field| field.to_string()).collect::<Vec<_>>().join(" ");
        for name in ["sh", "a b", "a) Z 1", "((", ""] {
            let stat = format!("42 ({name}) S {numbers} 777 23 24");
            assert_eq!(read(&stat), Some(('S', 777)), "{name}");
        }
        for stat in ["", "42", "42 (sh)", "42 (sh) S 1 2"] {
            assert_eq!(read(stat), None, "{stat}");
        }
    }
}
