//! A configuration as it holds: typed, with defaults where the file says nothing.
//!
//! **Invariants**
//! - Two files that mean the same settle to the same value: order, comments, defaults that somebody
//!   wrote out, and keys that nobody reads make no difference.
//! - It holds secrets, and its `Debug` shows none.

use std::collections::BTreeSet;
use std::fmt;

use serde::Deserialize as _;
use serde_json::{Map, Value};

use super::environment::Environment;
use super::findings::{Finding, Severity, misfits, place};
use super::key_path::{KeyPath, Step, Trail};
use super::schema::{self, schema};
use super::secret::Secret;
use super::shape::{AuthMode, Bind, Config};
use super::text::parse;

/// A configuration as it holds.
#[derive(Clone)]
pub(crate) struct Settled {
    config: Config,
    value: Value,
    environment: Environment,
}

impl fmt::Debug for Settled {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The types have no secrets to show; the value has.
        f.debug_tuple("Settled").field(&self.config).finish()
    }
}

impl Settled {
    /// What holds when there is no file.
    pub(crate) fn defaults(environment: &Environment) -> Self {
        Self::of(&Value::Object(Map::new()), environment).expect("nothing is a configuration")
    }

    /// What a value with its variables filled in settles to.
    fn of(filled: &Value, environment: &Environment) -> Result<Self, serde_json::Error> {
        let mut config = Config::deserialize(filled)?;
        config.models.inherit();
        let mut value = serde_json::to_value(&config)?;
        keep_secrets(filled, &mut value, schema());
        if let Some(token) = environment.token() {
            config.gateway.auth.token = Some(Secret::new(token.to_owned()));
            value["gateway"]["auth"]["token"] = token.into();
        }
        Ok(Self { config, value, environment: environment.clone() })
    }

    /// A secret of this configuration, for the one place that needs it.
    pub(crate) fn reveal<'a>(&'a self, secret: &'a Secret) -> Option<&'a str> {
        secret.reveal(&self.environment)
    }

    /// The variables that hold for this configuration.
    pub(crate) const fn environment(&self) -> &Environment {
        &self.environment
    }

    /// A variable that holds for this configuration, for a secret that goes by a name everybody knows.
    pub(crate) fn variable(&self, name: &str) -> Option<&str> {
        self.environment.value(name)
    }

    /// The typed form.
    pub(crate) const fn config(&self) -> &Config {
        &self.config
    }

    /// The plain form, with defaults and secrets: for comparing.
    pub(crate) const fn value(&self) -> &Value {
        &self.value
    }
}

/// Copies into `known` the secrets that serializing leaves out.
fn keep_secrets(filled: &Value, known: &mut Value, node: &'static Value) {
    match (filled, known) {
        (Value::Object(filled), Value::Object(known)) => {
            for (key, value) in filled {
                let Some(node) = schema::member(node, key) else { continue };
                match known.get_mut(key) {
                    Some(inside) => keep_secrets(value, inside, node),
                    None if node.get("writeOnly").is_some() && !value.is_null() => {
                        known.insert(key.clone(), value.clone());
                    }
                    None => {}
                }
            }
        }
        (Value::Array(filled), Value::Array(known)) => {
            let Some(node) = schema::element(node) else { return };
            for (filled, known) in filled.iter().zip(known) {
                keep_secrets(filled, known, node);
            }
        }
        _ => {}
    }
}

/// A file that was understood.
#[derive(Clone, Debug)]
pub(crate) struct Understood {
    /// What it says, references and all.
    pub(crate) parsed: Value,
    /// What holds because of it.
    pub(crate) settled: Settled,
    /// What its author should know.
    pub(crate) warnings: Vec<Finding>,
}

/// Understands a file's text.
///
/// # Errors
/// All that is wrong with it, with warnings between, in the order of the text.
pub(crate) fn understand(
    text: &str,
    environment: &Environment,
) -> Result<Understood, Vec<Finding>> {
    let parsed = parse(text).map_err(|wrong| {
        let remedy = "correct the JSON5 there; see https://json5.org";
        let mut finding = Finding::error(KeyPath::whole(), wrong.problem, remedy);
        finding.position = wrong.position;
        vec![finding]
    })?;
    understand_parsed(text, parsed, environment)
}

/// The same of a text of which it is known what it says.
///
/// # Errors
/// Those of [`understand`].
pub(super) fn understand_parsed(
    text: &str,
    parsed: Value,
    environment: &Environment,
) -> Result<Understood, Vec<Finding>> {
    let environment = &environment.with(parsed.get("env"));
    let (filled, missing) = environment.fill(&parsed);
    let mut findings = misfits(&filled);
    findings.extend(missing.into_iter().filter_map(|(path, name)| unset(path, &name)));
    find_includes(&parsed, Trail::Whole, schema(), &mut findings);
    let settled = match Settled::of(&filled, environment) {
        Ok(settled) => Some(settled),
        Err(error) => {
            if findings.iter().all(|finding| finding.severity == Severity::Warning) {
                findings.push(Finding::error(KeyPath::whole(), error.to_string(), "correct it"));
            }
            None
        }
    };
    if let Some(settled) = &settled {
        findings.extend(contradictions(settled.config()));
    }
    place(&mut findings, text);
    match settled {
        Some(settled) if findings.iter().all(|finding| finding.severity == Severity::Warning) => {
            Ok(Understood { parsed, settled, warnings: findings })
        }
        _ => Err(findings),
    }
}

/// A variable that is not set: what needs it will not work, and without its gateway section nothing will.
fn unset(path: KeyPath, name: &str) -> Option<Finding> {
    // One that only another tool reads is that tool's.
    schema::at(&path)?;
    let problem = format!("the environment has no {name}");
    let remedy = format!("set {name} before starting");
    let in_gateway = path.steps().first() == Some(&Step::Key("gateway".to_owned()));
    Some(if in_gateway {
        Finding::error(path, problem, remedy)
    } else {
        Finding::warning(path, problem, remedy)
    })
}

fn find_includes(
    value: &Value,
    trail: Trail<'_>,
    node: &'static Value,
    findings: &mut Vec<Finding>,
) {
    let Value::Object(members) = value else { return };
    for (key, value) in members {
        let trail = trail.key(key);
        if key == "$include" {
            findings.push(Finding::error(
                trail.path(),
                "this gateway does not follow includes",
                "put the included keys into this file",
            ));
        } else if let Some(node) = schema::member(node, key) {
            find_includes(value, trail, node, findings);
        }
    }
}

/// What fits the schema and cannot be meant.
fn contradictions(config: &Config) -> Vec<Finding> {
    let mut findings = Vec::new();
    let list = KeyPath::whole().key("agents").key("list");
    let mut ids = BTreeSet::new();
    let mut defaults = 0;
    for (at, agent) in config.agents.list.iter().enumerate() {
        let path = list.index(at);
        if !ids.insert(agent.id.trim().to_lowercase()) {
            let problem = format!("the agent {:?} is there already", agent.id);
            findings.push(Finding::error(path.key("id"), problem, "give each agent its own id"));
        }
        defaults += usize::from(agent.default);
        if agent.default && defaults == 2 {
            findings.push(Finding::warning(
                path.key("default"),
                "another agent is the default already, and the first one is taken",
                "leave `default` with one agent",
            ));
        }
    }
    let gateway = &config.gateway;
    if gateway.bind == Bind::Custom && gateway.custom_bind_host.is_none() {
        findings.push(Finding::error(
            KeyPath::whole().key("gateway").key("bind"),
            "`custom` names no address",
            "set `gateway.customBindHost`",
        ));
    }
    if gateway.auth.mode != AuthMode::Token {
        findings.push(Finding::warning(
            KeyPath::whole().key("gateway").key("auth").key("mode"),
            "this gateway knows no other way than the shared token and devices, and asks for these",
            "give clients the token, or write \"token\"",
        ));
    }
    findings
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn wrong(text: &str) -> Vec<String> {
        let findings = understand(text, &Environment::default()).unwrap_err();
        let line = |finding: &Finding| {
            let at =
                finding.position.map_or_else(String::new, |p| format!("{}:{}:", p.line, p.column));
            format!("{at} {finding}")
        };
        findings.iter().map(line).collect()
    }

    #[test]
    fn everything_wrong_is_said_at_once_in_the_order_of_the_file() {
        let text = "{\n  // no\n  gateway: { port: 'x',\n    auth: { token: '${NO_SUCH}' } },\n  agents: { list: [ {id: 'a'}, {id: 'A'} ], $include: './x' },\n  channels: { t: '${OTHER}' },\n}";
        assert_eq!(
            wrong(text),
            [
                "3:20: gateway.port: this is a string; write a number from 1 to 65535",
                "4:20: gateway.auth.token: the environment has no NO_SUCH; set NO_SUCH before starting",
                "5:55: agents.$include: this gateway does not follow includes; put the included keys into this file",
            ]
        );
        let text = "{ agents: { list: [ {id: 'a'}, {id: 'A '} ] }, gateway: {bind: 'custom'} }";
        assert_eq!(
            wrong(text),
            [
                "1:37: agents.list[1].id: the agent \"A \" is there already; give each agent its own id",
                "1:64: gateway.bind: `custom` names no address; set `gateway.customBindHost`",
            ]
        );
    }

    #[test]
    fn a_text_that_is_no_json5_is_one_finding_with_its_place() {
        let findings = wrong("{\n  gateway {}\n}");
        assert_eq!(
            findings,
            ["2:11: expected colon; correct the JSON5 there; see https://json5.org"]
        );
        assert_eq!(wrong("").len(), 1);
        assert_eq!(wrong("[]").len(), 1);
    }

    #[test]
    fn a_file_with_every_kind_of_value_settles() {
        let text = r#"{
            gateway: {port: 19001.0, auth: {mode: "token", token: "${TOKEN}"}},
            agents: {list: [{id: "a", model: "p/m"}, {id: "b", model: {primary: "p/n", fallbacks: ["p/m"]}}]},
            models: {providers: {p: {baseUrl: "http://x/v1", apiKey: "k", headers: {h: "s"}, models: [{id: "m"}]}}},
            hooks: {enabled: true, token: "secret-h"},
        }"#;
        let environment = Environment::of([("TOKEN", "secret-t")]);
        let Understood { parsed, settled, warnings } = understand(text, &environment).unwrap();
        assert_eq!(warnings, []);
        assert_eq!(parsed["gateway"]["auth"]["token"], "${TOKEN}");
        let config = settled.config();
        assert_eq!(config.gateway.port.get(), 19001);
        let token = config.gateway.auth.token.as_ref().unwrap();
        assert_eq!(settled.reveal(token), Some("secret-t"));
        assert_eq!(settled.value()["gateway"]["auth"]["token"], "secret-t");
        assert_eq!(settled.value()["models"]["providers"]["p"]["apiKey"], "k");
        assert_eq!(settled.value()["models"]["providers"]["p"]["headers"], json!({"h": "s"}));
        assert_eq!(settled.value()["agents"]["list"][0]["model"]["primary"], "p/m");
        assert_eq!(config.agents.list[1].model.as_ref().unwrap().fallbacks, ["p/m"]);
        assert!(!format!("{settled:?}").contains("secret"), "{settled:?}");
    }

    #[test]
    fn a_variable_that_is_not_set_costs_what_needs_it_and_no_more() {
        let text = "{ env: {vars: {SET: 's'}},\n models: { providers: {\n p: {apiKey: '${UNSET}'},\n q: {apiKey: '${SET}'} } } }";
        let Understood { settled, warnings, .. } =
            understand(text, &Environment::default()).unwrap();
        let key = |provider: &str| {
            settled.reveal(settled.config().models.providers[provider].api_key.as_ref().unwrap())
        };
        assert_eq!((key("p"), key("q")), (None, Some("s")));
        let [warning] = warnings.as_slice() else { panic!("{warnings:?}") };
        assert_eq!(warning.path.to_string(), "models.providers.p.apiKey");
        assert_eq!(warning.position.unwrap().line, 3);
    }

    proptest! {
        #![proptest_config(crate::fuzzed::config())]

        #[test]
        fn no_file_is_too_strange(text in crate::fuzzed::nearly("config")) {
            if let Err(findings) = understand(&text, &Environment::default()) {
                prop_assert!(findings.iter().any(|finding| finding.severity == Severity::Error));
            }
        }
    }

    proptest! {
        #[test]
        fn no_text_is_too_strange(text in "(\\PC|[\\[\\]{}:,'\"/*\\\\\n$]|agents|list|gateway|id|port){0,40}") {
            // Whatever it is, it is understood or it is said what is wrong.
            if let Err(findings) = understand(&text, &Environment::default()) {
                prop_assert!(findings.iter().any(|finding| finding.severity == Severity::Error));
            }
        }

        #[test]
        fn what_fits_the_schema_fits_the_types(
            key in any::<prop::sample::Index>(),
            value in prop::sample::select(vec![
                json!(null), json!(true), json!(-1), json!(0), json!(7), json!(1.5), json!(70_000),
                json!(10_000_000_000_u64), json!(u64::MAX), json!(1e300), json!(""), json!("word"),
                json!([]), json!(["a"]), json!([{}]), json!({}), json!({"a": 1}),
                json!({"source": "env", "id": "A"}), json!({"source": "env"}),
                json!({"primary": null, "fallbacks": []}), json!({"a": {"baseUrl": "u"}}),
            ]),
        ) {
            let keys = schema::keys();
            let names = key.get(&keys);
            let document = names.iter().rev().fold(value, |inside, name| match name.as_str() {
                "[]" => json!([inside]),
                name => json!({ name: inside }),
            });
            let environment = Environment::default();
            if misfits(&document).is_empty() {
                prop_assert!(Settled::of(&document, &environment).is_ok(), "{document}");
            }
        }
    }

    #[test]
    fn the_environments_token_goes_before_the_files() {
        let environment = Environment::of([("OPENCLAW_GATEWAY_TOKEN", "of the environment")]);
        let text = "{gateway: {auth: {token: 'of the file'}}}";
        let settled = understand(text, &environment).unwrap().settled;
        assert_eq!(settled.value(), Settled::defaults(&environment).value());
    }
}
