//! Which calls can be made twice without harm.
//!
//! **Invariants**
//! - A method that nobody here knows is not repeated.

use crate::identity::Needs;
use crate::methods::BUNDLED;

/// What OpenClaw's gateway also serves to who may only read, beside what this worker serves.
const ELSEWHERE: &[&str] = &[
    "agent.identity.get",
    "artifacts.get",
    "artifacts.list",
    "channels.status",
    "commands.list",
    "doctor.memory.status",
    "environments.list",
    "environments.status",
    "gateway.identity.get",
    "gateway.restart.preflight",
    "last-heartbeat",
    "logs.tail",
    "models.authStatus",
    "node.describe",
    "node.list",
    "sessions.compaction.get",
    "sessions.compaction.list",
    "sessions.resolve",
    "sessions.usage",
    "sessions.usage.logs",
    "sessions.usage.timeseries",
    "skills.detail",
    "skills.search",
    "skills.status",
    "system-presence",
    "talk.catalog",
    "talk.config",
    "tasks.get",
    "tasks.list",
    "tools.catalog",
    "tools.effective",
    "tts.personas",
    "tts.providers",
    "tts.status",
    "usage.cost",
    "usage.status",
    "voicewake.get",
    "voicewake.routing.get",
];

/// What it means to make a call twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Repeat {
    /// Nothing: it changes nothing.
    Reads,
    /// Nothing: the gateway knows it again by its key.
    Keyed,
    /// It may be done twice.
    Harmful,
}

/// What it means to make this call twice.
pub(super) fn repeat(method: &str, idempotency_key: Option<&str>) -> Repeat {
    let reads = BUNDLED
        .iter()
        .find(|bundled| bundled.name == method)
        .map_or_else(|| ELSEWHERE.contains(&method), |bundled| only_reads(bundled.needs));
    match idempotency_key {
        _ if reads => Repeat::Reads,
        Some(key) if !key.trim().is_empty() => Repeat::Keyed,
        Some(_) | None => Repeat::Harmful,
    }
}

const fn only_reads(needs: Needs) -> bool {
    match needs {
        Needs::Nothing | Needs::Read => true,
        Needs::Write | Needs::Pairing | Needs::Admin => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_worker_serves_is_repeated_exactly_when_reading_is_all_it_needs() {
        for method in BUNDLED {
            let expected = if only_reads(method.needs) { Repeat::Reads } else { Repeat::Harmful };
            assert_eq!(repeat(method.name, None), expected, "{}", method.name);
        }
    }

    #[test]
    fn a_key_makes_a_call_repeatable_and_an_unknown_method_is_not() {
        assert_eq!(repeat("chat.send", Some("k")), Repeat::Keyed);
        assert_eq!(repeat("chat.send", Some(" ")), Repeat::Harmful);
        assert_eq!(repeat("cron.list", Some("k")), Repeat::Reads);
        assert_eq!(repeat("tasks.list", None), Repeat::Reads);
        assert_eq!(repeat("no.such", None), Repeat::Harmful);
        assert_eq!(repeat("connect", None), Repeat::Harmful);
    }
}
