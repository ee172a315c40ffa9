//! The way back: whatever a new image does before it is ready, the old one goes on with the same state.
//!
//! ```text
//! SIGSEGV, SIGABRT, … ─┐
//! SIGALRM after LIMIT ─┼─► fexecve(old image), the state's memfd still open
//! a panic, an error ───┘
//! ```
//!
//! **Invariants**
//! - What the handler needs is made before it is installed; it allocates nothing and takes no lock (signal-safety(7)).
//! - It is over as soon as the image is ready: a crash after that is an ordinary one.

#![expect(unsafe_code, reason = "no safe crate installs a handler that executes another image")]

use std::ffi::{CString, OsStr, c_char, c_int};
use std::io;
use std::os::fd::RawFd;
use std::ptr;
use std::sync::atomic::{AtomicPtr, Ordering};

use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, sigaction};
use nix::unistd::alarm;

use super::image::{FAILED, Inheritance, RESUME, arguments, environment};

/// How long a new image may take to be ready, in s: with the check before it less than 5.
const LIMIT: u32 = 3;
/// What ends an image that is not ready.
const CRASHES: [Signal; 8] = [
    Signal::SIGSEGV,
    Signal::SIGABRT,
    Signal::SIGBUS,
    Signal::SIGILL,
    Signal::SIGFPE,
    Signal::SIGSYS,
    Signal::SIGTRAP,
    Signal::SIGALRM,
];

unsafe extern "C" {
    /// fexecve(3): executes what a descriptor leads to. It comes back only when it cannot. Async-signal-safe
    /// (signal-safety(7)).
    fn fexecve(
        descriptor: c_int,
        arguments: *const *const c_char,
        environment: *const *const c_char,
    ) -> c_int;
}

/// The old image, ready to be executed.
struct Prepared {
    old: RawFd,
    arguments: Vec<*const c_char>,
    environment: Vec<*const c_char>,
    /// The two digits of a signal's number within the environment.
    digits: *mut u8,
}

/// Set while a new image is not ready.
static PREPARED: AtomicPtr<Prepared> = AtomicPtr::new(ptr::null_mut());

/// The old image can come back from here on, and does when this process is not ready in time.
pub(super) fn arm(inheritance: &Inheritance) -> io::Result<()> {
    if inheritance.failed.is_some() {
        return Ok(());
    }
    let mut environment = strings(environment(&[(RESUME, OsStr::new(&inheritance.word()))])?);
    // Left to the process's end, as a handler may need it at every instant.
    let failed = CString::new(format!("{FAILED}=00"))?.into_raw();
    environment.insert(0, failed.cast_const());
    let prepared = Prepared {
        old: inheritance.old,
        arguments: strings(arguments()?),
        environment,
        digits: failed.cast::<u8>().wrapping_add(FAILED.len() + 1),
    };
    PREPARED.store(Box::into_raw(Box::new(prepared)), Ordering::Release);
    let action = SigAction::new(SigHandler::Handler(crashed), SaFlags::SA_ONSTACK, SigSet::empty());
    for signal in CRASHES {
        // SAFETY: the handler only does what is async-signal-safe.
        unsafe { sigaction(signal, &action) }?;
    }
    alarm::set(LIMIT);
    Ok(())
}

/// The image is ready: the old one does not come back any more.
pub(super) fn disarm() {
    alarm::cancel();
    if PREPARED.swap(ptr::null_mut(), Ordering::AcqRel).is_null() {
        return;
    }
    let action = SigAction::new(SigHandler::SigDfl, SaFlags::empty(), SigSet::empty());
    for signal in CRASHES {
        // SAFETY: the default action is no handler.
        let restored = unsafe { sigaction(signal, &action) };
        debug_assert!(restored.is_ok(), "sigaction(2) fails for unknown signals only");
    }
}

/// A null-terminated list of strings that are left to the process's end.
fn strings(owned: Vec<CString>) -> Vec<*const c_char> {
    owned.into_iter().map(|word| word.into_raw().cast_const()).chain([ptr::null()]).collect()
}

/// What a signal does to an image that is not ready.
extern "C" fn crashed(signal: c_int) {
    let prepared = PREPARED.load(Ordering::Acquire);
    if prepared.is_null() {
        return;
    }
    let number = u8::try_from(signal).unwrap_or(0);
    // SAFETY: `arm` made it and nothing frees it.
    let prepared = unsafe { &*prepared };
    // SAFETY: the first of two bytes within a string of `arm`'s that nobody else reads or writes.
    unsafe { prepared.digits.write(b'0' + number / 10 % 10) };
    // SAFETY: as above, the second one.
    unsafe { prepared.digits.wrapping_add(1).write(b'0' + number % 10) };
    // SAFETY: both lists end with a null pointer, and their strings live to the process's end.
    unsafe {
        fexecve(prepared.old, prepared.arguments.as_ptr(), prepared.environment.as_ptr());
    }
}

/// Has a panic bring the old image back, as long as it can come back. To be said again when somebody else has set the
/// hook.
pub(super) fn on_panic(inheritance: Inheritance) {
    let before = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        before(panic);
        if !PREPARED.load(Ordering::Acquire).is_null() {
            go_back(&inheritance, "panicked before it was ready");
        }
    }));
}

/// The new image cannot go on, for this reason. It comes back only when the old one cannot either.
pub(super) fn go_back(inheritance: &Inheritance, reason: &str) -> io::Error {
    if inheritance.failed.is_some() {
        return io::Error::other("there is no older image");
    }
    alarm::cancel();
    let images = inheritance.word();
    let reason = reason.replace('\0', " ");
    let attempt = || -> io::Result<()> {
        let environment =
            environment(&[(RESUME, OsStr::new(&images)), (FAILED, OsStr::new(&reason))])?;
        let (arguments, environment) = (strings(arguments()?), strings(environment));
        // SAFETY: both lists end with a null pointer, and their strings live to the process's end.
        unsafe { fexecve(inheritance.old, arguments.as_ptr(), environment.as_ptr()) };
        Err(io::Error::last_os_error())
    };
    match attempt() {
        Err(error) => error,
        Ok(()) => io::Error::other("the old image came back"),
    }
}

/// Why an image was left: in words, from what its successor in this process finds in its environment.
pub(super) fn reason(failed: &str) -> String {
    let number = failed.parse::<i32>().ok().filter(|_| failed.len() == 2);
    match number.map(Signal::try_from) {
        Some(Ok(Signal::SIGALRM)) => format!("was not ready within {LIMIT} s"),
        Some(Ok(signal)) => format!("was ended by {signal} before it was ready"),
        Some(Err(_)) | None => failed.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signal_is_told_by_its_name_and_a_reason_as_it_is() {
        assert_eq!(reason("11"), "was ended by SIGSEGV before it was ready");
        assert_eq!(reason("14"), "was not ready within 3 s");
        assert_eq!(reason("panicked"), "panicked");
    }
}
