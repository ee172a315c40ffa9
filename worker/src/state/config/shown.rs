//! The configuration as `config.get` shows it: read anew, with its hash, its findings and without its secrets.
//!
//! **Invariants**
//! - The hash is that of the words shown: a patch that names it is for them.
//! - A file that cannot be used is shown as well, so that somebody can correct it.

use std::path::Path;

use serde_json::{Value, json};

use super::environment::Environment;
use super::file::{ReadFailed, hash, read};
use super::findings::{Finding, Severity};
use super::secret::hide;
use super::settled::{Settled, Understood, understand};
use super::text::parse;

/// What `config.get` answers. It blocks for as long as reading takes.
///
/// # Errors
/// [`ReadFailed`].
pub(crate) fn shown(path: &Path, environment: &Environment) -> Result<Value, ReadFailed> {
    let text = read(path)?;
    let understood = match &text {
        Some(text) => understand(text, environment),
        None => Ok(Understood {
            parsed: json!({}),
            settled: Settled::defaults(environment),
            warnings: Vec::new(),
        }),
    };
    let (parsed, holds, findings, valid) = match understood {
        Ok(Understood { parsed, settled, warnings }) => {
            let holds = hide(&over(parsed.clone(), settled.value()));
            (parsed, holds, warnings, true)
        }
        Err(findings) => {
            let parsed = text.as_deref().and_then(|text| parse(text).ok());
            (parsed.unwrap_or_else(|| json!({})), json!({}), findings, false)
        }
    };
    let source = hide(&parsed);
    // A text with a secret in it cannot be shown, and one that could not be read may have one.
    let raw = text.as_deref().filter(|_| valid && source == parsed);
    Ok(json!({
        "path": path,
        "exists": text.is_some(),
        "raw": raw,
        "parsed": source,
        "sourceConfig": source,
        "resolved": source,
        "valid": valid,
        "runtimeConfig": holds,
        "config": holds,
        "hash": hash(text.as_deref()),
        "issues": of(&findings, Severity::Error),
        "warnings": of(&findings, Severity::Warning),
        "legacyIssues": [],
    }))
}

/// What holds, with what other tools' keys say beside it.
fn over(parsed: Value, settled: &Value) -> Value {
    match (parsed, settled) {
        (Value::Object(mut parsed), Value::Object(settled)) => {
            for (key, value) in settled {
                let written = parsed.remove(key).unwrap_or(Value::Null);
                parsed.insert(key.clone(), over(written, value));
            }
            Value::Object(parsed)
        }
        (Value::Array(parsed), Value::Array(settled)) if parsed.len() == settled.len() => {
            parsed.into_iter().zip(settled).map(|(parsed, settled)| over(parsed, settled)).collect()
        }
        // What a variable holds may be a secret, whatever the key is called.
        (Value::String(written), Value::String(_)) if written.contains("${") => written.into(),
        (_, settled) => settled.clone(),
    }
}

fn of(findings: &[Finding], severity: Severity) -> Vec<Value> {
    let those = findings.iter().filter(|finding| finding.severity == severity);
    let shown = |finding: &Finding| {
        let path =
            if finding.path.steps().is_empty() { String::new() } else { finding.path.to_string() };
        json!({"path": path, "message": format!("{}; {}", finding.problem, finding.remedy)})
    };
    those.map(shown).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What OpenClaw answered about this very file, as far as it is about the file.
    const FILE: &str = include_str!("../../../tests/fixtures/openclaw-2026.5.12.json");

    fn of_file(text: &str) -> Value {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("openclaw.json");
        std::fs::write(&path, text).unwrap();
        shown(&path, &Environment::default()).unwrap()
    }

    #[test]
    fn a_file_is_shown_with_its_hash_and_without_its_secrets() {
        let answer = of_file(FILE);
        let keys: Vec<_> = answer.as_object().unwrap().keys().map(String::as_str).collect();
        let recorded = [
            "config",
            "exists",
            "hash",
            "issues",
            "legacyIssues",
            "parsed",
            "path",
            "raw",
            "resolved",
            "runtimeConfig",
            "sourceConfig",
            "valid",
            "warnings",
        ];
        assert_eq!(keys, recorded);
        assert_eq!((&answer["valid"], &answer["raw"]), (&json!(true), &json!(null)));
        assert_eq!(answer["hash"], hash(Some(FILE)));
        let mut parsed: Value = serde_json::from_str(FILE).unwrap();
        parsed["gateway"]["auth"]["token"] = "__OPENCLAW_REDACTED__".into();
        parsed["models"]["providers"]["fake"]["apiKey"] = "__OPENCLAW_REDACTED__".into();
        assert_eq!(answer["parsed"], parsed);
        assert!(!answer.to_string().contains("of-the-fixture"));
        let config = &answer["config"];
        assert_eq!(config["agents"]["list"][1]["identity"]["name"], "Probe Bot");
        assert_eq!(config["agents"]["defaults"]["maxConcurrent"], 4);
        assert_eq!(config["commands"]["restart"], true, "other tools' keys are there");
        assert_eq!(config["models"]["providers"]["fake"]["models"][0]["cost"]["input"], 0);
    }

    #[test]
    fn what_a_variable_holds_is_not_shown() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("openclaw.json");
        std::fs::write(&path, "{mcp: {servers: {s: {args: ['--key', '${KEY}']}}}}").unwrap();
        let answer = shown(&path, &Environment::of([("KEY", "hunter2")])).unwrap();
        assert_eq!(answer["config"]["mcp"]["servers"]["s"]["args"][1], "${KEY}");
        assert!(!answer.to_string().contains("hunter2"));
    }

    #[test]
    fn a_text_without_secrets_is_shown_as_it_is() {
        assert_eq!(of_file("{ui: 1} // c")["raw"], "{ui: 1} // c");
    }

    #[test]
    fn a_file_that_cannot_be_used_is_shown_with_what_is_wrong() {
        let answer = of_file("{gateway: {port: 'x', auth: {token: 't'}}}");
        assert_eq!((&answer["valid"], &answer["raw"]), (&json!(false), &json!(null)));
        assert_eq!(answer["parsed"]["gateway"]["port"], "x");
        assert_eq!(answer["issues"][0]["path"], "gateway.port");
        let answer = of_file("{token: 't");
        assert_eq!((&answer["parsed"], &answer["issues"][0]["path"]), (&json!({}), &json!("")));
        assert!(!answer.to_string().contains("'t'"));
    }

    #[test]
    fn without_a_file_the_defaults_are_shown() {
        let dir = tempfile::tempdir().unwrap();
        let answer = shown(&dir.path().join("none"), &Environment::default()).unwrap();
        assert_eq!((&answer["exists"], &answer["valid"]), (&json!(false), &json!(true)));
        assert_eq!(answer["config"]["gateway"]["port"], 18789);
    }
}
