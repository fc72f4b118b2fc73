//! Which layers ran, and in which order they may.

/// The stages, from the outside in. A stage that finds a later one already run stands in the wrong place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Stage {
    Audit,
    Problem,
    Evidence,
    Tls,
    ClientLimit,
    Authentication,
    PrincipalLimit,
    Guard,
}

impl Stage {
    /// The word that records and metrics show.
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Audit => "audit",
            Self::Problem => "problem",
            Self::Evidence => "evidence",
            Self::Tls => "tls",
            Self::ClientLimit => "client_limit",
            Self::Authentication => "authentication",
            Self::PrincipalLimit => "principal_limit",
            Self::Guard => "guard",
        }
    }

    pub(super) const fn stands_once(self) -> bool {
        match self {
            Self::Audit | Self::Problem | Self::Evidence | Self::Tls | Self::Authentication => true,
            Self::ClientLimit | Self::PrincipalLimit | Self::Guard => false,
        }
    }

    pub(super) const fn misordered(self) -> &'static str {
        match self {
            Self::Audit => "the audit layer stands inside another layer, or twice: put it outermost, once",
            Self::Problem => "the problem layer stands inside a layer whose refusals it should render, or twice",
            Self::Evidence => "the evidence layer stands inside a layer that needs the client's address, or twice",
            Self::Tls => "TLS enforcement stands inside authentication or a limit, or twice: put it outside",
            Self::ClientLimit => "the limit per client stands inside authentication: put it outside",
            Self::Authentication => {
                "authentication stands inside a limit or a guard that needs it, or twice: put it outside"
            }
            Self::PrincipalLimit => {
                "the limit per principal stands inside a guard: put it between authentication and guard"
            }
            Self::Guard => "the guard stands outside a layer that it needs",
        }
    }
}

/// The stages that ran.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Marks(u8);

impl Marks {
    pub(super) const fn has(self, stage: Stage) -> bool {
        self.0 & (1 << stage as u8) != 0
    }

    pub(super) const fn set(&mut self, stage: Stage) {
        self.0 |= 1 << stage as u8;
    }

    /// Whether a stage ran that belongs inside this one.
    pub(super) const fn any_inside(self, stage: Stage) -> bool {
        // Two shifts: one by eight would overflow for the innermost stage.
        (self.0 >> stage as u8) >> 1 != 0
    }
}
