//! What a client may ask for: scopes it holds against the scope a method needs.

/// What a method needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Needs {
    /// Being connected is enough.
    Nothing,
    /// `operator.read`, or a scope that includes it.
    Read,
    /// `operator.write`, or a scope that includes it.
    Write,
    /// `operator.pairing`, or a scope that includes it.
    Pairing,
    /// `operator.admin`.
    Admin,
}

impl Needs {
    /// The scope's name, for who lacks it.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Nothing => "none",
            Self::Read => "operator.read",
            Self::Write => "operator.write",
            Self::Pairing => "operator.pairing",
            Self::Admin => "operator.admin",
        }
    }

    /// What has this name.
    pub(crate) fn of_name(name: &str) -> Option<Self> {
        [Self::Nothing, Self::Read, Self::Write, Self::Pairing, Self::Admin]
            .into_iter()
            .find(|needs| needs.name() == name)
    }
}

/// The scopes a client holds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Scopes {
    names: Vec<String>,
}

impl Scopes {
    /// These and no others.
    pub(crate) const fn new(names: Vec<String>) -> Self {
        Self { names }
    }

    /// Their names, as the client is told them.
    pub(crate) fn names(&self) -> &[String] {
        &self.names
    }

    /// Whether they include the scope of an administrator.
    pub(crate) fn administer(&self) -> bool {
        self.holds("operator.admin")
    }

    /// Whether they suffice.
    pub(crate) fn allow(&self, needed: Needs) -> bool {
        match needed {
            Needs::Nothing => true,
            Needs::Read => self.allow(Needs::Write) || self.holds("operator.read"),
            Needs::Write => self.administer() || self.holds("operator.write"),
            Needs::Pairing => self.administer() || self.holds("operator.pairing"),
            Needs::Admin => self.administer(),
        }
    }

    fn holds(&self, name: &str) -> bool {
        self.names.iter().any(|held| held == name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_greater_scope_includes_the_lesser() {
        let allowed = |name: &str| Scopes::new(vec![name.to_owned()]).allow(Needs::Read);
        assert!(allowed("operator.read") && allowed("operator.write") && allowed("operator.admin"));
        assert!(!allowed("operator.pairing") && !allowed("operator.Read"));
        assert!(!Scopes::default().allow(Needs::Read));
        assert!(Scopes::default().allow(Needs::Nothing));
        let writes = |name: &str| Scopes::new(vec![name.to_owned()]).allow(Needs::Write);
        assert!(writes("operator.write") && writes("operator.admin") && !writes("operator.read"));
        let pairs = |name: &str| Scopes::new(vec![name.to_owned()]).allow(Needs::Pairing);
        assert!(pairs("operator.pairing") && pairs("operator.admin") && !pairs("operator.write"));
        let administers = |name: &str| Scopes::new(vec![name.to_owned()]).allow(Needs::Admin);
        assert!(administers("operator.admin") && !administers("operator.write"));
        for needs in [Needs::Nothing, Needs::Read, Needs::Write, Needs::Pairing, Needs::Admin] {
            assert_eq!(Needs::of_name(needs.name()), Some(needs));
        }
    }
}
