//! The metrics, read as strictly as the format allows, and followed through what happens.

use std::collections::{BTreeMap, BTreeSet};

use holdfast_tests::rig::{Front, Signal, WebSocket, eventually};

use super::{Page, slow_request};
use crate::{fixture, quick};

/// A label and all its words.
type Label = (&'static str, &'static [&'static str]);

/// The labels of every family that has any, and all their words.
const LABELS: [(&str, &[Label]); 8] = [
    ("holdfast_reexecs_total", &[("outcome", &["done", "failed"])]),
    ("holdfast_generations", &[("role", &["starting", "standby", "serving", "draining"])]),
    (
        "holdfast_connections",
        &[("role", &["serving", "draining"]), ("kind", &["http", "websocket"])],
    ),
    ("holdfast_in_flight", &[("role", &["serving", "draining"])]),
    (
        "holdfast_worker_resident_bytes",
        &[("role", &["starting", "standby", "serving", "draining"])],
    ),
    ("holdfast_takeovers_total", &[("outcome", &["committed", "rolled_back"])]),
    (
        "holdfast_connections_moved_total",
        &[
            ("outcome", &["moved", "finished", "closed", "cut", "lost"]),
            ("kind", &["http", "websocket"]),
        ],
    ),
    (
        "holdfast_worker_restarts_total",
        &[(
            "reason",
            &["exited", "signalled", "out_of_memory", "unknown", "not_serving", "standby_failed"],
        )],
    ),
];
const PHASES: [&str; 6] = ["emptying", "starting", "admitting", "switching", "soaking", "draining"];

type Labels = Vec<(String, String)>;

/// One family of a scrape.
#[derive(Debug, Default)]
struct Family {
    kind: String,
    samples: Vec<(String, Labels, f64)>,
}

/// A scrape that kept to the format.
#[derive(Debug)]
pub(super) struct Scrape {
    families: BTreeMap<String, Family>,
}

impl Scrape {
    pub(super) async fn of(page: &Page) -> Self {
        let answer = page.get("/metrics").await;
        assert_eq!(answer.code, 200, "{}", answer.text());
        Self::read(&answer.text())
    }

    /// Every series name, with those that a histogram is made of.
    pub(super) fn series(&self) -> BTreeSet<String> {
        self.families
            .values()
            .flat_map(|family| family.samples.iter().map(|s| s.0.clone()))
            .collect()
    }

    fn read(text: &str) -> Self {
        assert!(text.ends_with('\n'), "the last line has an end");
        let mut families: BTreeMap<String, Family> = BTreeMap::new();
        let mut current = String::new();
        for line in text.lines() {
            if let Some(help) = line.strip_prefix("# HELP ") {
                let (name, words) = help.split_once(' ').expect("a help has words");
                assert!(words.ends_with('.') || words.contains(';'), "{line}");
                let before = families.insert(name.to_owned(), Family::default());
                assert!(before.is_none(), "a second time: {line}");
                current = name.to_owned();
            } else if let Some(kind) = line.strip_prefix("# TYPE ") {
                let (name, kind) = kind.split_once(' ').expect("a type has a word");
                assert_eq!(name, current, "HELP and TYPE are together");
                assert!(["counter", "gauge", "histogram"].contains(&kind), "{line}");
                assert_eq!(kind == "counter", name.ends_with("_total"), "{line}");
                families.get_mut(name).expect("just seen").kind = kind.to_owned();
            } else {
                let (name, labels, value) = sample(line);
                let family = families.get_mut(&current).expect("a family before its samples");
                let parts = ["_bucket", "_sum", "_count"].map(|end| format!("{current}{end}"));
                let expected = if family.kind == "histogram" {
                    parts.contains(&name)
                } else {
                    name == current
                };
                assert!(expected, "{line} is not of {current}");
                let is_new = family.samples.iter().all(|(n, l, _)| (n, l) != (&name, &labels));
                assert!(is_new, "a second time: {line}");
                family.samples.push((name, labels, value));
            }
        }
        for (name, family) in &families {
            assert!(name.starts_with("holdfast_"), "{name}");
            assert!(!family.kind.is_empty() && !family.samples.is_empty(), "{name} has nothing");
        }
        Self { families }
    }

    /// The number of a series.
    fn value(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        let family = self
            .families
            .iter()
            .find(|(family, _)| name.starts_with(family.as_str()) && self.has(family, name))
            .unwrap_or_else(|| panic!("no {name}"))
            .1;
        let same = |l: &Labels| {
            l.len() == labels.len()
                && l.iter().zip(labels).all(|(a, b)| (a.0.as_str(), a.1.as_str()) == *b)
        };
        let found = family.samples.iter().find(|(n, l, _)| n == name && same(l));
        found.unwrap_or_else(|| panic!("no {name} with {labels:?}")).2
    }

    fn has(&self, family: &str, series: &str) -> bool {
        self.families[family].samples.iter().any(|(name, _, _)| name == series)
    }

    fn one(&self, name: &str) -> f64 {
        self.value(name, &[])
    }

    fn takeovers(&self, outcome: &str) -> f64 {
        self.value("holdfast_takeovers_total", &[("outcome", outcome)])
    }

    fn phase(&self, phase: &str) -> f64 {
        self.value("holdfast_takeover_phase_seconds_count", &[("phase", phase)])
    }

    fn restarts(&self, reason: &str) -> f64 {
        self.value("holdfast_worker_restarts_total", &[("reason", reason)])
    }

    /// Every counter, and every part of a histogram.
    fn counters(&self) -> Vec<(String, f64)> {
        let counts = |family: &&Family| family.kind != "gauge";
        let all = self.families.values().filter(counts).flat_map(|family| &family.samples);
        all.map(|(name, labels, value)| (format!("{name}{labels:?}"), *value)).collect()
    }

    #[track_caller]
    fn assert_none_less_than(&self, before: &Self) {
        let now: BTreeMap<_, _> = self.counters().into_iter().collect();
        for (name, value) in before.counters() {
            assert!(now[&name] >= value, "{name} went from {value} to {}", now[&name]);
        }
    }
}

/// `name{label="word",…} value`.
fn sample(line: &str) -> (String, Labels, f64) {
    let (series, value) = line.rsplit_once(' ').unwrap_or_else(|| panic!("no sample: {line:?}"));
    let value: f64 = value.parse().unwrap_or_else(|_| panic!("no number: {line:?}"));
    assert!(value.is_finite() && value >= 0.0, "{line}");
    let is_name = |name: &str| {
        !name.is_empty()
            && name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_')
    };
    let (name, labels) = match series.split_once('{') {
        None => (series, Vec::new()),
        Some((name, rest)) => {
            let inside = rest.strip_suffix('}').unwrap_or_else(|| panic!("no end: {line:?}"));
            let pair = |pair: &str| {
                let (label, word) = pair.split_once("=\"").expect("a label has a word");
                let word = word.strip_suffix('"').expect("in quotes");
                assert!(is_name(label) && !word.contains(['"', '\\']), "{line}");
                (label.to_owned(), word.to_owned())
            };
            (name, inside.split(',').map(pair).collect())
        }
    };
    assert!(is_name(name), "{line}");
    (name.to_owned(), labels, value)
}

/// Every combination of the words of labels, in order.
fn combined(labels: &[Label]) -> Vec<Labels> {
    labels.iter().fold(vec![Vec::new()], |all, (label, words)| {
        let more = |before: Labels| {
            let one = move |word: &&str| {
                let mut labels = before.clone();
                labels.push(((*label).to_owned(), (*word).to_owned()));
                labels
            };
            words.iter().map(one).collect::<Vec<_>>()
        };
        all.into_iter().flat_map(more).collect()
    })
}

fn assert_closed(scrape: &Scrape) {
    for (name, family) in &scrape.families {
        let known = LABELS.iter().find(|(known, _)| known == name);
        let found: Vec<&Labels> = family.samples.iter().map(|(_, labels, _)| labels).collect();
        match (name.as_str(), known) {
            ("holdfast_build_info", _) => {
                let names: Vec<_> = found[0].iter().map(|(label, _)| label.as_str()).collect();
                assert_eq!((names, found.len()), (vec!["version", "commit"], 1));
            }
            ("holdfast_takeover_phase_seconds", _) => {}
            (_, Some((_, labels))) => {
                let all = combined(labels);
                assert_eq!(found, all.iter().collect::<Vec<_>>(), "{name}");
            }
            (_, None) => assert_eq!(found, [&Vec::new()], "{name} has labels"),
        }
    }
    assert_histogram(scrape);
}

fn assert_histogram(scrape: &Scrape) {
    let name = "holdfast_takeover_phase_seconds";
    let family = &scrape.families[name];
    let mut phases = Vec::new();
    for phase in PHASES {
        let of: Vec<_> =
            family.samples.iter().filter(|(_, labels, _)| labels[0].1 == phase).collect();
        let (mut last_bound, mut last_count) = (0.0, 0.0);
        for (_, labels, count) in of.iter().filter(|(n, _, _)| n.ends_with("_bucket")) {
            assert_eq!((labels[0].0.as_str(), labels[1].0.as_str()), ("phase", "le"));
            let bound = match labels[1].1.as_str() {
                "+Inf" => f64::INFINITY,
                word => word.parse().expect("a bound is a number"),
            };
            assert!(bound > last_bound && *count >= last_count, "{phase} {labels:?}");
            (last_bound, last_count) = (bound, *count);
        }
        assert!(last_bound.is_infinite(), "{phase} ends with +Inf");
        #[expect(clippy::float_cmp, reason = "whole numbers")]
        let whole = last_count == scrape.phase(phase);
        assert!(whole, "{phase}: +Inf is the count");
        phases.push(of.len());
    }
    assert_eq!(phases.iter().sum::<usize>(), family.samples.len(), "a phase that nobody knows");
}

#[tokio::test]
#[expect(clippy::float_cmp, reason = "counters are whole numbers")]
async fn numbers_follow_takeovers_rollbacks_crashes_and_reexecs_and_never_go_back() {
    let front = Front::with(|s| quick(s).flag("--admin", "127.0.0.1:0")).await;
    let page = Page::of(&front).await;
    let first = Scrape::of(&page).await;
    assert_closed(&first);
    assert_eq!((first.one("holdfast_up"), first.one("holdfast_ready")), (1.0, 1.0));
    assert_eq!((first.takeovers("committed"), first.phase("soaking")), (0.0, 0.0));

    let socket = WebSocket::connected(&front.address()).await;
    front.takeover().await.assert_committed();
    let second = once(&page, |s| s.phase("draining") == 1.0).await;
    assert_eq!((second.takeovers("committed"), second.takeovers("rolled_back")), (1.0, 0.0));
    for phase in ["starting", "admitting", "switching", "soaking"] {
        assert_eq!(second.phase(phase), 1.0, "{phase}");
    }
    let moved = [("outcome", "moved"), ("kind", "websocket")];
    assert_eq!(second.value("holdfast_connections_moved_total", &moved), 1.0);
    let open = [("role", "serving"), ("kind", "websocket")];
    once(&page, |s| s.value("holdfast_connections", &open) == 1.0).await;
    drop(socket);
    second.assert_none_less_than(&first);

    front.takeover_to(&fixture(["exit:7"])).await.assert_rolled_back();
    let third = once(&page, |s| s.takeovers("rolled_back") == 1.0).await;
    assert_eq!((third.takeovers("committed"), third.phase("soaking")), (1.0, 1.0));
    third.assert_none_less_than(&second);

    front.workers().await[0].signal(Signal::SIGKILL);
    let fourth =
        once(&page, |s| s.restarts("signalled") == 1.0 && s.one("holdfast_ready") == 1.0).await;
    assert_eq!(fourth.one("holdfast_worker_crashes_total"), 1.0);
    fourth.assert_none_less_than(&third);

    front.run(&["reexec"]).await.assert_code(0);
    let done = [("outcome", "done")];
    let last = once(&page, |s| s.value("holdfast_reexecs_total", &done) == 1.0).await;
    last.assert_none_less_than(&fourth);
    assert_closed(&last);
    assert_eq!(last.series(), first.series(), "a series came or went");
    let version = &front.status().await.front.version;
    let told = &last.families["holdfast_build_info"].samples[0].1;
    assert_eq!(*version, format!("{} ({})", told[0].1, told[1].1));
}

/// The first scrape of which this holds.
async fn once(page: &Page, holds: impl Fn(&Scrape) -> bool) -> Scrape {
    let what = "the metrics tell of it";
    eventually(what, async || Some(Scrape::of(page).await).filter(|scrape| holds(scrape))).await
}

#[tokio::test]
async fn a_drain_is_as_old_as_its_oldest_work() {
    let front = Front::with(|s| quick(s).flag("--admin", "127.0.0.1:0")).await;
    let page = Page::of(&front).await;
    let _slow = slow_request(&front).await;
    front.run(&["takeover", "--no-wait"]).await.assert_code(0);
    let scrape = once(&page, |s| s.one("holdfast_drain_oldest_seconds") > 0.5).await;
    assert!(scrape.value("holdfast_in_flight", &[("role", "draining")]) > 0.5);
    front.run(&["drain", "--now", "g1"]).await.assert_code(0);
    let cut = [("outcome", "cut"), ("kind", "http")];
    let last = once(&page, |s| s.value("holdfast_connections_moved_total", &cut) > 0.5).await;
    assert!(last.one("holdfast_drain_oldest_seconds") < 0.001);
}
