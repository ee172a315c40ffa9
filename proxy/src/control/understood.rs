//! Reading a request, which another version may have written.

use serde::Deserialize;

use crate::control::protocol::{Command, Request, VERSION};

/// The command of a request as it came, or what is wrong with it.
///
/// A caller of another version is told which binary speaks this one: that of the front's process, whatever lies at its path by
/// now.
pub(crate) fn understood(line: &[u8]) -> Result<Command, String> {
    // The version and the name first: a later one may have commands unknown here.
    #[derive(Deserialize)]
    struct Versioned {
        version: u32,
        command: Option<Named>,
    }
    #[derive(Deserialize)]
    struct Named {
        r#type: String,
    }
    let own = || format!("/proc/{}/exe", std::process::id());
    let malformed = |error| format!("not a request: {error}");
    let Versioned { version, command } = serde_json::from_slice(line).map_err(malformed)?;
    if version != VERSION {
        return Err(format!(
            "this front is holdfast {} and speaks version {VERSION} of the control protocol, and the caller {version}; ask it \
             by its own binary: {own}. `{own} reexec` makes it the binary that lies at its path now",
            crate::VERSION,
            own = own()
        ));
    }
    match (serde_json::from_slice::<Request>(line), command) {
        (Ok(request), _) => Ok(request.command),
        (Err(error), Some(Named { r#type }))
            if error.to_string().starts_with("unknown variant") =>
        {
            let name: String = r#type.chars().take(32).collect();
            Err(format!(
                "this front is holdfast {} and does not know {name:?}; a later one may: `holdfast reexec` makes it the binary \
                 that lies at its path now",
                crate::VERSION
            ))
        }
        (Err(error), _) => Err(malformed(error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_or_version_that_is_unknown_is_refused_with_what_to_do() {
        let refused = |line: &str| understood(line.as_bytes()).unwrap_err();
        let later = refused(r#"{"version":2,"command":{"type":"explode"}}"#);
        for words in ["version 1", "the caller 2", "/proc/", "/exe"] {
            assert!(later.contains(words), "no {words:?}: {later}");
        }
        let unknown = refused(r#"{"version":1,"command":{"type":"explode","far":true}}"#);
        assert!(unknown.contains("does not know \"explode\""), "{unknown}");
        let malformed = refused(r#"{"version":1,"command":{"type":"drain"}}"#);
        assert!(malformed.starts_with("not a request"), "{malformed}");
    }
}
