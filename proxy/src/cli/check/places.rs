//! Files and directories: whether they can be used, and by whom else.

use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use handoff::{chain, filesystem};
use rustix::fs::{Access, access, statvfs};

use super::finding::{Finding, Subject};
use super::{Asked, Worker};
use crate::control::document::Status;
use crate::control::server::MAX_PATH;

/// Less than this, in bytes, is soon full.
const LITTLE_SPACE: u64 = 100 << 20;

/// Whether the front's own socket can be where it should.
pub(super) fn control(path: &Path, front: Option<&Status>) -> Finding {
    let shown = path.display();
    if let Some(finding) = too_long(Subject::Control, path) {
        return finding;
    }
    if let Some(front) = front {
        let pid = front.front.pid;
        return Finding::ok(
            Subject::Control,
            format!("a front runs at {shown} (pid {pid}): this is what the next one would find"),
        );
    }
    let other = std::fs::symlink_metadata(path).is_ok_and(|found| !is_socket(&found));
    if other {
        let advice = "it would be left alone: remove it, or name another path with --control";
        return Finding::error(
            Subject::Control,
            format!("{shown} exists and is no socket"),
            advice,
        );
    }
    match nearest(path.parent()).map(writable) {
        Some(Err(error)) => Finding::error(
            Subject::Control,
            format!("no socket can be made at {shown}: {error}"),
            "name another path with --control, or another directory by HOLDFAST_STATE_DIR",
        ),
        _ => Finding::ok(Subject::Control, shown.to_string()),
    }
}

fn is_socket(found: &std::fs::Metadata) -> bool {
    std::os::unix::fs::FileTypeExt::is_socket(&found.file_type())
}

/// A path that no socket can have.
pub(super) fn too_long(subject: Subject, path: &Path) -> Option<Finding> {
    let length = path.as_os_str().len();
    (length > MAX_PATH).then(|| {
        let says = format!(
            "{} is {length} bytes long, and a socket's path has {MAX_PATH} at most",
            path.display()
        );
        Finding::error(subject, says, "name a shorter one")
    })
}

/// What is found of the directory that workers keep their state in.
pub(super) fn state(path: Option<&Path>, asked: &Asked) -> Vec<Finding> {
    let Some(path) = path else { return Vec::new() };
    let shown = path.display();
    let Some(there) = nearest(Some(path)) else { return Vec::new() };
    let mut found: Vec<_> =
        [unusable(path, there, asked), network(path, filesystem::network(there), asked.worker)]
            .into_iter()
            .flatten()
            .collect();
    if let Ok(metadata) = std::fs::metadata(path)
        && metadata.permissions().mode() & 0o077 != 0
    {
        let says =
            format!("other users may look into {shown}, where the token and the database are");
        found.push(Finding::warning(Subject::State, says, format!("chmod 700 {shown}")));
    }
    found.extend(statvfs(there).ok().and_then(|room| little(path, room.f_bavail * room.f_frsize)));
    if found.is_empty() {
        let to_come = if path.exists() { "" } else { ", which will be made" };
        found.push(Finding::ok(Subject::State, format!("{shown}{to_come}")));
    }
    found
}

fn unusable(path: &Path, there: &Path, asked: &Asked) -> Option<Finding> {
    let advice =
        "give it to the user that runs workers (chown), or name another one by HOLDFAST_STATE_DIR";
    let others = asked.rights.as_ref().ok().filter(|rights| rights.owner().is_some());
    match others {
        // Of one that is not there yet: it is made, and given to them.
        Some(rights) if path.exists() => rights
            .prepare_state_directory(path)
            .err()
            .map(|error| Finding::error(Subject::State, chain(&error).to_string(), advice)),
        _ => writable(there).err().map(|error| {
            let says = format!("{} cannot be written in: {error}", there.display());
            Finding::error(Subject::State, says, advice)
        }),
    }
}

fn network(path: &Path, kind: io::Result<Option<String>>, worker: Worker) -> Option<Finding> {
    let kind = kind.ok().flatten()?;
    let says = format!(
        "{} is on a network file system ({kind}), where two workers cannot share a database safely",
        path.display()
    );
    let advice = "put it on a local disk: HOLDFAST_STATE_DIR";
    Some(match worker {
        Worker::Bundled => Finding::error(Subject::State, says, advice),
        Worker::OpenClaw | Worker::Other => Finding::warning(Subject::State, says, advice),
    })
}

fn little(path: &Path, bytes: u64) -> Option<Finding> {
    (bytes < LITTLE_SPACE).then(|| {
        let says = format!("{} has {} MiB left", path.display(), bytes >> 20);
        Finding::warning(Subject::State, says, "make room before the database needs it")
    })
}

/// Whether workers' output can go there.
pub(super) fn log_file(path: &Path) -> Finding {
    let shown = path.display();
    let usable = match std::fs::metadata(path) {
        Ok(found) if found.is_dir() => Err(io::ErrorKind::IsADirectory.into()),
        Ok(_) => writable_file(path),
        Err(_) => directory_of(path).map_or(Ok(()), writable),
    };
    match usable {
        Ok(()) => Finding::ok(Subject::LogFile, shown.to_string()),
        Err(error) => Finding::error(
            Subject::LogFile,
            format!("{shown} cannot be written: {error}"),
            "name a file in a directory that exists and that the front may write in",
        ),
    }
}

fn directory_of(path: &Path) -> Option<&Path> {
    path.parent().map(|parent| if parent.as_os_str().is_empty() { Path::new(".") } else { parent })
}

/// The first of a path and what is above it that exists.
fn nearest(path: Option<&Path>) -> Option<&Path> {
    let path = path?;
    let path = if path.as_os_str().is_empty() { Path::new(".") } else { path };
    path.ancestors()
        .map(|at| if at.as_os_str().is_empty() { Path::new(".") } else { at })
        .find(|at| at.exists())
}

/// Whether files can be made in a directory.
pub(super) fn writable(path: &Path) -> io::Result<()> {
    if path.exists() && !path.is_dir() {
        return Err(io::ErrorKind::NotADirectory.into());
    }
    Ok(access(path, Access::WRITE_OK | Access::EXEC_OK)?)
}

fn writable_file(path: &Path) -> io::Result<()> {
    Ok(access(path, Access::WRITE_OK)?)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    use super::super::finding::Grade;
    use super::super::tests::asked;
    use super::*;

    #[test]
    fn a_control_socket_needs_a_path_that_is_short_free_and_in_a_directory() {
        let directory = tempfile::tempdir().unwrap();
        let at = |name: &str| control(&directory.path().join(name), None);
        assert_eq!(at("control.sock").grade, Grade::Ok);
        assert_eq!(at("to/be/made/control.sock").grade, Grade::Ok);
        fs::write(directory.path().join("file"), "").unwrap();
        assert!(at("file").says.contains("no socket"));
        assert!(at("file/control.sock").says.contains("no socket can be made"));
        assert!(at(&"x".repeat(108)).says.contains("at most"));
    }

    #[test]
    fn a_state_directory_that_others_may_look_into_is_told_and_one_of_ones_own_is_fine() {
        let directory = tempfile::tempdir().unwrap();
        let mode = |mode| fs::set_permissions(directory.path(), PermissionsExt::from_mode(mode));
        let grades = || -> Vec<_> {
            state(Some(directory.path()), &asked()).iter().map(|finding| finding.grade).collect()
        };
        mode(0o700).unwrap();
        assert_eq!(grades(), [Grade::Ok]);
        mode(0o750).unwrap();
        assert_eq!(grades(), [Grade::Warning]);
        let missing = state(Some(&directory.path().join("a/b")), &asked());
        assert!(missing[0].says.ends_with("which will be made"), "{missing:?}");
        fs::write(directory.path().join("file"), "").unwrap();
        let no_directory = state(Some(&directory.path().join("file/state")), &asked());
        assert_eq!(no_directory[0].grade, Grade::Error, "{no_directory:?}");
    }

    #[test]
    fn a_network_file_system_is_refused_for_a_database_and_told_of_for_others() {
        let nfs = |worker| network(Path::new("/x"), Ok(Some("nfs".to_owned())), worker).unwrap();
        let found = nfs(Worker::Bundled);
        assert!(found.grade == Grade::Error && found.says.contains("(nfs)"), "{found:?}");
        assert_eq!(nfs(Worker::Other).grade, Grade::Warning);
        assert_eq!(network(Path::new("/x"), Ok(None), Worker::Bundled), None);
    }

    #[test]
    fn a_disk_that_is_nearly_full_is_told_of() {
        assert_eq!(little(Path::new("/x"), LITTLE_SPACE), None);
        assert_eq!(little(Path::new("/x"), 5 << 20).unwrap().says, "/x has 5 MiB left");
    }

    #[test]
    fn a_log_file_needs_a_directory_that_is_there() {
        let directory = tempfile::tempdir().unwrap();
        assert_eq!(log_file(&directory.path().join("worker.log")).grade, Grade::Ok);
        assert_eq!(log_file(&directory.path().join("missing/worker.log")).grade, Grade::Error);
        assert_eq!(log_file(directory.path()).grade, Grade::Error);
        assert_eq!(log_file(Path::new("worker.log")).grade, Grade::Ok);
    }
}
