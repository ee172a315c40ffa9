//! `models.list`: the models that the configuration's providers serve, and those that it names besides: of CLI agents,
//! plugins, and of providers that list none.

use std::sync::Arc;

use serde_json::{Map, Value, json};

use super::{Call, Knowledge};
use crate::agents::fallback;
use crate::shape::{Field, Shape};
use crate::state::config::Snapshot;

pub(super) static PARAMS: Shape =
    Shape::Object(&[Field::optional("view", Shape::OneOf(&["default", "configured", "all"]))]);

/// None are built in: whichever view is asked for, these are all.
pub(super) async fn list(knowledge: Arc<Knowledge>, call: Call) {
    call.reply.payload(&json!({"models": configured(&knowledge.config.load())}));
}

fn configured(config: &Snapshot) -> Vec<Value> {
    let providers = &config.settled.config().models.providers;
    let all = providers
        .iter()
        .flat_map(|(id, provider)| provider.models.iter().map(move |model| (id, model)));
    let served = all.map(|(provider, model)| {
        let mut shown = Map::new();
        shown.insert("provider".to_owned(), json!(provider));
        shown.insert("id".to_owned(), json!(model.id));
        shown.insert("name".to_owned(), json!(model.name.as_ref().unwrap_or(&model.id)));
        if let Some(window) = model.context_window {
            shown.insert("contextWindow".to_owned(), json!(window));
        }
        shown.insert("reasoning".to_owned(), json!(model.reasoning));
        shown.insert("input".to_owned(), json!(model.input));
        Value::Object(shown)
    });
    let mut listed: Vec<Value> = served.collect();
    for model in fallback::named(config.settled.config()) {
        let (provider, id) = model.shown();
        if !listed.iter().any(|known| known["provider"] == provider && known["id"] == id) {
            listed.push(json!({
                "provider": provider, "id": id, "name": id, "reasoning": false, "input": ["text"],
            }));
        }
    }
    listed
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state::config::Environment;

    #[test]
    fn the_models_of_the_recorded_file_are_listed_as_recorded() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/openclaw-2026.5.12.json");
        let config = Snapshot::read(path.as_ref(), &Environment::default()).unwrap();
        let expected = json!([{
            "provider": "fake", "id": "m1", "name": "m1", "contextWindow": 128_000,
            "reasoning": false, "input": ["text"],
        }]);
        assert_eq!(Value::from(configured(&config)), expected);
    }
}
