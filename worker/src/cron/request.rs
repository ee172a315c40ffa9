//! What clients may write in a job, checked before it is kept.
//!
//! **Invariants**
//! - What is wrong is named with its place, in the words clients know: `at /schedule/everyMs: must be >= 1`.
//! - Unknown keys are refused in what a client sends; what is kept already may have more.

use serde_json::{Map, Value, json};

use super::job::Definition;
use super::schedule::{Schedule, ScheduleInvalid, instant};
use super::shapes::{ALERT, AT, CRON, DELIVERY, EVENT, EVERY, JOB, PATCH, TURN};
use crate::shape::Violations;

/// What is wrong with a job.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Invalid {
    /// It does not look like one.
    #[error(transparent)]
    Shape(#[from] Violations),
    /// Its schedule cannot be understood.
    #[error(transparent)]
    Schedule(#[from] ScheduleInvalid),
    /// It would have run already.
    #[error("schedule.at is in the past: {at}")]
    Past {
        /// When.
        at: String,
    },
    /// It would run when nobody remembers.
    #[error("schedule.at is too far in the future: {at}; at most 10 years are allowed")]
    TooFar {
        /// When.
        at: String,
    },
    /// It says where it runs, and there is no such place.
    #[error(
        "at /sessionTarget: must be \"main\", \"isolated\", \"current\" or \"session:<id>\" (got {target:?})"
    )]
    Target {
        /// What was there.
        target: String,
    },
    /// Events are for the main session.
    #[error("main cron jobs require payload.kind=\"systemEvent\"")]
    MainNeedsEvent,
    /// Turns are for all others.
    #[error("isolated/current/session cron jobs require payload.kind=\"agentTurn\"")]
    OthersNeedTurn,
    /// Its answer goes nowhere.
    #[error("at /delivery: must have required property '{property}'")]
    Delivery {
        /// What is missing.
        property: &'static str,
    },
    /// What is left after a change is no job.
    #[error("the job would not be complete: {reason}")]
    Incomplete {
        /// What is missing.
        reason: serde_json::Error,
    },
}

/// A job that is to be kept: its JSON, and the same understood.
#[derive(Debug)]
pub(crate) struct Checked {
    /// What to keep.
    pub(crate) json: Map<String, Value>,
    /// What it says.
    pub(crate) definition: Definition,
    /// Whether it runs by itself.
    pub(crate) enabled: bool,
}

/// These may be `null`: none, or none any more.
const NULLABLE: [&str; 2] = ["agentId", "sessionKey"];

/// Checks the parameters of `cron.add`, and adds what a client may leave out.
///
/// # Errors
/// [`Invalid`]
pub(super) fn check_new(params: &Value, now_ms: i64) -> Result<Checked, Invalid> {
    let mut params = params.clone();
    if let Value::Object(fields) = &mut params {
        fields.retain(|name, value| !(value.is_null() && NULLABLE.contains(&name.as_str())));
    }
    JOB.check(&params)?;
    check_parts(&params)?;
    let Value::Object(mut json) = params else { unreachable!("the shape is an object") };
    let enabled = json.remove("enabled").is_none_or(|enabled| enabled == json!(true));
    let kind = json["schedule"]["kind"].as_str().unwrap_or_default().to_owned();
    if kind == "at" {
        json.entry("deleteAfterRun").or_insert(json!(true));
    }
    if kind == "every" && json["schedule"].get("anchorMs").is_none() {
        json["schedule"]["anchorMs"] = json!(now_ms);
    }
    if json["payload"]["kind"] == "agentTurn" {
        json.entry("delivery").or_insert_with(|| json!({"mode": "announce"}));
    }
    let checked = understand(json, enabled)?;
    check_instant(&checked.definition.schedule, now_ms)?;
    Ok(checked)
}

/// Checks the patch of `cron.update`, and applies it to a job.
///
/// # Errors
/// [`Invalid`]
pub(super) fn check_patch(
    mut json: Map<String, Value>,
    enabled: bool,
    patch: &Value,
    now_ms: i64,
) -> Result<Checked, Invalid> {
    let mut patch = patch.clone();
    if let Value::Object(fields) = &mut patch {
        for name in NULLABLE {
            if fields.get(name).is_some_and(Value::is_null) {
                fields.remove(name);
                json.remove(name);
            }
        }
    }
    PATCH.check(&patch)?;
    check_parts(&patch)?;
    let Value::Object(mut patch) = patch else { unreachable!("the shape is an object") };
    let enabled = patch.remove("enabled").map_or(enabled, |enabled| enabled == json!(true));
    let rescheduled = patch.contains_key("schedule");
    for (name, value) in patch {
        let merges = match name.as_str() {
            "payload" => json.get("payload").is_some_and(|kept| kept["kind"] == value["kind"]),
            "delivery" => json.contains_key("delivery"),
            _ => false,
        };
        match (json.get_mut(&name), value) {
            (Some(Value::Object(kept)), Value::Object(changes)) if merges => kept.extend(changes),
            (_, value) => {
                json.insert(name, value);
            }
        }
    }
    if rescheduled
        && json["schedule"]["kind"] == "every"
        && json["schedule"].get("anchorMs").is_none()
    {
        json["schedule"]["anchorMs"] = json!(now_ms);
    }
    let checked = understand(json, enabled)?;
    if rescheduled {
        check_instant(&checked.definition.schedule, now_ms)?;
    }
    Ok(checked)
}

/// Checks the parts whose shape depends on their kind.
fn check_parts(params: &Value) -> Result<(), Violations> {
    let part = |name: &'static str| params.get(name).map(|part| json!({ name: part }));
    if let Some(schedule) = part("schedule") {
        match schedule["schedule"]["kind"].as_str() {
            Some("every") => EVERY.check(&schedule)?,
            Some("cron") => CRON.check(&schedule)?,
            _ => AT.check(&schedule)?,
        }
    }
    if let Some(payload) = part("payload") {
        match payload["payload"]["kind"].as_str() {
            Some("systemEvent") => EVENT.check(&payload)?,
            _ => TURN.check(&payload)?,
        }
    }
    if let Some(delivery) = part("delivery") {
        DELIVERY.check(&delivery)?;
    }
    match part("failureAlert") {
        Some(alert) if alert["failureAlert"] != json!(false) => ALERT.check(&alert),
        _ => Ok(()),
    }
}

/// Checks what the parts say together.
fn understand(json: Map<String, Value>, enabled: bool) -> Result<Checked, Invalid> {
    let definition: Definition = serde_json::from_value(Value::Object(json.clone()))
        .map_err(|reason| Invalid::Incomplete { reason })?;
    let target = definition.session_target.as_str();
    let is_event = json["payload"]["kind"] == "systemEvent";
    match target {
        "main" if !is_event => return Err(Invalid::MainNeedsEvent),
        "main" => {}
        "isolated" | "current" => {
            if is_event {
                return Err(Invalid::OthersNeedTurn);
            }
        }
        _ => {
            let id = target.strip_prefix("session:").unwrap_or_default();
            let strange = |c: char| c.is_control() || c == '/' || c == '\\';
            if id.is_empty() || id.contains(strange) {
                return Err(Invalid::Target { target: target.to_owned() });
            }
            if is_event {
                return Err(Invalid::OthersNeedTurn);
            }
        }
    }
    if let Some(delivery) = &definition.delivery {
        let webhook = delivery.get("mode").is_some_and(|mode| mode == "webhook");
        let property = if webhook { "to" } else { "mode" };
        if delivery.get(property).is_none() {
            return Err(Invalid::Delivery { property });
        }
    }
    definition.schedule.timetable("", 0)?;
    Ok(Checked { json, definition, enabled })
}

/// Refuses an instant that has passed by more than a minute, or is more than ten years away.
fn check_instant(schedule: &Schedule, now_ms: i64) -> Result<(), Invalid> {
    const MINUTE_MS: i64 = 60_000;
    const TEN_YEARS_MS: i64 = 3653 * 24 * 60 * MINUTE_MS;
    let Schedule::At { at } = schedule else { return Ok(()) };
    match instant(at).map(|at_ms| at_ms.saturating_sub(now_ms)) {
        Some(ahead) if ahead < -MINUTE_MS => Err(Invalid::Past { at: at.clone() }),
        Some(ahead) if ahead > TEN_YEARS_MS => Err(Invalid::TooFar { at: at.clone() }),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: i64 = 1_795_225_770_056;

    fn new() -> Value {
        json!({"name": "t1", "schedule": {"kind": "every", "everyMs": 3600000},
            "sessionTarget": "isolated", "wakeMode": "now",
            "payload": {"kind": "agentTurn", "message": "hi"}})
    }

    fn complaint(change: impl FnOnce(&mut Value)) -> String {
        let mut params = new();
        change(&mut params);
        check_new(&params, NOW).unwrap_err().to_string()
    }

    #[test]
    fn what_a_client_leaves_out_is_added_as_it_knows_it() {
        let checked = check_new(&new(), NOW).unwrap();
        assert!(checked.enabled);
        assert_eq!(checked.json["schedule"]["anchorMs"], NOW);
        assert_eq!(checked.json["delivery"], json!({"mode": "announce"}));
        let mut once = new();
        once["schedule"] = json!({"kind": "at", "at": "2026-11-21T12:00:00Z"});
        once["agentId"] = Value::Null;
        once["enabled"] = json!(false);
        let checked = check_new(&once, NOW).unwrap();
        assert_eq!(checked.definition.delete_after_run, Some(true));
        assert_eq!((checked.enabled, checked.definition.agent_id), (false, None));
    }

    #[test]
    fn what_is_wrong_is_named_with_its_place() {
        assert_eq!(complaint(|p| p["foo"] = json!(1)), "at root: unexpected property 'foo'");
        assert_eq!(
            complaint(|p| p["schedule"]["everyMs"] = json!(0)),
            "at /schedule/everyMs: must be >= 1"
        );
        assert_eq!(
            complaint(|p| p["schedule"]["tz"] = json!("UTC")),
            "at /schedule: unexpected property 'tz'"
        );
        assert_eq!(
            complaint(|p| p["schedule"] = json!({"kind": "moon"})),
            "at /schedule/kind: must be equal to one of the allowed values; \
             at /schedule: must have required property 'at'"
        );
        assert_eq!(
            complaint(|p| p["payload"] = json!({"kind": "agentTurn", "message": ""})),
            "at /payload/message: must NOT have fewer than 1 characters"
        );
        assert_eq!(
            complaint(|p| p["delivery"] = json!({"mode": "pigeon"})),
            "at /delivery/mode: must be equal to one of the allowed values"
        );
        assert_eq!(
            complaint(|p| p["delivery"] = json!({"mode": "webhook"})),
            "at /delivery: must have required property 'to'"
        );
        assert_eq!(
            complaint(|p| p["failureAlert"] = json!({"after": 0})),
            "at /failureAlert/after: must be >= 1"
        );
        assert_eq!(
            complaint(|p| p["missedRuns"] = json!("twice")),
            "at /missedRuns: must be equal to one of the allowed values"
        );
        assert!(
            complaint(|p| p["schedule"] = json!({"kind": "cron", "expr": "nope"}))
                .starts_with("at /schedule/expr: ")
        );
        let missing = complaint(|p| p["payload"] = json!({"kind": "agentTurn"}));
        assert!(missing.contains("message"), "{missing}");
    }

    #[test]
    fn parts_that_do_not_go_together_are_refused() {
        assert!(matches!(
            check_new(
                &{
                    let mut p = new();
                    p["sessionTarget"] = json!("main");
                    p
                },
                NOW
            ),
            Err(Invalid::MainNeedsEvent)
        ));
        let event = json!({"kind": "systemEvent", "text": "x"});
        assert!(complaint(|p| p["payload"] = event).contains("agentTurn"));
        for target in ["session:", "session:a/b", "elsewhere"] {
            assert!(complaint(|p| p["sessionTarget"] = json!(target)).contains("/sessionTarget"));
        }
        let at = |at: &str| json!({"kind": "at", "at": at});
        assert!(complaint(|p| p["schedule"] = at("2020-01-01T00:00:00Z")).contains("in the past"));
        assert!(complaint(|p| p["schedule"] = at("2099-01-01T00:00:00Z")).contains("too far"));
    }

    #[test]
    fn a_patch_changes_what_it_names_and_keeps_what_a_newer_worker_wrote() {
        let mut kept = check_new(&new(), NOW).unwrap().json;
        kept.insert("novelty".to_owned(), json!(1));
        kept.insert("agentId".to_owned(), json!("beta"));
        let patch = json!({"enabled": false, "agentId": null, "delivery": {"to": "x"},
            "payload": {"kind": "agentTurn", "model": "m1"}});
        let checked = check_patch(kept.clone(), true, &patch, NOW + 5).unwrap();
        assert!(!checked.enabled);
        assert_eq!(checked.json["novelty"], 1);
        assert_eq!(checked.json["delivery"], json!({"mode": "announce", "to": "x"}));
        let payload = json!({"kind": "agentTurn", "message": "hi", "model": "m1"});
        assert_eq!(checked.json["payload"], payload);
        assert!(!checked.json.contains_key("agentId"));
        assert_eq!(checked.json["schedule"]["anchorMs"], NOW, "the anchor stays");
        let patch = json!({"schedule": {"kind": "every", "everyMs": 5}});
        let checked = check_patch(kept.clone(), true, &patch, NOW + 5).unwrap();
        assert_eq!(checked.json["schedule"]["anchorMs"], NOW + 5, "another schedule, another one");
        let patch = json!({"payload": {"kind": "systemEvent", "text": "x"}});
        assert!(matches!(
            check_patch(kept.clone(), true, &patch, NOW),
            Err(Invalid::OthersNeedTurn)
        ));
        let unknown = check_patch(kept, true, &json!({"id": "x"}), NOW).unwrap_err();
        assert_eq!(unknown.to_string(), "at root: unexpected property 'id'");
    }
}
