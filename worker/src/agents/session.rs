//! The name of a session: which agent, and which of its conversations.

use super::DEFAULT_AGENT;

/// `agent:main:main`: an agent and one of its conversations.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct SessionKey {
    whole: String,
}

impl SessionKey {
    /// The session that a client names: whole, or by its conversation alone.
    pub(crate) fn named(name: &str) -> Self {
        let is_whole = name.strip_prefix("agent:").is_some_and(|rest| {
            rest.split_once(':').is_some_and(|(agent, rest)| !agent.is_empty() && !rest.is_empty())
        });
        let whole =
            if is_whole { name.to_owned() } else { format!("agent:{DEFAULT_AGENT}:{name}") };
        Self { whole }
    }

    /// An agent's first conversation.
    pub(crate) fn main_of(agent: &str) -> Self {
        Self { whole: format!("agent:{agent}:main") }
    }

    /// The whole name.
    pub(crate) fn as_str(&self) -> &str {
        &self.whole
    }

    /// The agent it belongs to.
    pub(crate) fn agent(&self) -> &str {
        self.whole.split(':').nth(1).unwrap_or(DEFAULT_AGENT)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_conversation_is_the_default_agents_unless_it_says_otherwise() {
        for (name, whole, agent) in [
            ("main", "agent:main:main", "main"),
            ("agent:main:main", "agent:main:main", "main"),
            ("agent:ops:cron:7", "agent:ops:cron:7", "ops"),
            ("agent:ops", "agent:main:agent:ops", "main"),
            ("agent::x", "agent:main:agent::x", "main"),
            ("telegram:1", "agent:main:telegram:1", "main"),
        ] {
            let key = SessionKey::named(name);
            assert_eq!((key.as_str(), key.agent()), (whole, agent), "{name}");
        }
        assert_eq!(SessionKey::main_of("ops").as_str(), "agent:ops:main");
    }
}
