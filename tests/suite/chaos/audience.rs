//! Every kind of client, at work as long as nothing was to be lost, and what each has to tell then.
//!
//! **Invariants**
//! - A newcomer is never refused and never waits in vain, whatever a step may cost.
//! - No client is ever told anything twice, out of order, or meant for another.

use holdfast_tests::rig::moving::{Account, Accounts, Clients};
use holdfast_tests::rig::{Front, Traffic};

use super::schedule::{Order, Price};

/// How many clients there are of each kind that keeps its connection.
const CLIENTS: usize = 5;
/// How long the agents take that some of them call, in ms at most.
const LONGEST_RUN: u64 = 800;
/// How many clients take one connection after the other: a new one each time, or as long as it lasts, or
/// for an upload.
const ONE_AFTER_THE_OTHER: usize = 3;

/// Clients at work.
pub(super) struct Audience {
    callers: Clients,
    /// Some of these have a run of an agent under way.
    runners: Clients,
    posters: Clients,
    others: Traffic,
    slow: usize,
}

/// What a step came to, for those who lived through it.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Toll {
    /// How many workers were killed, or have killed themselves.
    pub(super) deaths: usize,
    /// How many connections the front says were cut.
    pub(super) cut: usize,
}

impl Audience {
    /// Everybody has come, and was answered.
    pub(super) async fn of(front: &Front) -> Self {
        let audience = Self {
            callers: Clients::calling(front, CLIENTS).await,
            runners: Clients::calling_for_long(front, CLIENTS, LONGEST_RUN).await,
            posters: Clients::posting(front, CLIENTS).await,
            others: Traffic::of_every_kind(front),
            slow: 0,
        };
        audience.others.flows(1).await;
        audience
    }

    /// Has a request under way that takes two seconds.
    pub(super) fn send_slow(&mut self) {
        self.slow += 1;
        self.others.send_slow();
    }

    /// Ends once each that still has its connection is answered again, and newcomers are.
    pub(super) async fn is_served(&self) {
        self.callers.each_is_answered(1).await;
        self.runners.each_is_answered(1).await;
        self.posters.each_is_answered(1).await;
        self.others.flows(1).await;
    }

    /// Lets everybody finish, and compares what they tell with the price of what they lived through.
    pub(super) async fn leaves(self, price: Price, order: Order, toll: Toll) {
        self.is_served().await;
        let tally = self.others.stop().await;
        let callers = self.callers.stop().await;
        let runners = self.runners.stop().await;
        let posters = self.posters.stop().await;
        let in_hand = ONE_AFTER_THE_OTHER * (toll.deaths + 1) + self.slow;
        match price {
            Price::Nothing => {
                tally.assert_no_failures();
                for accounts in [&callers, &runners, &posters] {
                    accounts.assert_nobody_noticed();
                }
            }
            Price::ToldOrCounted => {
                callers.assert_no_faults();
                posters.assert_no_faults();
                only_runs_are_lost(&runners);
                tally.assert_cut_at_most(toll.cut);
                let mut silent = in_silence(&callers) + in_silence(&runners);
                if order == Order::StartFirst {
                    silent += in_silence(&posters);
                }
                assert!(silent <= toll.cut, "{silent} ended without a word: {toll:?}");
            }
            Price::WhatTheKilledHad => {
                callers.assert_no_faults();
                posters.assert_no_faults();
                only_runs_are_lost(&runners);
                tally.assert_cut_at_most(toll.cut + in_hand);
            }
        }
    }
}

/// Whoever asked for a run that ended with its generation is told so, and of nothing else.
fn only_runs_are_lost(runners: &Accounts) {
    let faults = runners.iter().flat_map(|account| &account.faults);
    let others: Vec<_> = faults.filter(|fault| !fault.contains("UNAVAILABLE")).collect();
    assert!(others.is_empty(), "{others:#?}");
}

/// How many connections have ended without a word.
fn in_silence(accounts: &Accounts) -> usize {
    let silent = |account: &&Account| account.lost.is_some() && !account.told;
    accounts.iter().filter(silent).count()
}
