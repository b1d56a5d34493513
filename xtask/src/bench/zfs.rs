//! What the backend for ZFS has to reach, measured inside of a virtual machine against the bare commands there.

use super::{Row, Rows};
use crate::{vm, vm_setup};

pub(super) fn run(yes: bool) -> Rows {
    vm_setup::ensure(yes)?;
    let count = vm::tests(&vm::Args::benchmarks("vm_alone_bench_zfs"))?;
    let rows: Vec<Row> = vm::ratios()?.iter().filter_map(|line| row(line)).collect();
    // A test that failed before it had measured has left no line; one test leaves two.
    let fallen = rows.iter().filter(|row| row.reached == Some(false)).count();
    let failed = usize::try_from(count.failed).unwrap_or(usize::MAX);
    if failed > fallen || rows.len() < usize::try_from(count.ran()).unwrap_or(usize::MAX) {
        let left = rows.len();
        return Err(format!(
            "{} tests ran, {failed} failed, {left} figures, see above",
            count.ran()
        )
        .into());
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
