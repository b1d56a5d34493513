//! Where a dataset's replica is. Pure.

use reseed_core::names::{DatasetName, InvalidName};

/// Names a dataset's replica.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mapping {
    root: DatasetName,
    whole: bool,
}

impl Mapping {
    /// `tank/svc/a` under `backup/host` is `backup/host/tank/svc/a`: two pools never meet.
    pub fn below(root: DatasetName) -> Self {
        Self { root, whole: true }
    }

    /// `tank/svc/a` under `backup/host` is `backup/host/svc/a`, as `syncoid -r tank backup/host` has it. Only for the
    /// datasets of one pool.
    pub fn without_pool(root: DatasetName) -> Self {
        Self { root, whole: false }
    }

    /// The dataset that all replicas are below. It must be there; reseed doesn't make it.
    pub fn root(&self) -> &DatasetName {
        &self.root
    }

    /// A dataset's replica.
    ///
    /// # Errors
    /// When the name gets too long.
    pub fn replica(&self, dataset: &DatasetName) -> Result<DatasetName, InvalidName> {
        let below = match (self.whole, dataset.as_str().split_once('/')) {
            (false, Some((_, rest))) => rest,
            _ => dataset.as_str(),
        };
        self.root.child(below)
    }
}

#[cfg(test)]
mod tests {
    use super::super::argv::tests::ds;
    use super::*;

    #[test]
    fn replicas_are_named() {
        let root = ds("backup/host");
        assert_eq!(
            Mapping::below(root.clone()).replica(&ds("tank/a")).unwrap(),
            ds("backup/host/tank/a")
        );
        let short = Mapping::without_pool(root);
        assert_eq!(short.replica(&ds("tank/svc/a")).unwrap(), ds("backup/host/svc/a"));
        assert_eq!(short.replica(&ds("tank")).unwrap(), ds("backup/host/tank"));
        assert!(short.replica(&ds(&format!("tank/{}", "x".repeat(250)))).is_err());
    }
}
