//! What the worker says of itself to Prometheus.

use crate::rig::{Worker, backend, saying, within};

/// The metrics, as a client with the token reads them.
async fn metrics(worker: &Worker) -> String {
    let reply = worker.get("/metrics").await;
    assert_eq!(reply.status, 200);
    let kind = Some("text/plain; version=0.0.4; charset=utf-8");
    assert_eq!(reply.header("content-type"), kind);
    reply.body
}

/// The value of a line that begins with this.
fn value(text: &str, line: &str) -> u64 {
    let found = text.lines().find_map(|of| of.strip_prefix(line)?.strip_prefix(' '));
    found.unwrap_or_else(|| panic!("no {line} in {text}")).parse().unwrap()
}

#[tokio::test]
async fn metrics_are_for_who_knows_the_token_and_for_reading_only() {
    let worker = Worker::start().await;
    assert_eq!(worker.ask("GET /metrics HTTP/1.1\r\nhost: x\r\n\r\n").await.status, 401);
    let reply = worker.ask("POST /metrics HTTP/1.1\r\nhost: x\r\n\r\n").await;
    assert_eq!((reply.status, reply.header("allow")), (405, Some("GET, HEAD")));
}

#[tokio::test]
async fn what_was_done_is_counted_by_closed_sets_of_labels() {
    let worker = Worker::start().await;
    assert_eq!(worker.get("/healthz").await.status, 200);
    assert_eq!(worker.get("/made-up").await.status, 404);
    assert_eq!(worker.complete(&saying("hello")).await.status, 200);
    assert_eq!(worker.complete(&saying("/fail no idea")).await.status, 500);
    let mut socket = worker.websocket().await;
    socket.connect_as(backend()).await;
    socket.call("health").await;
    socket.call("made.up").await;

    let text = metrics(&worker).await;
    for (line, least) in [
        ("requests_total{route=\"probe\",status=\"2xx\"}", 1),
        ("requests_total{route=\"other\",status=\"4xx\"}", 1),
        ("requests_total{route=\"completion\",status=\"2xx\"}", 1),
        ("requests_total{route=\"completion\",status=\"5xx\"}", 1),
        ("requests_total{route=\"upgrade\",status=\"1xx\"}", 1),
        ("request_seconds_bucket{route=\"completion\",le=\"+Inf\"}", 2),
        ("request_seconds_count{route=\"completion\"}", 2),
        ("calls_total{method=\"health\"}", 1),
        ("calls_total{method=\"other\"}", 1),
        ("calls_total{method=\"cron.list\"}", 0),
        ("runs_total{outcome=\"finished\"}", 1),
        ("runs_total{outcome=\"failed\"}", 1),
        ("run_failures_total{reason=\"unknown\"}", 1),
        ("run_failures_total{reason=\"timeout\"}", 0),
        ("connections{kind=\"websocket\"}", 1),
    ] {
        assert_eq!(value(&text, &format!("holdfast_worker_{line}")), least, "{line}: {text}");
    }
    // They are counted a moment later, once for all that have come by then.
    within("the sessions to be counted", async {
        while value(&metrics(&worker).await, "holdfast_worker_sessions") < 2 {}
    })
    .await;
    assert!(!text.contains("made"), "what a client said became a label: {text}");
}

#[tokio::test]
async fn every_family_is_explained_once_before_its_first_line() {
    let worker = Worker::start().await;
    let text = metrics(&worker).await;
    let mut known = Vec::new();
    for line in text.lines() {
        if let Some(rest) = line.strip_prefix("# TYPE ") {
            let (name, kind) = rest.split_once(' ').unwrap();
            assert!(["counter", "gauge", "histogram"].contains(&kind), "{line}");
            assert!(!known.contains(&name), "{name} is explained twice");
            known.push(name);
        } else if !line.starts_with("# HELP ") {
            let name = line.split(['{', ' ']).next().unwrap();
            let of = |family: &str| name == family || name.starts_with(&format!("{family}_"));
            assert!(known.iter().any(|family| of(family)), "{line}");
            let value = line.rsplit(' ').next().unwrap();
            assert!(value.parse::<f64>().is_ok_and(f64::is_finite), "{line}");
        }
    }
    assert_eq!(known.len(), 9, "{known:?}");
}
