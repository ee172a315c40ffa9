//! What a changed configuration asks of the running gateway, decided on meaning, not on bytes.
//!
//! ```text
//! settled before ─┐
//!                 ├─ diff ─► paths ─ rules ─► nothing │ hot(paths) │ takeover(paths)
//! settled after ──┘
//! ```
//!
//! **Invariants**
//! - Pure: no file, clock or task.
//! - Both sides are settled, so that a default that somebody wrote out, an order, a comment or a key that
//!   nobody reads is `Nothing`.
//! - A key without a rule asks for nothing, and a test demands a rule for each key that is read.

mod rules;

use std::fmt;

use serde_json::Value;

use self::rules::{Effect, rule};
use crate::state::config::{KeyPath, Settled};

/// What to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum ReloadPlan {
    /// Go on; whoever asks for the configuration sees the new one.
    Nothing,
    /// Make anew what depends on these keys.
    Hot(Vec<KeyPath>),
    /// Ask the front for a takeover, because of these keys; the successor reads all others as well.
    Takeover(Vec<KeyPath>),
}

impl fmt::Display for ReloadPlan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (word, paths) = match self {
            Self::Nothing => return f.write_str("nothing"),
            Self::Hot(paths) => ("hot", paths),
            Self::Takeover(paths) => ("takeover", paths),
        };
        let paths: Vec<_> = paths.iter().map(ToString::to_string).collect();
        write!(f, "{word}({})", paths.join(", "))
    }
}

/// What a change from `before` to `after` asks for.
pub(crate) fn diff(before: &Settled, after: &Settled) -> ReloadPlan {
    let mut paths = Vec::new();
    differing(before.value(), after.value(), &mut Vec::new(), &mut paths);
    plan(paths)
}

fn plan(paths: Vec<KeyPath>) -> ReloadPlan {
    let (mut hot, mut takeover) = (Vec::new(), Vec::new());
    for path in paths {
        match rule(&path) {
            Some((_, Effect::Hot)) => hot.push(path),
            Some((_, Effect::Takeover)) => takeover.push(path),
            Some((_, Effect::Nothing)) | None => {}
        }
    }
    match (hot.is_empty(), takeover.is_empty()) {
        (true, true) => ReloadPlan::Nothing,
        (false, true) => ReloadPlan::Hot(hot),
        (_, false) => ReloadPlan::Takeover(takeover),
    }
}

/// The paths at which two values differ; a list is one thing.
fn differing<'v>(
    before: &'v Value,
    after: &'v Value,
    way: &mut Vec<&'v str>,
    paths: &mut Vec<KeyPath>,
) {
    let (Value::Object(before), Value::Object(after)) = (before, after) else {
        if before != after {
            paths.push(KeyPath::through(way));
        }
        return;
    };
    for (key, value) in before {
        way.push(key);
        match after.get(key) {
            Some(other) => differing(value, other, way, paths),
            None => paths.push(KeyPath::through(way)),
        }
        way.pop();
    }
    for key in after.keys().filter(|key| !before.contains_key(*key)) {
        way.push(key);
        paths.push(KeyPath::through(way));
        way.pop();
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use proptest::prelude::*;
    use serde_json::{Map, json};

    use super::*;
    use crate::state::config::{Environment, schema_keys, understand};

    fn settled(text: &str, environment: &Environment) -> Settled {
        understand(text, environment).unwrap().settled
    }

    fn plan_of(before: &Value, after: &Value) -> ReloadPlan {
        let environment = Environment::default();
        diff(
            &settled(&before.to_string(), &environment),
            &settled(&after.to_string(), &environment),
        )
    }

    /// Two values for each key that is read, but those inside of lists and of named entries.
    fn samples() -> Vec<(&'static str, Value, Value)> {
        let provider = |key: &str| json!({"p": {"baseUrl": "http://x/v1", "apiKey": key}});
        vec![
            ("agents.defaults.cliBackends", json!({}), json!({"a": {"command": "a"}})),
            ("agents.defaults.heartbeat.every", json!("0m"), json!("30m")),
            ("agents.defaults.heartbeat.model", json!("p/a"), json!("p/b")),
            ("agents.defaults.heartbeat.prompt", json!("a"), json!("b")),
            ("agents.defaults.heartbeat.target", json!("none"), json!("last")),
            ("agents.defaults.maxConcurrent", json!(4), json!(5)),
            ("agents.defaults.model", json!("p/a"), json!({"primary": "p/b"})),
            ("agents.defaults.models", json!({"p/a": {}}), json!({})),
            ("agents.defaults.timeoutSeconds", json!(60), json!(61)),
            ("agents.defaults.workspace", json!("/a"), json!("/b")),
            ("agents.list", json!([{"id": "a"}]), json!([{"id": "a"}, {"id": "b"}])),
            ("cron.enabled", json!(true), json!(false)),
            ("cron.maxConcurrentRuns", json!(1), json!(2)),
            ("cron.store", json!("a"), json!("b")),
            ("env", json!({"vars": {"A": "a"}}), json!({"vars": {"A": "b"}})),
            ("gateway.auth.mode", json!("token"), json!("none")),
            ("gateway.auth.password", json!("a"), json!("b")),
            ("gateway.auth.token", json!("a"), json!("b")),
            ("gateway.bind", json!("loopback"), json!("lan")),
            ("gateway.controlUi.allowedOrigins", json!([]), json!(["https://a"])),
            ("gateway.customBindHost", json!("10.0.0.1"), json!("10.0.0.2")),
            ("gateway.handshakeTimeoutMs", json!(1), json!(2)),
            ("gateway.http.endpoints.chatCompletions.enabled", json!(true), json!(false)),
            ("gateway.http.endpoints.chatCompletions.maxBodyBytes", json!(1), json!(2)),
            ("gateway.http.endpoints.responses.enabled", json!(false), json!(true)),
            ("gateway.http.endpoints.responses.maxBodyBytes", json!(1), json!(2)),
            ("gateway.mode", json!("local"), json!("remote")),
            ("gateway.port", json!(18789), json!(18790)),
            ("gateway.tls.certPath", json!("a"), json!("b")),
            ("gateway.tls.enabled", json!(false), json!(true)),
            ("gateway.tls.keyPath", json!("a"), json!("b")),
            ("gateway.trustedProxies", json!([]), json!(["10.0.0.1"])),
            ("hooks", json!({"enabled": true}), json!({"enabled": false})),
            ("logging.file", json!("a"), json!("b")),
            ("logging.level", json!("info"), json!("debug")),
            ("mcp", json!({"servers": {}}), json!({"servers": {"a": {}}})),
            ("meta.lastTouchedAt", json!("a"), json!("b")),
            ("meta.lastTouchedVersion", json!("a"), json!("b")),
            ("models.mode", json!("merge"), json!("replace")),
            ("models.providers", provider("a"), provider("b")),
            ("plugins.allow", json!([]), json!(["a"])),
            ("plugins.deny", json!([]), json!(["a"])),
            ("plugins.enabled", json!(true), json!(false)),
            ("plugins.entries", json!({}), json!({"a": {"enabled": true}})),
            ("plugins.load.paths", json!([]), json!(["/a"])),
            ("session.mainKey", json!("main"), json!("other")),
            ("session.scope", json!("per-sender"), json!("global")),
        ]
    }

    /// Keys of other tools, in sections of ours and of their own.
    fn strangers() -> Vec<(&'static str, Value, Value)> {
        vec![
            ("agents.defaults.subagents", json!({"maxConcurrent": 8}), json!({})),
            ("channels.telegram.botToken", json!("a"), json!("b")),
            ("commands.native", json!("auto"), json!(true)),
            ("discovery.mdns.mode", json!("off"), json!("minimal")),
            ("gateway.reload.mode", json!("hybrid"), json!("off")),
            ("gateway.remote.token", json!("a"), json!("b")),
            ("gateway.tailscale.mode", json!("off"), json!("serve")),
            ("models.pricing.enabled", json!(true), json!(false)),
            ("session.idleMinutes", json!(1), json!(2)),
            ("ui.seamColor", json!("#112233"), json!("#332211")),
        ]
    }

    fn set(document: &mut Value, path: &str, value: Value) {
        let (section, key) = path.rsplit_once('.').unwrap_or(("", path));
        let mut here = document;
        for name in section.split('.').filter(|name| !name.is_empty()) {
            let members = here.as_object_mut().unwrap();
            here = members.entry(name).or_insert_with(|| Value::Object(Map::new()));
        }
        here[key] = value;
    }

    /// A document with some of the keys, each with either value.
    fn document() -> impl Strategy<Value = Value> {
        let keys = [samples(), strangers()].concat();
        prop::collection::vec(any::<Option<bool>>(), keys.len()).prop_map(move |chosen| {
            let mut document = json!({});
            for ((path, one, other), chosen) in keys.iter().zip(chosen) {
                if let Some(which) = chosen {
                    set(&mut document, path, if which { one.clone() } else { other.clone() });
                }
            }
            document
        })
    }

    /// The document with everything written out, as a tool does that writes what holds.
    fn written_out(document: &Value) -> Value {
        fn overlay(over: &mut Value, under: &Value) {
            match (over, under) {
                (Value::Object(over), Value::Object(under)) => {
                    for (key, value) in under {
                        overlay(over.entry(key).or_insert(Value::Null), value);
                    }
                }
                (over, under) => *over = under.clone(),
            }
        }
        let mut written = document.clone();
        overlay(&mut written, settled(&document.to_string(), &Environment::default()).value());
        written
    }

    /// The same with its keys in another order, and a comment before each.
    fn reordered(value: &Value) -> String {
        match value {
            Value::Object(members) => {
                let members = members.iter().rev();
                let members =
                    members.map(|(key, value)| format!("// c\n{key:?}: {},", reordered(value)));
                format!("{{{}}}", members.collect::<String>())
            }
            value => value.to_string(),
        }
    }

    #[test]
    fn a_config_whose_defaults_materialise_plans_hot_agents_list_and_nothing_else() {
        // The token from the environment, gateway.tailscale, meta.lastTouchedAt beside agents.list.
        let environment = Environment::of([("OPENCLAW_GATEWAY_TOKEN", "t")]);
        let before = "{
            // ours
            gateway: {port: 18789, auth: {mode: 'token'}},
            models: {providers: {p: {baseUrl: 'http://x/v1', api: 'openai-completions', models: [{id: 'm', name: 'm'}]}}},
            agents: {defaults: {model: 'p/m'}},
        }";
        let after = json!({
            "meta": {"lastTouchedVersion": "2026.5.12", "lastTouchedAt": "2026-11-21T01:49:29.601Z"},
            "models": {"providers": {"p": {"baseUrl": "http://x/v1", "api": "openai-completions", "models": [{
                "id": "m", "name": "m", "api": "openai-completions", "reasoning": false, "input": ["text"],
                "cost": {"input": 0, "output": 0, "cacheRead": 0, "cacheWrite": 0},
            }]}}},
            "agents": {
                "defaults": {"model": {"primary": "p/m"}, "maxConcurrent": 4, "subagents": {"maxConcurrent": 8}},
                "list": [{"id": "main"}, {"id": "probe", "name": "Probe", "workspace": "/w"}],
            },
            "messages": {"ackReactionScope": "group-mentions"},
            "commands": {"native": "auto", "nativeSkills": "auto", "restart": true, "ownerDisplay": "raw"},
            "gateway": {
                "port": 18789, "mode": "local", "bind": "loopback",
                "auth": {"mode": "token", "token": "t"},
                "tailscale": {"mode": "off", "resetOnExit": false},
            },
        });
        let (before, after) =
            (settled(before, &environment), settled(&after.to_string(), &environment));
        assert_eq!(diff(&before, &after), ReloadPlan::Hot(vec![KeyPath::of("agents.list")]));
        assert_eq!(diff(&before, &after).to_string(), "hot(agents.list)");
    }

    #[test]
    fn every_single_change_is_classified_by_the_table_alone() {
        for (path, one, other) in samples() {
            let (mut before, mut after) = (json!({}), json!({}));
            set(&mut before, path, one);
            set(&mut after, path, other);
            let expected = match rule(&KeyPath::of(path)).expect("each sample has a rule").1 {
                Effect::Nothing => "nothing".to_owned(),
                Effect::Hot => format!("hot({path}"),
                Effect::Takeover => format!("takeover({path}"),
            };
            for plan in [plan_of(&before, &after), plan_of(&after, &before)] {
                assert!(plan.to_string().starts_with(&expected), "{path}: {plan}");
                assert!(!plan.to_string().contains(','), "{plan}");
            }
        }
    }

    #[test]
    fn a_key_of_another_tool_asks_for_nothing() {
        for (path, one, other) in strangers() {
            let (mut before, mut after) = (json!({}), json!({}));
            set(&mut before, path, one);
            assert_eq!(plan_of(&json!({}), &before), ReloadPlan::Nothing, "{path}");
            set(&mut after, path, other);
            assert_eq!(plan_of(&before, &after), ReloadPlan::Nothing, "{path}");
        }
    }

    #[test]
    fn the_samples_are_all_the_keys_there_are() {
        for names in schema_keys() {
            let key = names.join(".");
            let sampled = samples().iter().any(|(path, ..)| {
                key == *path
                    || key.starts_with(&format!("{path}."))
                    || path.starts_with(&format!("{key}."))
            });
            assert!(sampled, "no sample of {key}");
        }
    }

    #[test]
    fn a_takeover_names_what_asks_for_it() {
        let before = json!({"gateway": {"port": 1}, "cron": {"enabled": true}});
        let after = json!({"gateway": {"port": 2}, "cron": {"enabled": false}, "plugins": {"load": {"paths": ["/p"]}}});
        assert_eq!(
            plan_of(&before, &after).to_string(),
            "takeover(gateway.port, plugins.load.paths)"
        );
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn nothing_but_meaning_makes_a_plan(document in document()) {
            let written = written_out(&document);
            prop_assert_eq!(plan_of(&document, &document), ReloadPlan::Nothing);
            prop_assert_eq!(plan_of(&document, &written), ReloadPlan::Nothing);
            prop_assert_eq!(plan_of(&written, &document), ReloadPlan::Nothing);
            let environment = Environment::default();
            let plain = settled(&document.to_string(), &environment);
            let other = settled(&reordered(&document), &environment);
            prop_assert_eq!(diff(&plain, &other), ReloadPlan::Nothing);
        }

        #[test]
        fn one_change_among_others_is_the_only_one_planned(
            document in document(),
            at in any::<prop::sample::Index>(),
        ) {
            let samples = samples();
            let (path, one, other) = at.get(&samples);
            let (mut before, mut after) = (document.clone(), document);
            set(&mut before, path, one.clone());
            set(&mut after, path, other.clone());
            let plan = plan_of(&before, &after);
            let expected = rule(&KeyPath::of(path)).unwrap().1;
            let (effect, paths) = match plan {
                ReloadPlan::Nothing => (Effect::Nothing, Vec::new()),
                ReloadPlan::Hot(paths) => (Effect::Hot, paths),
                ReloadPlan::Takeover(paths) => (Effect::Takeover, paths),
            };
            prop_assert_eq!(effect, expected);
            for planned in paths {
                prop_assert!(planned.to_string().starts_with(path), "{} for {}", planned, path);
            }
        }
    }

    #[test]
    #[ignore = "it prints a duration; run it with --release --nocapture"]
    fn ten_thousand_keys_are_compared_in_no_time() {
        let hooks = |value: u32| {
            let hook = |n: u32| (format!("hook{n}"), json!({"path": "/a", "n": value}));
            json!({"hooks": Value::Object((0..5_000).map(hook).collect())})
        };
        let environment = Environment::default();
        let [before, same, after] =
            [1, 1, 2].map(|value| settled(&hooks(value).to_string(), &environment));
        for (other, what) in [(&same, "equal"), (&after, "half of them different")] {
            let begun_at = Instant::now();
            let plan = diff(&before, other);
            let took = begun_at.elapsed();
            assert_eq!(plan == ReloadPlan::Nothing, what == "equal");
            println!("10,000 keys, {what}: {took:?}");
        }
    }
}
