//! What the backend for ZFS has to reach, measured inside of a virtual machine against the bare commands there.

use super::{Row, Rows};
use crate::{vm, vm_setup};

pub(super) fn run(yes: bool) -> Rows {
    vm_setup::ensure(yes)?;
    let count = vm::tests(&vm::Args::only("vm_alone_bench_zfs"))?;
    let rows: Vec<Row> = vm::ratios()?.iter().filter_map(|line| row(line)).collect();
    // A test that failed before it had measured has left no line.
    if u64::try_from(rows.len()).ok() != Some(count.ran()) {
        return Err(format!("{} of {} tests left a figure, see above", rows.len(), count.ran()).into());
    }
    Ok(rows)
}

fn row(line: &str) -> Option<Row> {
    let mut parts = line.split('\t').map(str::to_owned);
    let mut part = || parts.next();
    Some(Row {
        name: part()?,
        ours: part()?,
        reference: part()?,
        ratio: part()?,
        goal: part()?,
        reached: part()?.parse().ok(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_a_row() {
        let found = row("zfs: x\t1.000 s\t2.000 s\t0.500\t<= 1.3\ttrue").unwrap();
        assert_eq!((found.name.as_str(), found.reached), ("zfs: x", Some(true)));
        assert!(row("zfs: x\t1.000 s").is_none());
    }
}
