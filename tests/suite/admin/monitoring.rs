//! What `deploy/monitoring` says: every metric in it is one that a front has, and every alert is in the runbook.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use holdfast_tests::rig::Front;
use serde_json::Value;
use tokio::process::Command;

use super::metrics::Scrape;
use super::{Page, with_page};
use crate::skipped;

fn deployed(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy").join(name)
}

fn read(name: &str) -> String {
    let path = deployed(name);
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The metrics of ours that a text names.
fn named(text: &str) -> BTreeSet<String> {
    let part = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
    let words = text.split(|c| !part(c)).filter(|word| word.starts_with("holdfast_"));
    words.map(str::to_owned).collect()
}

/// The anchor of a heading, as GitHub makes it.
fn anchor(heading: &str) -> String {
    let kept = |c: char| match c {
        ' ' => Some('-'),
        c if c.is_alphanumeric() || c == '-' || c == '_' => Some(c.to_ascii_lowercase()),
        _ => None,
    };
    heading.trim_start_matches('#').trim().chars().filter_map(kept).collect()
}

#[tokio::test]
async fn every_metric_of_the_dashboard_and_the_alerts_is_one_that_a_front_has() {
    let front = Front::with(with_page).await;
    let series = Scrape::of(&Page::of(&front).await).await.series();
    for (file, least) in [("monitoring/alerts.yml", 10), ("monitoring/grafana.json", 15)] {
        let named = named(&read(file));
        assert!(named.len() >= least, "{file}: {named:?}");
        let unknown: Vec<_> = named.difference(&series).collect();
        assert!(unknown.is_empty(), "{file} has {unknown:?}");
    }
    let runbook = named(&read("RUNBOOK.md"));
    assert!(runbook.is_subset(&series), "{runbook:?}");
}

#[test]
fn every_alert_leads_to_a_heading_of_the_runbook() {
    let alerts = read("monitoring/alerts.yml");
    let runbook = read("RUNBOOK.md");
    let headings: BTreeSet<_> =
        runbook.lines().filter(|line| line.starts_with('#')).map(anchor).collect();
    let links: Vec<_> = alerts
        .lines()
        .filter_map(|line| line.trim().strip_prefix("runbook_url: "))
        .map(|url| url.split_once("/deploy/RUNBOOK.md#").expect("it is the runbook's").1)
        .collect();
    assert_eq!(links.len(), alerts.matches("- alert: ").count(), "each alert has one");
    for link in links {
        assert!(headings.contains(link), "the runbook has no #{link}");
    }
    for link in runbook.split("](#").skip(1).filter_map(|rest| rest.split(')').next()) {
        assert!(headings.contains(link), "the runbook leads to #{link}, and has it not");
    }
}

#[test]
fn the_dashboard_is_whole() {
    let dashboard: Value =
        serde_json::from_str(&read("monitoring/grafana.json")).expect("it is JSON");
    let panels = dashboard["panels"].as_array().expect("it has panels");
    assert!(panels.len() > 10);
    let mut ids = BTreeSet::new();
    for panel in panels {
        assert!(ids.insert(panel["id"].as_u64()), "a second time: {}", panel["id"]);
        let place = &panel["gridPos"];
        let right = place["x"].as_u64().unwrap_or(99) + place["w"].as_u64().unwrap_or(99);
        assert!(right <= 24, "{} is beyond the edge", panel["title"]);
        for target in panel["targets"].as_array().expect("it shows something") {
            assert_eq!(target["datasource"]["uid"], "${datasource}", "{}", panel["title"]);
            let expression = target["expr"].as_str().expect("it asks for something");
            assert_eq!(expression.matches('(').count(), expression.matches(')').count());
        }
    }
}

/// Ends well, and says what it says otherwise.
async fn accepted(mut command: Command) {
    let output = command.stdin(Stdio::null()).output().await.expect("it can be started");
    let said = [&output.stdout[..], &output.stderr].map(String::from_utf8_lossy).concat();
    assert!(output.status.success(), "{command:?}: {said}");
}

#[tokio::test]
async fn prometheus_takes_the_configuration_the_alerts_and_what_a_front_says() {
    if Command::new("promtool").arg("--version").output().await.is_err() {
        return skipped("promtool is not installed");
    }
    let mut rules = Command::new("promtool");
    rules.args(["check", "rules"]).arg(deployed("monitoring/alerts.yml"));
    accepted(rules).await;
    let mut configuration = Command::new("promtool");
    configuration.args(["check", "config"]).arg(deployed("monitoring/prometheus.yml"));
    accepted(configuration).await;
    // The expressions of the dashboard, with Grafana's own variables filled in.
    let dashboard: Value =
        serde_json::from_str(&read("monitoring/grafana.json")).expect("it is JSON");
    let panels = dashboard["panels"].as_array().into_iter().flatten();
    let targets = panels.flat_map(|panel| panel["targets"].as_array().into_iter().flatten());
    let expressions: Vec<_> = targets.filter_map(|target| target["expr"].as_str()).collect();
    let mut text = "groups:\n  - name: dashboard\n    rules:\n".to_owned();
    for (at, expression) in expressions.iter().enumerate() {
        let expression = expression.replace("$__rate_interval", "1m").replace("$instance", ".*");
        let quoted = serde_json::to_string(&expression).expect("text is JSON");
        text += &format!("      - record: panel_{at}\n        expr: {quoted}\n");
    }
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), text).unwrap();
    let mut panels = Command::new("promtool");
    panels.args(["check", "rules"]).arg(file.path());
    accepted(panels).await;

    let front = Front::with(with_page).await;
    let scrape = Page::of(&front).await.get("/metrics").await.body;
    let mut metrics = Command::new("promtool");
    metrics.args(["check", "metrics"]).stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut child = metrics.stderr(Stdio::piped()).spawn().expect("it can be started");
    let mut stdin = child.stdin.take().expect("its stdin is a pipe");
    tokio::io::AsyncWriteExt::write_all(&mut stdin, &scrape).await.expect("it reads");
    drop(stdin);
    let output = child.wait_with_output().await.expect("it ends");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success() && said.is_empty(), "{said}");
}
