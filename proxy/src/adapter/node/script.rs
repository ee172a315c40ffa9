//! The preload as Node is told of it: a file that only this user may read, and the variables that name it.
//!
//! **Invariants**
//! - The file stays as long as the adapter: Node loads it again in every worker thread. What one left that was
//!   killed is removed by the next.
//! - What NODE_OPTIONS said before holds, and is what the program finds there.

use std::ffi::{OsStr, OsString};
use std::fs::{self, DirBuilder, File};
use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};

use handoff::Address;
use handoff::socket::BACKLOG;
use serde::Serialize;

use crate::adapter::stage::FIRST;

/// The script.
const PRELOAD: &str = include_str!("preload.cjs");
/// The variable that tells it what it needs.
const SETUP: &str = "HOLDFAST_NODE";
/// Node's own options (node(1)).
const OPTIONS: &str = "NODE_OPTIONS";
/// What the directories' names begin with.
const PREFIX: &str = "holdfast-node-";
/// How many directories of earlier adapters with this pid may lie in the way.
const ATTEMPTS: u32 = 100;

/// The file, while it is needed.
#[derive(Debug)]
pub(super) struct Script {
    directory: PathBuf,
    _lock: File,
}

/// What the preload is told.
#[derive(Debug, Serialize)]
struct Setup<'a> {
    /// The descriptor of its end of the channel.
    channel: usize,
    sockets: Vec<Shared>,
    backlog: i32,
    /// What NODE_OPTIONS was.
    options: Option<&'a str>,
    /// The signals by which the program has itself started anew.
    restarts: &'a [&'a str],
}

/// A listening socket, and the descriptors of its copies.
#[derive(Debug, Serialize)]
struct Shared {
    ip: String,
    family: &'static str,
    port: u16,
    descriptors: Vec<usize>,
}

impl Script {
    /// Writes it.
    ///
    /// # Errors
    /// When no directory can be made or written to.
    pub(super) fn write() -> io::Result<Self> {
        let (directory, lock) = make_directory()?;
        let script = Self { directory, _lock: lock };
        fs::write(script.path(), PRELOAD)?;
        Ok(script)
    }

    fn path(&self) -> PathBuf {
        self.directory.join("preload.cjs")
    }

    /// What has a program load it. Its sockets come first, `copies` of each, and the channel is its last descriptor.
    ///
    /// # Errors
    /// When NODE_OPTIONS is no text.
    pub(super) fn environment(
        &self,
        addresses: &[Address],
        copies: usize,
        restarts: &[&str],
    ) -> io::Result<Vec<(String, OsString)>> {
        let before = std::env::var_os(OPTIONS);
        let before = match &before {
            Some(options) => Some(options.to_str().ok_or_else(|| no_text(OPTIONS))?),
            None => None,
        };
        let setup = Setup {
            channel: FIRST + addresses.len() * copies,
            sockets: shared(addresses, copies),
            backlog: BACKLOG,
            options: before,
            restarts,
        };
        let setup = serde_json::to_string(&setup)?;
        let options = options(&self.path(), before)?;
        Ok(vec![(SETUP.to_owned(), setup.into()), (OPTIONS.to_owned(), options.into())])
    }
}

impl Drop for Script {
    fn drop(&mut self) {
        // Whoever took it away before has done the same.
        let _ = fs::remove_dir_all(&self.directory);
    }
}

/// A directory that nobody else may enter, and the lock that tells that its owner lives.
fn make_directory() -> io::Result<(PathBuf, File)> {
    let runtime = std::env::var_os("XDG_RUNTIME_DIR").filter(|value| !value.is_empty());
    let above = runtime.map_or_else(std::env::temp_dir, PathBuf::from);
    // A relative path means another place to a program that goes elsewhere.
    let above = std::path::absolute(above)?;
    sweep(&above);
    let own = std::process::id();
    for attempt in 0..ATTEMPTS {
        let path = above.join(format!("{PREFIX}{own}-{attempt}"));
        // It fails where anything is, a link too: nobody is led into a directory of another's.
        match DirBuilder::new().mode(0o700).create(&path) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => continue,
            Err(error) => return Err(error),
        }
        // One that is not locked yet may be swept away.
        let locked = File::open(&path).ok().filter(|directory| directory.try_lock().is_ok());
        if let Some(lock) = locked
            && path.exists()
        {
            return Ok((path, lock));
        }
    }
    Err(io::ErrorKind::AlreadyExists.into())
}

/// Removes what adapters left that were killed: theirs are the directories that nobody has locked.
fn sweep(above: &Path) {
    let named = |entry: &fs::DirEntry| {
        entry.file_name().to_str().is_some_and(|name| name.starts_with(PREFIX))
    };
    for entry in fs::read_dir(above).into_iter().flatten().flatten().filter(named) {
        // Another user's cannot be opened.
        let left = entry.file_type().is_ok_and(|kind| kind.is_dir())
            && File::open(entry.path()).is_ok_and(|directory| directory.try_lock().is_ok());
        if left {
            // Two may sweep at once.
            let _ = fs::remove_dir_all(entry.path());
        }
    }
}

/// The sockets, numbered as the program finds them: the first one's copies, then the second one's.
fn shared(addresses: &[Address], copies: usize) -> Vec<Shared> {
    let shared = |(index, address): (usize, &Address)| match address {
        Address::Tcp(address) => {
            let first = FIRST + index * copies;
            Some(Shared {
                ip: address.ip().to_string(),
                family: if address.is_ipv4() { "IPv4" } else { "IPv6" },
                port: address.port(),
                descriptors: (first..first + copies).collect(),
            })
        }
        Address::Unix(_) => None,
    };
    addresses.iter().enumerate().filter_map(shared).collect()
}

/// The preload before everything else. A path may have blanks in it when it is quoted, and `"` and `\` by a `\`.
fn options(path: &Path, before: Option<&str>) -> io::Result<String> {
    let path = OsStr::from_bytes(path.as_os_str().as_bytes());
    let path = path.to_str().ok_or_else(|| no_text("the path of the preload"))?;
    let quoted = path.replace('\\', "\\\\").replace('"', "\\\"");
    let own = format!("\"--require={quoted}\"");
    Ok(match before {
        Some(before) if !before.is_empty() => format!("{own} {before}"),
        Some(_) | None => own,
    })
}

fn no_text(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("{what} is no text"))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn the_script_is_this_users_alone_and_goes_with_its_owner() {
        let script = Script::write().unwrap();
        let path = script.path();
        assert!(fs::read_to_string(&path).unwrap().contains("HOLDFAST_NODE"));
        let directory = path.parent().unwrap();
        assert_eq!(fs::metadata(directory).unwrap().permissions().mode() & 0o777, 0o700);
        drop(script);
        assert!(!directory.exists());
    }

    #[test]
    fn what_a_killed_adapter_left_is_removed_and_what_a_living_one_has_is_not() {
        let above = tempfile::tempdir().unwrap();
        let [dead, alive, other] = ["holdfast-node-1-0", "holdfast-node-2-0", "another"]
            .map(|name| above.path().join(name));
        for directory in [&dead, &alive, &other] {
            fs::create_dir(directory).unwrap();
            fs::write(directory.join("preload.cjs"), "").unwrap();
        }
        let lock = File::open(&alive).unwrap();
        lock.try_lock().unwrap();
        sweep(above.path());
        assert!(!dead.exists() && alive.exists() && other.exists());
    }

    #[test]
    fn node_options_keep_what_they_said() {
        let of = |path: &str, before| options(Path::new(path), before).unwrap();
        assert_eq!(of("/a/p.cjs", None), r#""--require=/a/p.cjs""#);
        assert_eq!(of("/a/p.cjs", Some("")), r#""--require=/a/p.cjs""#);
        assert_eq!(of("/a b/\"p", Some("--no-warnings")), r#""--require=/a b/\"p" --no-warnings"#);
    }

    #[test]
    fn descriptors_are_numbered_socket_by_socket() {
        let addresses = ["127.0.0.1:80", "[::1]:80"].map(|word| word.parse().unwrap());
        let sockets = shared(&addresses, 2);
        assert_eq!(sockets[0].descriptors, [3, 4]);
        assert_eq!((sockets[1].family, &sockets[1].descriptors[..]), ("IPv6", &[5, 6][..]));
    }
}
