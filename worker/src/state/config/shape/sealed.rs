//! Settings that somebody else understands, and in which anything may be a secret.
//!
//! **Invariants**
//! - `Debug` says which settings there are, not what they are.

use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// Settings as their reader finds them.
#[derive(Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(transparent)]
pub(crate) struct Sealed(Map<String, Value>);

impl Sealed {
    /// The settings, for their reader.
    pub(crate) const fn members(&self) -> &Map<String, Value> {
        &self.0
    }
}

impl fmt::Debug for Sealed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.0.keys()).finish()
    }
}
