//! Two sides that are compared, in turns.

use crate::closed_loop::Round;
use crate::figures::Ratios;
use crate::report::Report;

/// The same requests to either side.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pair {
    /// The side whose cost is asked for.
    pub(crate) with: Round,
    /// The side it is compared with.
    pub(crate) without: Round,
}

impl Pair {
    /// Drives both sides in two turns each, so that a machine that gets slower slows both alike; every
    /// other pair begins with the other side.
    pub(crate) async fn in_turns<S: Copy>(
        number: usize,
        with: S,
        without: S,
        drive: impl AsyncFn(S) -> Round,
    ) -> Self {
        let begins_with = number.is_multiple_of(2);
        let (first, second) = if begins_with { (with, without) } else { (without, with) };
        let mut rounds = Vec::new();
        for side in [first, second, second, first] {
            rounds.push(drive(side).await);
        }
        let outer = Round::mean(rounds[0], rounds[3]);
        let inner = Round::mean(rounds[1], rounds[2]);
        if begins_with {
            Self { with: outer, without: inner }
        } else {
            Self { with: inner, without: outer }
        }
    }

    /// What is left of the rate, in each pair.
    pub(crate) fn ratios(pairs: &[Self]) -> Ratios {
        pairs.iter().map(|pair| pair.with.rate / pair.without.rate).collect()
    }
}

/// Prints what lies behind the ratios: each of them, the rates, and what the server spends on each
/// answer.
pub(crate) fn print_cost(
    report: &Report,
    pairs: &[Pair],
    (with, without): (&str, &str),
    server: &str,
    answer: &str,
) {
    report.figure("    of each pair, sorted", &Pair::ratios(pairs).all());
    let median = |of: fn(&Pair) -> f64| pairs.iter().map(of).collect::<Ratios>().median();
    report.figure(
        &format!("    median rate {with}, {without}"),
        &format!("{:.0}/s, {:.0}/s", median(|p| p.with.rate), median(|p| p.without.rate)),
    );
    report.figure(
        &format!("    {server}'s CPU time per {answer} {with}, {without}"),
        &format!(
            "{:.1} µs, {:.1} µs; {without} ÷ {with}, median of pairs {:.3}",
            median(|p| p.with.worker_us),
            median(|p| p.without.worker_us),
            median(|p| p.without.worker_us / p.with.worker_us),
        ),
    );
}
