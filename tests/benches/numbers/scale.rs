//! How many connections a measurement opens: its own choice, unless `--connections` says otherwise.

use handoff::limits::raise_descriptor_limit;

/// What each process needs besides its connections, in descriptors: a successor wants 300 to spare.
const RESERVE: usize = 500;

/// What the command line says about it.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Scale {
    connections: Option<usize>,
}

impl Scale {
    /// As `--connections N` says.
    pub(crate) const fn of(connections: usize) -> Self {
        Self { connections: Some(connections) }
    }

    /// How many, where the measurement itself would take `usual`: no more than the descriptors of this
    /// process allow, which has the client's ends of all of them. The workers inherit its limit.
    pub(crate) fn connections(self, usual: usize) -> usize {
        let limit = raise_descriptor_limit().map_or(1024, |limits| limits.current);
        let most = usize::try_from(limit).unwrap_or(usize::MAX).saturating_sub(RESERVE);
        self.connections.unwrap_or(usual).clamp(1, most.max(1))
    }
}
