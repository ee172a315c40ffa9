//! What a fixture does to the machine it runs on.

use std::path::Path;
use std::process::{Command, ExitCode, Stdio};
use std::time::Duration;

use rustix::process::{Signal, getpid, kill_process};

/// How often a file is looked for.
const GLANCE: Duration = Duration::from_millis(5);

/// Ends this process as `kill -9` would.
pub(crate) fn die() -> ExitCode {
    // It ends the process, or there is no process to end.
    let _ = kill_process(getpid(), Signal::KILL);
    ExitCode::FAILURE
}

/// Ends when `file` exists.
pub(crate) async fn exists(file: &Path) {
    while !file.exists() {
        tokio::time::sleep(GLANCE).await;
    }
}

/// Has a child write what it was given to `file`: descriptors, limit, environment.
pub(crate) fn show_to_grandchild(file: &Path) {
    let limit = handoff::limits::soft_limit_for_children().expect("there is a limit");
    // A child of the shell lists what it was given; the shell has descriptors of its own. The file
    // appears whole.
    let script = r#"ulimit -Sn LIMIT
                    { ls -l /proc/self/fd | sed -n 's/.* \([0-9]*\) -> /descriptor \1 /p'
                      echo "limit $(ulimit -Sn)"
                      env | sed 's/^/environment /'; } > "$0.part"
                    mv "$0.part" "$0""#;
    shell(&script.replace("LIMIT", &limit.to_string()), file);
}

/// Leaves a process behind that is in no group or session of ours; its pid is in `file`.
pub(crate) fn leave_orphan(file: &Path) {
    let script = "setsid sleep 1000 & echo $! > \"$0.part\"; mv \"$0.part\" \"$0\"";
    shell(script, file);
}

fn shell(script: &str, file: &Path) {
    let status = Command::new("sh").arg("-c").arg(script).arg(file).stdout(Stdio::null()).status();
    assert!(status.expect("sh can be started").success(), "{script}");
}
