//! The exec itself: what another image of this process is given, and how it takes it.
//!
//! **Invariants**
//! - Only the descriptors that the state speaks of, the state and the old image are inherited; everything else
//!   is close-on-exec from birth.
//! - Signals are blocked from before the exec until the new image has its handlers: none is lost, and none ends the
//!   process.

#![expect(unsafe_code, reason = "a descriptor is taken by its number after an exec")]

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::ffi::{CString, OsStr, OsString};
use std::fs::File;
use std::io::{self, Write as _};
use std::os::fd::{BorrowedFd, FromRawFd as _, OwnedFd, RawFd};
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::path::Path;

use rustix::fs::{MemfdFlags, Mode, OFlags, memfd_create};
use rustix::io::{FdFlags, fcntl_getfd, fcntl_setfd};

use super::state::{State, number};

/// Names the descriptors of the state and of the old image: `STATE:OLD`.
pub(super) const RESUME: &str = "HOLDFAST_RESUME";
/// Why an old image comes back.
pub(super) const FAILED: &str = "HOLDFAST_RESUME_FAILED";

/// A file without a name, close-on-exec.
pub(super) fn memory_file() -> io::Result<File> {
    Ok(memfd_create("holdfast-state", MemfdFlags::CLOEXEC)?.into())
}

/// Becomes `binary`, which goes on with `state`. Comes back only when that cannot be, and says why.
pub(super) fn become_image(binary: &Path, state: &State) -> String {
    let mut inherited = state.descriptors();
    let mut attempt = || -> io::Result<Infallible> {
        let mut file = memory_file()?;
        file.write_all(&state.to_json().map_err(io::Error::other)?)?;
        let old =
            rustix::fs::open("/proc/self/exe", OFlags::PATH | OFlags::CLOEXEC, Mode::empty())?;
        inherited.extend([number(&file), number(&old)]);
        let images = Inheritance { state: number(&file), old: number(&old), failed: None };
        let path = CString::new(binary.as_os_str().as_bytes())?;
        let arguments = arguments()?;
        let environment = environment(&[(RESUME, OsStr::new(&images.word()))])?;
        for descriptor in &inherited {
            set_inherited(*descriptor, Inherited::Yes)?;
        }
        Ok(nix::unistd::execve(&path, &arguments, &environment)?)
    };
    let Err(error) = attempt();
    for descriptor in inherited {
        // Whatever it is, this image had it close-on-exec.
        let _ = set_inherited(descriptor, Inherited::No);
    }
    error.to_string()
}

/// Whether a descriptor survives an exec.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Inherited {
    Yes,
    No,
}

fn set_inherited(descriptor: RawFd, inherited: Inherited) -> io::Result<()> {
    // SAFETY: the number is only looked at by fcntl(2), which says so when nothing is open under it.
    let descriptor = unsafe { BorrowedFd::borrow_raw(descriptor) };
    let flags = match inherited {
        Inherited::Yes => FdFlags::empty(),
        Inherited::No => FdFlags::CLOEXEC,
    };
    Ok(fcntl_setfd(descriptor, flags)?)
}

/// The command line this process was started with.
pub(super) fn arguments() -> io::Result<Vec<CString>> {
    std::env::args_os().map(|word| Ok(CString::new(word.into_vec())?)).collect()
}

/// The environment of this process, with these variables and without what an earlier re-exec left in it.
pub(super) fn environment(added: &[(&str, &OsStr)]) -> io::Result<Vec<CString>> {
    let kept = std::env::vars_os().filter(|(name, _)| name != RESUME && name != FAILED);
    let added = added.iter().map(|(name, value)| (OsString::from(name), OsString::from(value)));
    kept.chain(added)
        .map(|(name, value)| {
            let mut variable = name.into_vec();
            variable.push(b'=');
            variable.extend(value.into_vec());
            Ok(CString::new(variable)?)
        })
        .collect()
}

/// What this image was given by the one before it.
#[derive(Clone, Debug)]
pub(super) struct Inheritance {
    pub(super) state: RawFd,
    /// The image that comes back if this one does not get ready; or this one itself, if it is the one that came back.
    pub(super) old: RawFd,
    /// Why it came back.
    pub(super) failed: Option<String>,
}

impl Inheritance {
    /// As a later image finds it in its environment.
    pub(super) fn word(&self) -> String {
        format!("{}:{}", self.state, self.old)
    }
}

/// What this process was given, if it is an image that goes on.
pub(super) fn inheritance() -> Option<Inheritance> {
    let resume = std::env::var(RESUME).ok()?;
    let (state, old) = resume.split_once(':')?;
    let failed = std::env::var(FAILED).ok();
    Some(Inheritance { state: state.parse().ok()?, old: old.parse().ok()?, failed })
}

/// The descriptors an image was given, by the numbers that its state has for them.
#[derive(Debug, Default)]
pub(super) struct Descriptors {
    open: BTreeMap<RawFd, OwnedFd>,
    numbers: Vec<RawFd>,
}

impl Descriptors {
    /// Takes all of them, before this process opens any of its own.
    ///
    /// # Errors
    /// When nothing is open under a number, or it comes twice.
    pub(super) fn take(numbers: impl IntoIterator<Item = RawFd>) -> io::Result<Self> {
        let numbers: Vec<RawFd> = numbers.into_iter().collect();
        let mut open = BTreeMap::new();
        for number in &numbers {
            if *number < 3 || open.contains_key(number) {
                return Err(io::Error::other(format!("descriptor {number} is somebody's already")));
            }
            // SAFETY: fcntl(2) only looks at the number.
            let borrowed = unsafe { BorrowedFd::borrow_raw(*number) };
            fcntl_getfd(borrowed)
                .map_err(|_| io::Error::other(format!("descriptor {number} is not open")))?;
            // SAFETY: it is open, the image before left it for this one to own, and nobody else has taken it.
            open.insert(*number, unsafe { OwnedFd::from_raw_fd(*number) });
        }
        Ok(Self { open, numbers })
    }

    /// The one with this number.
    ///
    /// # Errors
    /// When it was not among those that were taken, or is given away.
    pub(super) fn remove(&mut self, number: RawFd) -> io::Result<OwnedFd> {
        self.open
            .remove(&number)
            .ok_or_else(|| io::Error::other(format!("the state has no descriptor {number}")))
    }

    /// Has none of them reach another program from now on.
    pub(super) fn close_on_exec(self) {
        for number in self.numbers {
            // One that is closed needs it no more; one opened since under its number has it anyway.
            let _ = set_inherited(number, Inherited::No);
        }
    }
}
