//! Which session a completion is a turn of.
//!
//! | the request says | session |
//! | --- | --- |
//! | `x-openclaw-session-key: agent:ops:main` | that one, and its agent answers, whatever the model says |
//! | `x-openclaw-session-key: notes` | `agent:<agent of the model>:notes` |
//! | `"user": "Alice"` | `agent:<agent of the model>:openai-user:alice` |
//! | nothing | one of its own, `agent:<agent of the model>:openai:<uuid>` |

use hyper::header::{HeaderMap, HeaderName};

use crate::agents::{Novelty, SessionKey};

const SESSION_KEY: HeaderName = HeaderName::from_static("x-openclaw-session-key");
/// The longest name of a session, in bytes.
const LONGEST: usize = 512;

/// The session of a request.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Chosen {
    pub(super) session: SessionKey,
    pub(super) novelty: Novelty,
}

/// Why a request's session is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum ChoiceInvalid {
    #[error("`x-openclaw-session-key` is one line of text of at most {LONGEST} bytes.")]
    Key,
    #[error("`user` is one line of text of at most {LONGEST} bytes.")]
    User,
}

impl Chosen {
    /// By a request with these headers, from this user, to a model that stands for this agent.
    ///
    /// # Errors
    /// [`ChoiceInvalid`]
    pub(super) fn by(
        headers: &HeaderMap,
        user: Option<&str>,
        agent: &str,
    ) -> Result<Self, ChoiceInvalid> {
        let of_agent = |rest: &str| SessionKey::named(&format!("agent:{agent}:{rest}"));
        if let Some(value) = headers.get(SESSION_KEY) {
            let name = std::str::from_utf8(value.as_bytes()).ok().map(str::trim);
            let name = name.filter(|name| is_line(name)).ok_or(ChoiceInvalid::Key)?;
            if !name.is_empty() {
                let whole = SessionKey::named(name);
                let session = if whole.as_str() == name { whole } else { of_agent(name) };
                return Ok(Self { session, novelty: Novelty::Known });
            }
        }
        match user.map(str::trim).filter(|user| !user.is_empty()) {
            Some(user) if is_line(user) => {
                let session = of_agent(&format!("openai-user:{}", user.to_lowercase()));
                Ok(Self { session, novelty: Novelty::Known })
            }
            Some(_) => Err(ChoiceInvalid::User),
            None => {
                let session = of_agent(&format!("openai:{}", uuid::Uuid::new_v4()));
                Ok(Self { session, novelty: Novelty::New })
            }
        }
    }
}

fn is_line(name: &str) -> bool {
    name.len() <= LONGEST && !name.chars().any(char::is_control)
}

#[cfg(test)]
mod tests {
    use hyper::header::HeaderValue;

    use super::*;

    fn chosen(header: Option<&[u8]>, user: Option<&str>) -> Result<Chosen, ChoiceInvalid> {
        let mut headers = HeaderMap::new();
        if let Some(header) = header {
            headers.insert(SESSION_KEY, HeaderValue::from_bytes(header).unwrap());
        }
        Chosen::by(&headers, user, "ops")
    }

    #[test]
    fn a_header_names_the_session_then_the_user_and_else_it_is_a_new_one() {
        for (header, user, session) in [
            (Some("agent:main:main"), Some("u"), "agent:main:main"),
            (Some(" notes "), None, "agent:ops:notes"),
            (Some("agent:ops"), None, "agent:ops:agent:ops"),
            (Some("nötes"), None, "agent:ops:nötes"),
            (Some("  "), Some("u"), "agent:ops:openai-user:u"),
            (None, Some(" Alice@example.org "), "agent:ops:openai-user:alice@example.org"),
        ] {
            let chosen = chosen(header.map(str::as_bytes), user).unwrap();
            assert_eq!((chosen.session.as_str(), chosen.novelty), (session, Novelty::Known));
        }
        for user in [None, Some(""), Some(" ")] {
            let (one, other) = (chosen(None, user).unwrap(), chosen(None, user).unwrap());
            assert_eq!(one.novelty, Novelty::New);
            assert!(one.session.as_str().starts_with("agent:ops:openai:"), "{one:?}");
            assert_ne!(one.session, other.session);
        }
    }

    #[test]
    fn names_that_are_too_long_or_no_line_are_refused() {
        let long = "x".repeat(LONGEST + 1);
        for header in [long.as_bytes(), b"a\xff", b"a\tb"] {
            assert_eq!(chosen(Some(header), None), Err(ChoiceInvalid::Key));
        }
        for user in [long.as_str(), "a\nb"] {
            assert_eq!(chosen(None, Some(user)), Err(ChoiceInvalid::User));
        }
        assert!(chosen(Some(&long.as_bytes()[1..]), None).is_ok());
    }
}
