//! What a change of each key asks for.

use crate::state::config::{KeyPath, Step};

/// What a change asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Effect {
    /// Nothing: who reads the key reads it anew each time, or nobody does.
    Nothing,
    /// That the running gateway makes something anew.
    Hot,
    /// A fresh worker.
    Takeover,
}

use Effect::{Hot, Nothing, Takeover};

/// The table. The longest pattern that a path begins with decides; `*` stands for any one key.
const RULES: [(&str, Effect); 22] = [
    ("agents.defaults", Hot),
    ("agents.list", Hot),
    ("cron", Hot),
    ("env", Hot),
    // The next handshake and the next request ask for the new one.
    ("gateway.auth", Hot),
    ("gateway.bind", Takeover),
    ("gateway.controlUi", Hot),
    ("gateway.customBindHost", Takeover),
    ("gateway.handshakeTimeoutMs", Hot),
    ("gateway.http", Hot),
    // Only tools that look for a gateway go by it.
    ("gateway.mode", Nothing),
    ("gateway.port", Takeover),
    ("gateway.tls", Takeover),
    ("gateway.trustedProxies", Hot),
    ("hooks", Hot),
    ("logging", Nothing),
    ("mcp", Hot),
    ("meta", Nothing),
    ("models", Hot),
    ("plugins", Hot),
    // Code that was loaded is not unloaded.
    ("plugins.load", Takeover),
    ("session", Nothing),
];

/// The rule for a path: the pattern and what it asks for. Without one nobody reads the key.
pub(super) fn rule(path: &KeyPath) -> Option<(&'static str, Effect)> {
    RULES.into_iter().filter(|(pattern, _)| covers(pattern, path)).max_by_key(|(p, _)| p.len())
}

fn covers(pattern: &str, path: &KeyPath) -> bool {
    let mut steps = path.steps().iter();
    pattern.split('.').all(|name| match steps.next() {
        Some(Step::Key(key)) => name == "*" || name == key,
        _ => false,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state::config::{Environment, Settled, schema_keys};

    #[test]
    fn every_key_that_is_read_has_a_rule_and_every_rule_a_key() {
        let keys = schema_keys();
        // A section whose parts have rules of their own needs none.
        let is_section =
            |key: &str| RULES.iter().any(|(rule, _)| rule.starts_with(&format!("{key}.")));
        for key in keys.iter().map(|names| names.join(".")) {
            let ruled = rule(&KeyPath::of(&key)).is_some();
            assert!(ruled || is_section(&key), "nothing says what a change of {key} asks for");
        }
        for (pattern, _) in RULES {
            assert!(keys.iter().any(|names| names.join(".") == pattern), "{pattern} is not read");
        }
    }

    #[test]
    fn the_section_of_a_rule_is_always_there() {
        // A section that appears whole would be judged by a rule for the whole.
        let defaults = Settled::defaults(&Environment::default());
        for (pattern, _) in RULES {
            let Some((section, _)) = pattern.rsplit_once('.') else { continue };
            let pointer = format!("/{}", section.replace('.', "/"));
            assert!(defaults.value().pointer(&pointer).is_some(), "{section}");
        }
    }

    #[test]
    fn the_longest_rule_decides() {
        let effect = |path| rule(&KeyPath::of(path)).map(|(_, effect)| effect);
        assert_eq!(effect("gateway.auth.token"), Some(Hot));
        assert_eq!(effect("gateway.bind"), Some(Takeover));
        assert_eq!(effect("plugins.load.paths"), Some(Takeover));
        assert_eq!(effect("plugins.loader"), Some(Hot));
        assert_eq!(effect("gateway.tailscale"), None);
        assert_eq!(effect("gateway"), None);
    }
}
