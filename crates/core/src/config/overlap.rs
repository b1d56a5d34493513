//! Which directories get in each other's way.
//!
//! Compares paths as they are written. It can't see that two paths are one directory by a symlink or a bind mount;
//! that is for the store's inspection to find out.

use std::path::Path;

use super::diagnostic::{Extra, Sink};
use super::text::Span;

/// What a directory is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Role {
    /// A service's live data.
    Data,
    /// A store, a replica or a repository.
    Root,
    /// reseed's own state.
    State,
}

/// A directory that somebody wants for himself.
#[derive(Debug)]
pub(crate) struct Claim<'a> {
    pub(crate) path: &'a Path,
    pub(crate) role: Role,
    /// The key it is written under, as `services.sonarr.path`.
    pub(crate) key: String,
    /// Nothing when it is a default.
    pub(crate) span: Option<Span>,
}

impl Claim<'_> {
    fn what(&self) -> String {
        match self.role {
            Role::Data => format!("the data of `{}`", self.key),
            Role::Root => format!("the directory of `{}`", self.key),
            Role::State => "the state directory".to_owned(),
        }
    }
}

/// Reports every directory that is, lies in or contains another one that it must keep away from; each once, against
/// the nearest. `claims` are sorted by path afterwards.
pub(crate) fn check(claims: &mut [Claim<'_>], sink: &mut Sink<'_>) {
    // Paths compare by component, so everything inside a directory directly follows it.
    claims.sort_by(|a, b| a.path.cmp(b.path).then_with(|| start(a).cmp(&start(b))));
    let mut around: Vec<&Claim<'_>> = Vec::new();
    for claim in claims.iter() {
        while around
            .last()
            .is_some_and(|outer| !claim.path.starts_with(outer.path))
        {
            around.pop();
        }
        if let Some(outer) = around.iter().rev().find(|outer| !may_contain(outer, claim)) {
            report(outer, claim, sink);
        }
        around.push(claim);
    }
}

/// The innermost of the sorted claims that a path lies in.
pub(crate) fn inside<'c, 'p>(claims: &'c [Claim<'p>], path: &Path, role: Role) -> Option<&'c Claim<'p>> {
    path.ancestors().find_map(|ancestor| {
        let first = claims.partition_point(|claim| claim.path < ancestor);
        claims[first..]
            .iter()
            .take_while(|claim| claim.path == ancestor)
            .find(|claim| claim.role == role)
    })
}

fn start(claim: &Claim<'_>) -> Option<usize> {
    claim.span.as_ref().map(|span| span.start)
}

/// Stores and data may lie in the state directory, beside what is in there. Nothing else may hold anything else.
fn may_contain(outer: &Claim<'_>, inner: &Claim<'_>) -> bool {
    outer.role == Role::State && outer.path != inner.path
}

fn report(outer: &Claim<'_>, inner: &Claim<'_>, sink: &mut Sink<'_>) {
    // The one that was written last is the one that is wrong.
    let inner_is_later = start(inner) >= start(outer);
    let (here, there) = if inner_is_later {
        (inner, outer)
    } else {
        (outer, inner)
    };
    let Some(span) = &here.span else {
        return;
    };
    let (path, other) = (here.path.display(), there.path.display());
    let message = if outer.path == inner.path {
        format!("\"{path}\" is {} already", there.what())
    } else if inner_is_later {
        format!("\"{path}\" lies in \"{other}\", which is {}", there.what())
    } else {
        format!("\"{path}\" contains \"{other}\", which is {}", there.what())
    };
    let same = outer.path == inner.path;
    let hint = match (outer.role, inner.role) {
        (Role::Data, Role::Data) if same => {
            "two datasets on one directory hide each other's data: give each its own"
        }
        (Role::Data, Role::Data) => {
            "restoring one would replace the other: move one out, or keep both as one dataset"
        }
        (Role::Root, Role::Root) if same => {
            "what is lost with one would be lost with the other: name another directory"
        }
        (Role::Root, Role::Root) => "name directories of which none lies in the other",
        (Role::State, _) | (_, Role::State) => "give the state directory a place of its own with `state_dir`",
        _ => "what is lost with the data would be lost with its copies: keep them apart",
    };
    let note = match &there.span {
        Some(span) => format!("`{}` is in line {}", there.key, sink.text.line(span.start)),
        None => "that is the default".to_owned(),
    };
    sink.error(&here.key, span, message, Extra::hint(hint).note(note));
}
