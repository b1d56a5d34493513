//! Which of the calls that match a rule it strikes: not the first ones, and not for ever.

/// How many calls are still let pass, and how many are struck then.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Turns {
    /// Let pass.
    pub(crate) skip: u32,
    /// Struck; all of them without.
    pub(crate) times: Option<u32>,
}

impl Turns {
    /// From the `n`th on, counted from 1.
    pub(crate) fn begin_at(&mut self, n: u32) {
        self.skip = n.saturating_sub(1);
    }

    /// Whether nothing is struck any more.
    pub(crate) fn are_over(self) -> bool {
        self.times == Some(0)
    }

    /// Counts a call. Whether it is struck.
    pub(crate) fn take(&mut self) -> bool {
        if self.skip > 0 {
            self.skip -= 1;
            return false;
        }
        self.times = self.times.map(|times| times - 1);
        true
    }
}
