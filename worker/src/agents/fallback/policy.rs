//! What follows when a model has failed: the table, pure.
//!
//! | it has failed, and | then |
//! | --- | --- |
//! | part of an answer is out | give up: nobody wants two beginnings |
//! | the conversation is too long for it | give up: it is not the model that is at fault |
//! | another is left whose harness is not known to be missing | that one |
//! | none is left, it wants to be asked again soon, and was asked once | the same one, then |
//! | none is left | give up |
//!
//! **Invariants**
//! - A candidate of a harness that is missing is asked for once; the others of that harness are skipped.
//! - It ends: each candidate is asked at most twice, and only the last one twice.

use std::time::Duration;

use super::candidates::ModelRef;
use crate::agents::harness::{Failure, Reason};

/// The longest that somebody who waits for an answer is kept waiting for a model that asks for time.
pub(super) const MOST_PATIENT: Duration = Duration::from_secs(20);

/// A candidate that was asked, and has failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Attempt {
    /// Which one.
    pub(super) candidate: usize,
    /// Why.
    pub(super) failure: Failure,
}

/// Whether part of an answer is out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Said {
    Nothing,
    Something,
}

/// What follows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// This one is asked.
    Ask(usize),
    /// The same one is asked again, after this time.
    Again(Duration),
    /// Nobody is.
    GiveUp,
}

/// What follows the last of these attempts.
pub(super) fn decide(candidates: &[ModelRef], attempts: &[Attempt], said: Said) -> Next {
    let Some(last) = attempts.last() else {
        return if candidates.is_empty() { Next::GiveUp } else { Next::Ask(0) };
    };
    if said == Said::Something {
        return Next::GiveUp;
    }
    let may_wait = match last.failure.reason {
        Reason::ContextOverflow => return Next::GiveUp,
        Reason::RateLimit | Reason::Overloaded => true,
        Reason::Timeout
        | Reason::NoOutput
        | Reason::Auth
        | Reason::Billing
        | Reason::HarnessMissing
        | Reason::Config
        | Reason::Unknown => false,
    };
    let after = last.candidate + 1..candidates.len();
    if let Some(next) = after.into_iter().find(|next| !is_missing(candidates, attempts, *next)) {
        return Next::Ask(next);
    }
    let asked = attempts.iter().filter(|attempt| attempt.candidate == last.candidate).count();
    match last.failure.retry_after {
        Some(after) if may_wait && asked == 1 && after <= MOST_PATIENT => Next::Again(after),
        Some(_) | None => Next::GiveUp,
    }
}

/// Whether an attempt has shown that the harness of a candidate is missing.
pub(super) fn is_missing(candidates: &[ModelRef], attempts: &[Attempt], candidate: usize) -> bool {
    let harness = |candidate: usize| candidates.get(candidate).map(|model| &model.harness);
    attempts.iter().any(|attempt| {
        attempt.failure.reason == Reason::HarnessMissing
            && harness(attempt.candidate) == harness(candidate)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn model(name: &str) -> ModelRef {
        let (harness, model) = name.split_once('/').unwrap();
        ModelRef { harness: harness.to_owned(), model: model.to_owned() }
    }

    fn failed(candidate: usize, reason: Reason, retry_after: Option<u64>) -> Attempt {
        let retry_after = retry_after.map(Duration::from_secs);
        Attempt { candidate, failure: Failure { retry_after, ..Failure::new(reason, "x") } }
    }

    /// Every reason at every position of every length, with and without a wish to be asked again.
    #[test]
    fn every_failure_leads_to_the_next_model_or_to_the_end() {
        let all: Vec<_> = ["a/1", "b/1", "c/1", "d/1"].map(model).into();
        for reason in Reason::ALL {
            for length in 1..=all.len() {
                for position in 0..length {
                    for retry_after in [None, Some(5), Some(3600)] {
                        let mut attempts: Vec<_> =
                            (0..position).map(|at| failed(at, Reason::Auth, None)).collect();
                        attempts.push(failed(position, reason, retry_after));
                        let waits = matches!(reason, Reason::RateLimit | Reason::Overloaded);
                        let expected = if reason == Reason::ContextOverflow {
                            Next::GiveUp
                        } else if position + 1 < length {
                            Next::Ask(position + 1)
                        } else if waits && retry_after == Some(5) {
                            Next::Again(Duration::from_secs(5))
                        } else {
                            Next::GiveUp
                        };
                        let what = format!("{reason:?} at {position} of {length} {retry_after:?}");
                        let next = decide(&all[..length], &attempts, Said::Nothing);
                        assert_eq!(next, expected, "{what}");
                        let next = decide(&all[..length], &attempts, Said::Something);
                        assert_eq!(next, Next::GiveUp, "{what}");
                    }
                }
            }
        }
    }

    #[test]
    fn the_first_one_is_asked_first_and_without_any_nobody_is() {
        assert_eq!(decide(&[model("a/1")], &[], Said::Nothing), Next::Ask(0));
        assert_eq!(decide(&[], &[], Said::Nothing), Next::GiveUp);
    }

    #[test]
    fn others_of_a_harness_that_is_missing_are_skipped_and_those_of_one_that_refuses_are_not() {
        let all: Vec<_> = ["a/1", "a/2", "b/1", "a/3"].map(model).into();
        let missing = [failed(0, Reason::HarnessMissing, None)];
        assert_eq!(decide(&all, &missing, Said::Nothing), Next::Ask(2));
        let both = [missing[0].clone(), failed(2, Reason::Timeout, None)];
        assert_eq!(decide(&all, &both, Said::Nothing), Next::GiveUp);
        assert_eq!(decide(&all, &[failed(0, Reason::Auth, None)], Said::Nothing), Next::Ask(1));
    }

    #[test]
    fn the_last_one_is_asked_again_once() {
        let all = [model("a/1")];
        let again = [failed(0, Reason::RateLimit, Some(1)), failed(0, Reason::RateLimit, Some(1))];
        assert_eq!(decide(&all, &again, Said::Nothing), Next::GiveUp);
    }

    #[test]
    fn whatever_fails_it_comes_to_an_end() {
        use proptest::prelude::*;
        let all: Vec<_> = ["a/1", "a/2", "b/1", "b/2", "c/1"].map(model).into();
        let failure = (0..Reason::ALL.len(), prop::option::of(0..40_u64));
        proptest!(|(failures in prop::collection::vec(failure, 11))| {
            let (mut attempts, mut current) = (Vec::new(), 0);
            for (reason, retry_after) in failures {
                match decide(&all, &attempts, Said::Nothing) {
                    Next::Ask(next) => {
                        prop_assert!(attempts.is_empty() || next > current);
                        prop_assert!(!is_missing(&all, &attempts, next));
                        current = next;
                    }
                    Next::Again(after) => prop_assert!(after <= MOST_PATIENT),
                    Next::GiveUp => return Ok(()),
                }
                attempts.push(failed(current, Reason::ALL[reason], retry_after));
            }
            prop_assert!(false, "it goes on: {attempts:?}");
        });
    }
}
