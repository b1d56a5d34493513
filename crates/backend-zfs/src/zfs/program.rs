//! Channel programs: many small changes of one pool in one process and one transaction group. What a program checks, the
//! kernel checks at the very moment of the change.
//!
//! Only root may run them, and only of this machine's pools are they asked for here. So nothing relies on them: whatever a
//! program hasn't surely done is left to the caller, who does it in the slower way and says why it can't be done.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;

use reseed_core::Context;
use reseed_core::error::{Effect, Error, StoreKind};
use reseed_core::names::{DatasetName, SnapshotName};
use reseed_core::point::SnapshotRef;

use super::argv::Args;
use super::tool::Tool;

/// Snapshots in one program: it is one transaction group, and others wait for it.
const AT_ONCE: usize = 400;

/// What [`destroy`] runs. The kernel compares the guid and looks for holds in the transaction group in which it removes, so
/// nothing can come between. Answers a letter for each: `g` it is gone, `n` no such snapshot, or another's guid, `h` it is
/// held, `r` refused (a clone, a mount).
const DESTROY: &str = r#"
args = ...
list = args["argv"]
said = ""
for at = 1, #list, 2 do
  name = list[at]
  verdict = "n"
  if zfs.exists(name) and "=" .. tostring(zfs.get_prop(name, "guid")) == list[at + 1] then
    if zfs.get_prop(name, "userrefs") ~= 0 then
      verdict = "h"
    elseif zfs.sync.destroy(name) == 0 then
      verdict = "g"
    else
      verdict = "r"
    end
  end
  said = said .. verdict
end
return said
"#;

/// What [`set`] runs. It ends at the first that fails, and what it did until then stays.
const SET: &str = r#"
args = ...
list = args["argv"]
for at = 2, #list, 2 do
  code = zfs.sync.set_prop(list[at], list[1], list[at + 1])
  if code ~= 0 then
    error(list[at] .. ": " .. code)
  end
end
"#;

/// Arguments for [`DESTROY`]. Numbers are signed in a channel program, and for `zfs` what begins with `-` is an option wherever
/// it stands: hence the `=`.
fn destroy_args(pool: &str, wanted: &[&SnapshotRef]) -> Args {
    let mut out = program(pool);
    for one in wanted {
        out.push(format!("{}@{}", one.dataset, one.name).into());
        out.push(format!("={}", one.guid.0.cast_signed()).into());
    }
    out
}

/// A snapshot and a value for it.
pub(crate) type Valued = (DatasetName, SnapshotName, String);

/// Arguments for [`SET`].
fn set_args(pool: &str, property: &str, wanted: &[&Valued]) -> Args {
    let mut out = program(pool);
    out.push(property.into());
    for (dataset, snapshot, value) in wanted {
        out.push(format!("{dataset}@{snapshot}").into());
        out.push(value.into());
    }
    out
}

fn program(pool: &str) -> Args {
    ["program", pool, "-"].map(OsString::from).into()
}

/// What programs that remove have done.
#[derive(Debug, Default)]
pub(crate) struct Removed {
    /// Surely gone, by this.
    pub(crate) gone: BTreeSet<SnapshotRef>,
    /// A program was begun, and it isn't known what it did.
    pub(crate) unclear: bool,
}

/// Who may run them.
fn may(tool: &Tool) -> bool {
    tool.is_local() && rustix::process::geteuid().is_root()
}

fn by_pool<T>(
    all: impl IntoIterator<Item = T>,
    dataset: impl Fn(&T) -> &DatasetName,
) -> Vec<(String, Vec<T>)> {
    let mut of: BTreeMap<String, Vec<T>> = BTreeMap::new();
    for one in all {
        of.entry(dataset(&one).pool().to_owned()).or_default().push(one);
    }
    of.into_iter().collect()
}

/// Removes those of these that are there under their guids and that nobody holds.
pub(crate) async fn destroy(tool: &Tool, cx: &Context, wanted: &[SnapshotRef]) -> Removed {
    let mut removed = Removed::default();
    if !may(tool) {
        return removed;
    }
    let wanted: BTreeSet<&SnapshotRef> = wanted.iter().collect();
    for (pool, all) in by_pool(wanted, |one| &one.dataset) {
        for part in all.chunks(AT_ONCE) {
            if cx.cancel.is_cancelled() {
                return removed;
            }
            let args = destroy_args(&pool, part);
            let what = "can't remove snapshots with a channel program";
            let ended = tool
                .change_with::<StoreKind>(cx, args, DESTROY, what, Effect::Unknown)
                .await;
            let verdicts = match &ended {
                Ok(output) => verdicts(&output.stdout.text(), part.len()),
                // It wasn't begun.
                Err(error) if error.kind() == StoreKind::PermissionDenied => return removed,
                Err(_) => None,
            };
            let Some(verdicts) = verdicts else {
                removed.unclear = true;
                continue;
            };
            let gone = part.iter().zip(verdicts).filter(|(_, gone)| *gone);
            removed.gone.extend(gone.map(|(one, _)| (**one).clone()));
        }
    }
    removed
}

/// Reads what [`DESTROY`] answers: of each of so many, whether it was removed. Nothing when that isn't told.
fn verdicts(stdout: &str, count: usize) -> Option<Vec<bool>> {
    let (_, said) = stdout.split_once("return: '")?;
    let (said, _) = said.split_once('\'')?;
    (said.len() == count && said.bytes().all(|byte| b"gnhr".contains(&byte)))
        .then(|| said.bytes().map(|byte| byte == b'g').collect())
}

/// Sets one property of each of these snapshots to a value of its own; whether it did, of all.
pub(crate) async fn set(tool: &Tool, cx: &Context, property: &str, values: &[Valued]) -> bool {
    if !may(tool) || values.len() < 2 {
        return false;
    }
    for (pool, all) in by_pool(values, |one| &one.0) {
        for part in all.chunks(AT_ONCE) {
            let args = set_args(&pool, property, part);
            let what = "can't set properties with a channel program";
            let done: Result<_, Error<StoreKind>> =
                tool.change_with(cx, args, SET, what, Effect::Partial).await;
            if done.is_err() {
                return false;
            }
        }
    }
    true
}

#[cfg(test)]
mod tests {
    use reseed_core::names::Guid;

    use super::super::argv::tests::{ds, snap};
    use super::*;

    /// As OpenZFS 2.3.2 prints it.
    const SAID: &str = "Channel program fully executed with return value:\n    return: 'gnhr'\n";

    fn line(args: &Args) -> String {
        let words: Vec<_> = args.iter().map(|word| word.to_string_lossy()).collect();
        words.join(" ")
    }

    #[test]
    fn what_is_named_goes_with_its_guid() {
        let (dataset, name) = (ds("tank/a b"), snap("one two"));
        let one = |guid| SnapshotRef {
            dataset: dataset.clone(),
            name: name.clone(),
            guid: Guid(guid),
        };
        assert_eq!(
            line(&destroy_args("tank", &[&one(7), &one(u64::MAX)])),
            "program tank - tank/a b@one two =7 tank/a b@one two =-1"
        );
        let valued = (dataset.clone(), name.clone(), "{}".to_owned());
        assert_eq!(
            line(&set_args("tank", "reseed:digest", &[&valued])),
            "program tank - reseed:digest tank/a b@one two {}"
        );
    }

    #[test]
    fn each_is_told_or_none_is() {
        assert_eq!(verdicts(SAID, 4), Some(vec![true, false, false, false]));
        assert_eq!(verdicts(SAID, 3), None);
        for text in [
            "",
            "Channel program fully executed with no return value.\n",
            "    return: 'gg",
            "    return: 'gx'\n",
        ] {
            assert_eq!(verdicts(text, 2), None, "{text:?}");
        }
    }
}
