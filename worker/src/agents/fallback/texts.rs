//! What the user reads when no model has answered. Pure.
//!
//! ```text
//! all 3 models failed: claude-cli/sonnet: no output for 180 s; fake/m1: 401 invalid key; fake/m2: 529 overloaded
//! no model answered: codex/x: not asked: harness "codex" is not registered; fake/m1: 401 invalid key
//! fake/m1 failed: 400 prompt is too long; not asked: fake/m2
//! ```
//!
//! **Invariants**
//! - Every attempt is named, with its own words, and every model that was not asked.
//! - A failure that is this gateway's is not called the model's.
//! - Nothing is advised, and no word about money is added to what a provider has said.

use super::candidates::ModelRef;
use super::policy::{Attempt, is_missing};

/// What the user reads after these attempts.
pub(super) fn failed(candidates: &[ModelRef], attempts: &[Attempt]) -> String {
    let name =
        |candidate: usize| candidates.get(candidate).map(ToString::to_string).unwrap_or_default();
    let latest =
        |candidate: usize| attempts.iter().rev().find(|attempt| attempt.candidate == candidate);
    let mut told = Vec::new();
    let mut not_asked = Vec::new();
    let (mut ours, mut alone) = (false, None);
    for candidate in 0..candidates.len() {
        let name = name(candidate);
        match latest(candidate).map(|attempt| &attempt.failure) {
            Some(failure) if failure.reason.is_ours() => {
                ours = true;
                told.push(format!("{name}: not asked: {failure}"));
            }
            Some(failure) => {
                alone = Some(format!("{name} failed: {failure}"));
                told.push(format!("{name}: {failure}"));
            }
            None if is_missing(candidates, attempts, candidate) => {
                told.push(format!("{name}: skipped, its harness is the same"));
            }
            None => not_asked.push(name),
        }
    }
    let all = told.join("; ");
    let told = match (told.len(), ours, alone) {
        (0, _, _) => "no model is configured".to_owned(),
        (1, false, Some(alone)) => alone,
        (_, true, _) | (1, _, _) => format!("no model answered: {all}"),
        (count, false, _) if not_asked.is_empty() => format!("all {count} models failed: {all}"),
        (count, false, _) => format!("{count} models failed: {all}"),
    };
    if not_asked.is_empty() { told } else { format!("{told}; not asked: {}", not_asked.join(", ")) }
}

#[cfg(test)]
mod tests {
    use super::super::policy::{Next, Said, decide};
    use super::*;
    use crate::agents::harness::{Failure, Reason};

    fn models(names: &[&str]) -> Vec<ModelRef> {
        let model = |name: &&str| {
            let (harness, model) = name.split_once('/').unwrap();
            ModelRef { harness: harness.to_owned(), model: model.to_owned() }
        };
        names.iter().map(model).collect()
    }

    fn attempt(candidate: usize, reason: Reason, status: Option<u16>, words: &str) -> Attempt {
        Attempt { candidate, failure: Failure { status, ..Failure::new(reason, words) } }
    }

    #[test]
    fn every_attempt_is_named_with_its_own_words() {
        let three = models(&["claude-cli/sonnet", "fake/m1", "fake/m2"]);
        let attempts = [
            attempt(0, Reason::NoOutput, None, "no output for 180 s"),
            attempt(1, Reason::Auth, Some(401), "invalid key"),
            attempt(2, Reason::Overloaded, Some(529), "overloaded"),
        ];
        assert_eq!(
            failed(&three, &attempts),
            "all 3 models failed: claude-cli/sonnet: no output for 180 s; fake/m1: 401 invalid key; fake/m2: 529 overloaded"
        );
        let one = attempt(0, Reason::Auth, Some(401), "invalid key");
        assert_eq!(
            failed(&three[..1], std::slice::from_ref(&one)),
            "claude-cli/sonnet failed: 401 invalid key"
        );
        assert_eq!(
            failed(&three, &[one]),
            "claude-cli/sonnet failed: 401 invalid key; not asked: fake/m1, fake/m2"
        );
        assert_eq!(
            failed(&three, &attempts[..2]),
            "2 models failed: claude-cli/sonnet: no output for 180 s; fake/m1: 401 invalid key; not asked: fake/m2"
        );
    }

    /// Each reason, with words as they come, and what is told of it.
    const LINES: [(Reason, Option<u16>, &str, &str); 10] = [
        (Reason::Timeout, None, "no answer within 600 s", "no answer within 600 s"),
        (Reason::NoOutput, None, "no output for 180 s", "no output for 180 s"),
        (Reason::Auth, Some(401), "invalid key", "401 invalid key"),
        (Reason::Billing, Some(402), "payment required", "402 payment required"),
        (Reason::RateLimit, Some(429), "slow down", "429 slow down"),
        (Reason::Overloaded, Some(529), "overloaded", "529 overloaded"),
        (Reason::HarnessMissing, None, "harness \"x\" is gone", "not asked: harness \"x\" is gone"),
        (Reason::ContextOverflow, Some(400), "prompt is too long", "400 prompt is too long"),
        (Reason::Config, None, "mcp.json is missing", "not asked: mcp.json is missing"),
        (Reason::Unknown, Some(500), "oops", "500 oops"),
    ];

    /// Every three reasons in a row, as far as the policy goes on after each of them.
    #[test]
    fn whatever_fails_in_whichever_order_each_attempt_is_told_and_nothing_else() {
        assert_eq!(LINES.map(|(reason, ..)| reason), Reason::ALL);
        let names = ["a/1", "b/2", "c/3"];
        let all = models(&names);
        let ours = [Reason::HarnessMissing, Reason::Config];
        for numbers in 0..1000 {
            let lines = [numbers / 100, numbers / 10 % 10, numbers % 10].map(|at| LINES[at]);
            let mut attempts = Vec::new();
            while let Next::Ask(next) = decide(&all, &attempts, Said::Nothing) {
                let (reason, status, words, _) = lines[next];
                attempts.push(attempt(next, reason, status, words));
            }
            let asked = attempts.len();
            let told: Vec<_> =
                (0..asked).map(|at| format!("{}: {}", names[at], lines[at].3)).collect();
            let has_ours = lines[..asked].iter().any(|(reason, ..)| ours.contains(reason));
            let told = match (asked, has_ours) {
                (1, false) => format!("a/1 failed: {}", lines[0].3),
                (_, true) => format!("no model answered: {}", told.join("; ")),
                (3, false) => format!("all 3 models failed: {}", told.join("; ")),
                (_, false) => format!("{asked} models failed: {}", told.join("; ")),
            };
            let rest = names[asked..].join(", ");
            let told = if rest.is_empty() { told } else { format!("{told}; not asked: {rest}") };
            assert_eq!(failed(&all, &attempts), told);
        }
    }

    #[test]
    fn one_that_was_asked_twice_is_named_once() {
        let slow = |words| attempt(0, Reason::RateLimit, Some(429), words);
        let told = failed(&models(&["fake/m1"]), &[slow("first"), slow("second")]);
        assert_eq!(told, "fake/m1 failed: 429 second");
    }

    #[test]
    fn what_is_ours_is_not_called_the_models_failure() {
        let three = models(&["codex/x", "codex/y", "fake/m1"]);
        let missing =
            attempt(0, Reason::HarnessMissing, None, "harness \"codex\" is not registered");
        let refused = attempt(2, Reason::Auth, Some(401), "invalid key");
        assert_eq!(
            failed(&three, &[missing.clone(), refused]),
            "no model answered: codex/x: not asked: harness \"codex\" is not registered; codex/y: skipped, its harness is the same; fake/m1: 401 invalid key"
        );
        assert_eq!(
            failed(&three[..1], &[missing]),
            "no model answered: codex/x: not asked: harness \"codex\" is not registered"
        );
        assert_eq!(failed(&[], &[]), "no model is configured");
    }

    #[test]
    fn billing_is_spoken_of_if_a_provider_did_and_nobody_is_sent_to_buy_anything() {
        let two = models(&["claude-cli/sonnet", "fake/m1"]);
        for reason in Reason::ALL {
            let attempts = [
                attempt(0, reason, None, "x"),
                attempt(1, Reason::Billing, Some(402), "payment required"),
            ];
            let told = failed(&two, &attempts).to_lowercase();
            for word in ["billing", "credit", "api key", "top up", "console"] {
                assert!(!told.contains(word), "{reason:?}: {told}");
            }
        }
        let said = attempt(0, Reason::Billing, Some(429), "check your billing details");
        assert!(failed(&two[1..], &[said]).contains("billing"));
    }
}
