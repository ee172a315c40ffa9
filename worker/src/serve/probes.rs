//! The probes: whether this process lives, whether it has started, whether it could serve now.

use hyper::StatusCode;
use hyper::header::{CACHE_CONTROL, HeaderValue};
use serde::Serialize;

use super::Gateway;
use super::answer::{self, Response};

/// What a readiness probe is told.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Verdict {
    ready: bool,
    /// Names of conditions.
    failing: Vec<String>,
    uptime_ms: u64,
}

/// Whether the process answers at all; a draining one does.
pub(super) fn live() -> Response {
    fresh(answer::ready_json(StatusCode::OK, r#"{"ok":true,"status":"live"}"#))
}

/// Whether newcomers should be sent here: not before it is ready, and not while it drains.
pub(super) fn ready(gateway: &Gateway) -> Response {
    let mut failing = gateway.readiness.failing();
    if gateway.is_draining() {
        failing.push("draining".to_owned());
    }
    verdict(gateway, failing)
}

/// Whether it has ever been ready: a drain is no reason to start it again.
pub(super) fn started(gateway: &Gateway) -> Response {
    let failing =
        if gateway.readiness.has_opened() { Vec::new() } else { gateway.readiness.failing() };
    verdict(gateway, failing)
}

fn verdict(gateway: &Gateway, failing: Vec<String>) -> Response {
    let ready = failing.is_empty();
    let status = if ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    fresh(answer::json(status, &Verdict { ready, failing, uptime_ms: gateway.uptime_ms() }))
}

/// What a probe is told holds for this instant only.
fn fresh(mut response: Response) -> Response {
    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}
