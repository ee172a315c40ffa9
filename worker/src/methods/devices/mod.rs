//! `device.pair.*` and `device.token.*`: who may connect, decided by those who may pair.
//!
//! **Invariants**
//! - Nothing is answered before it is on disk.
//! - A client is told no path; whoever can repair a file finds it in the log.

pub(crate) mod announce;

use std::sync::Arc;

use serde::Deserialize;
use serde::de::DeserializeOwned;
use tracing::{error, info};

use self::announce::Decision;

use super::{Call, Knowledge, Refusal, now_ms};
use crate::identity::{AdministrationRefused, Caller};
use crate::shape::{Field, Shape};

pub(super) static LIST_PARAMS: Shape = Shape::Object(&[]);
pub(super) static REQUEST_PARAMS: Shape =
    Shape::Object(&[Field::required("requestId", Shape::Text)]);
pub(super) static REMOVE_PARAMS: Shape = Shape::Object(&[Field::required("deviceId", Shape::Text)]);
pub(super) static REVOKE_PARAMS: Shape = Shape::Object(&[
    Field::required("deviceId", Shape::Text),
    Field::required("role", Shape::Text),
]);
pub(super) static ROTATE_PARAMS: Shape = Shape::Object(&[
    Field::required("deviceId", Shape::Text),
    Field::required("role", Shape::Text),
    Field::optional("scopes", Shape::List(&Shape::Text)),
]);

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct OfRequest {
    request_id: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct OfDevice {
    device_id: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct OfToken {
    device_id: String,
    role: String,
    scopes: Option<Vec<String>>,
}

pub(super) async fn list(knowledge: Arc<Knowledge>, call: Call) {
    let listed = knowledge.devices.list(&call.caller, now_ms()).await;
    call.reply.outcome(listed.map_err(refusal));
}

pub(super) async fn approve(knowledge: Arc<Knowledge>, call: Call) {
    let outcome = async {
        let (OfRequest { request_id }, caller) = asked(&call)?;
        let approved = knowledge.devices.approve(request_id, caller, now_ms()).await;
        let approved = approved.map_err(refusal)?;
        let device_id = approved.device["deviceId"].as_str().unwrap_or_default();
        info!(device = device_id, "a device was approved");
        let post = knowledge.runs.post();
        announce::resolved(post, &approved.request_id, device_id, Decision::Approved);
        Ok(approved)
    };
    let outcome: Result<_, Refusal> = outcome.await;
    call.reply.outcome(outcome);
}

pub(super) async fn reject(knowledge: Arc<Knowledge>, call: Call) {
    let outcome = async {
        let (OfRequest { request_id }, caller) = asked(&call)?;
        let rejected = knowledge.devices.reject(request_id, caller, now_ms()).await;
        let rejected = rejected.map_err(refusal)?;
        let post = knowledge.runs.post();
        announce::resolved(post, &rejected.request_id, &rejected.device_id, Decision::Rejected);
        Ok(rejected)
    };
    let outcome: Result<_, Refusal> = outcome.await;
    call.reply.outcome(outcome);
}

pub(super) async fn remove(knowledge: Arc<Knowledge>, call: Call) {
    let outcome = async {
        let (OfDevice { device_id }, caller) = asked(&call)?;
        let removed = knowledge.devices.remove(device_id.clone(), caller, now_ms()).await;
        let removed = removed.map_err(refusal)?;
        info!(device = device_id, "a device was removed");
        Ok(removed)
    };
    let outcome: Result<_, Refusal> = outcome.await;
    call.reply.outcome(outcome);
}

pub(super) async fn rotate(knowledge: Arc<Knowledge>, call: Call) {
    let outcome = async {
        let (OfToken { device_id, role, scopes }, caller) = asked(&call)?;
        let of = (device_id, role);
        knowledge.devices.rotate(of, scopes, caller, now_ms()).await.map_err(refusal)
    };
    let outcome: Result<_, Refusal> = outcome.await;
    call.reply.outcome(outcome);
}

pub(super) async fn revoke(knowledge: Arc<Knowledge>, call: Call) {
    let outcome = async {
        let (OfToken { device_id, role, .. }, caller) = asked(&call)?;
        let of = (device_id.clone(), role);
        let revoked = knowledge.devices.revoke(of, caller, now_ms()).await.map_err(refusal)?;
        info!(device = device_id, "a token of a device was revoked");
        Ok(revoked)
    };
    let outcome: Result<_, Refusal> = outcome.await;
    call.reply.outcome(outcome);
}

/// What is asked for, and by whom.
fn asked<P: DeserializeOwned>(call: &Call) -> Result<(P, Caller), Refusal> {
    Ok((call.read()?, call.caller.clone()))
}

fn refusal(refused: AdministrationRefused) -> Refusal {
    let words = refused.to_string();
    match refused {
        AdministrationRefused::Unusable(reason) => {
            error!(reason = %handoff::chain(&reason), "the table of devices cannot be used");
            Refusal::unavailable(words)
        }
        AdministrationRefused::Approval(_)
        | AdministrationRefused::UnknownRequest
        | AdministrationRefused::UnknownDevice
        | AdministrationRefused::Denied { .. } => Refusal::invalid(words),
    }
}
