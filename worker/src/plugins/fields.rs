//! Reading an object of a file key by key, so that whatever is wrong has a place.
//!
//! **Invariants**
//! - A place is that of the value; of a key that should not be there it is the key's own.

use std::collections::BTreeSet;

use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use crate::state::config::{Inside, KeyPath, Position, Spanned};

/// Something that is wrong at a byte of the text.
#[derive(Debug, thiserror::Error)]
#[error("{problem}")]
pub(super) struct Misplaced {
    at: usize,
    problem: String,
}

impl Misplaced {
    /// Where that is.
    pub(super) fn position(&self, text: &str) -> Position {
        Position::of(self.at, text)
    }
}

/// An object of the file.
#[derive(Debug)]
pub(super) struct Fields<'t> {
    members: &'t Map<String, Value>,
    /// `None` is nowhere: a text that was parsed has places.
    place: Option<&'t Spanned>,
    path: KeyPath,
}

impl<'t> Fields<'t> {
    /// The whole file, which is an object.
    pub(super) fn whole(value: &'t Value, place: Option<&'t Spanned>) -> Result<Self, Misplaced> {
        Self::of(value, place, KeyPath::whole())
    }

    fn of(value: &'t Value, place: Option<&'t Spanned>, path: KeyPath) -> Result<Self, Misplaced> {
        match value {
            Value::Object(members) => Ok(Self { members, place, path }),
            _ => Err(misplaced(place, &path, "write an object in { }")),
        }
    }

    /// Refuses every key that is not one of these, and those that are there twice.
    pub(super) fn only(&self, known: &[&str]) -> Result<(), Misplaced> {
        let Some(Inside::Object(items)) = self.inside() else { return Ok(()) };
        let mut seen = BTreeSet::new();
        for item in items {
            let problem = match (known.contains(&&*item.key), seen.insert(&item.key)) {
                (true, true) => continue,
                (false, _) => "this key is not known",
                (true, false) => "this key is there already",
            };
            let path = self.path.key(&item.key);
            return Err(Misplaced { at: item.start, ..misplaced(None, &path, problem) });
        }
        Ok(())
    }

    /// What a key says that may be missing.
    pub(super) fn maybe<T: DeserializeOwned>(&self, key: &str) -> Result<Option<T>, Misplaced> {
        let Some(value) = self.members.get(key) else { return Ok(None) };
        T::deserialize(value).map(Some).map_err(|error| self.wrong(key, error.to_string()))
    }

    /// What a key says that has to be there.
    pub(super) fn needed<T: DeserializeOwned>(&self, key: &str) -> Result<T, Misplaced> {
        self.maybe(key)?.ok_or_else(|| self.wrong(key, "this key is missing"))
    }

    /// The objects in a list, which may be missing.
    pub(super) fn each(&self, key: &str) -> Result<Vec<Self>, Misplaced> {
        let Some(value) = self.members.get(key) else { return Ok(Vec::new()) };
        let Value::Array(values) = value else {
            return Err(self.wrong(key, "write a list in [ ]"));
        };
        let places = self.place_of(key).map(|place| &place.inside);
        values
            .iter()
            .enumerate()
            .map(|(index, value)| {
                let place = match places {
                    Some(Inside::Array(items)) => items.get(index).map(|item| &item.value),
                    _ => None,
                };
                let path = self.path.key(key).index(index);
                Self::of(value, place.or(self.place), path)
            })
            .collect()
    }

    /// What is wrong with a key's value.
    pub(super) fn wrong(&self, key: &str, problem: impl Into<String>) -> Misplaced {
        misplaced(self.place_of(key).or(self.place), &self.path.key(key), problem)
    }

    fn inside(&self) -> Option<&'t Inside> {
        self.place.map(|place| &place.inside)
    }

    fn place_of(&self, key: &str) -> Option<&'t Spanned> {
        let Some(Inside::Object(items)) = self.inside() else { return None };
        items.iter().rev().find(|item| item.key == key).map(|item| &item.value)
    }
}

fn misplaced(place: Option<&Spanned>, path: &KeyPath, problem: impl Into<String>) -> Misplaced {
    let at = place.map_or(0, |place| place.span.start);
    let problem = problem.into();
    let named = if path.steps().is_empty() { problem } else { format!("{path}: {problem}") };
    Misplaced { at, problem: named }
}
