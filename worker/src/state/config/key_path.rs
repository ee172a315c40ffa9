//! Where in a configuration something is: `gateway.port`, `agents.list[1].id`, `models.providers["a.b"].apiKey`.

use std::fmt;

/// One step from a value into it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Step {
    /// To an object's member.
    Key(String),
    /// To an array's element, from 0.
    Index(usize),
}

/// The way from the whole configuration to one value.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct KeyPath(Vec<Step>);

impl KeyPath {
    /// The whole configuration.
    pub(crate) const fn whole() -> Self {
        Self(Vec::new())
    }

    /// The member `key` of what is here.
    pub(crate) fn key(&self, key: &str) -> Self {
        self.then(Step::Key(key.to_owned()))
    }

    /// The element `index` of what is here.
    pub(crate) fn index(&self, index: usize) -> Self {
        self.then(Step::Index(index))
    }

    /// The steps, from the outside in.
    pub(crate) fn steps(&self) -> &[Step] {
        &self.0
    }

    /// Through these members, one after the other.
    pub(crate) fn through(keys: &[&str]) -> Self {
        Self(keys.iter().map(|key| Step::Key((*key).to_owned())).collect())
    }

    /// One key after the other, as `gateway.auth.mode`; for keys without dots.
    #[cfg(test)]
    pub(crate) fn of(dotted: &str) -> Self {
        Self::through(&dotted.split('.').collect::<Vec<_>>())
    }

    fn then(&self, step: Step) -> Self {
        let mut steps = self.0.clone();
        steps.push(step);
        Self(steps)
    }
}

/// The way to a value that is just being looked at: it becomes a path when somebody asks for one.
#[derive(Clone, Copy, Debug)]
pub(super) enum Trail<'t> {
    /// Nowhere yet: the whole configuration.
    Whole,
    /// On to an object's member.
    Key(&'t Self, &'t str),
    /// On to an array's element.
    Index(&'t Self, usize),
}

impl<'t> Trail<'t> {
    /// On to the member `key`.
    pub(super) const fn key(&'t self, key: &'t str) -> Self {
        Self::Key(self, key)
    }

    /// On to the element `index`.
    pub(super) const fn index(&'t self, index: usize) -> Self {
        Self::Index(self, index)
    }

    /// The same, to keep.
    pub(super) fn path(&self) -> KeyPath {
        match self {
            Self::Whole => KeyPath::whole(),
            Self::Key(before, key) => before.path().key(key),
            Self::Index(before, index) => before.path().index(*index),
        }
    }
}

impl fmt::Display for KeyPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() {
            return f.write_str("the whole file");
        }
        for (at, step) in self.0.iter().enumerate() {
            match step {
                Step::Index(index) => write!(f, "[{index}]")?,
                Step::Key(key) if !is_plain(key) => write!(f, "[{key:?}]")?,
                Step::Key(key) if at == 0 => f.write_str(key)?,
                Step::Key(key) => write!(f, ".{key}")?,
            }
        }
        Ok(())
    }
}

/// Whether a key can be told from the path around it.
fn is_plain(key: &str) -> bool {
    !key.is_empty() && key.chars().all(|c| c.is_alphanumeric() || "_-/:@$".contains(c))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_reads_as_people_write_it() {
        let path = KeyPath::whole().key("models").key("a.b").key("list").index(1).key("id");
        assert_eq!(path.to_string(), "models[\"a.b\"].list[1].id");
        assert_eq!(KeyPath::of("gateway.port").to_string(), "gateway.port");
        assert_eq!(KeyPath::whole().to_string(), "the whole file");
    }

    #[test]
    fn a_trail_leads_where_its_path_does() {
        let models = Trail::Whole.key("models");
        let list = models.key("list");
        let path = KeyPath::of("models.list").index(1).key("id");
        assert_eq!(list.index(1).key("id").path(), path);
    }
}
