//! An off-site repository: which keys go with which address.

use super::decode::{At, Maybe, NamedEntry};
use super::diagnostic::{Extra, Sink};
use super::file::{OffsiteFile, OffsiteType};
use super::location::{RepoLocation, S3Location};
use super::model::{Offsite, S3Access};
use super::text::Span;
use crate::names::SourceName;

/// What restic signs for where nobody says a region, and what stores without regions take.
const DEFAULT_REGION: &str = "us-east-1";

/// Reports keys that are missing for an address, or belong to another kind of it.
pub(crate) fn check(entries: &[NamedEntry<SourceName, OffsiteFile>], root: &At<'_>, sink: &mut Sink<'_>) {
    let at = root.key("offsite", root.span);
    for entry in entries {
        let Some((file, span)) = &entry.value else {
            continue;
        };
        let Some((repository, place)) = &file.repository.0 else {
            continue;
        };
        let at = at.key(entry.name.as_str(), span);
        match &repository.0 {
            RepoLocation::Directory(_) => only_in_s3(file, &at, sink),
            RepoLocation::S3(location) => {
                not_by_restic(file, place, &at, sink);
                complete(file, location, place, &at, sink);
            }
        }
    }
}

fn only_in_s3(file: &OffsiteFile, at: &At<'_>, sink: &mut Sink<'_>) {
    fn of<T>(key: &Maybe<T>) -> Option<&Span> {
        key.given().map(|given| given.1)
    }
    let given = [
        ("region", of(&file.region)),
        ("credentials_file", of(&file.credentials_file)),
        ("profile", of(&file.profile)),
        ("allow_http", of(&file.allow_http)),
    ];
    for (key, span) in given {
        let Some(span) = span else { continue };
        let message = format!("`{key}` is for repositories in S3, and `{at}` is a directory");
        let hint = "remove it, or write the repository's address as in \"s3:https://HOST/BUCKET\"";
        sink.error(at.key(key, span), span, message, Extra::hint(hint));
    }
}

fn not_by_restic(file: &OffsiteFile, place: &Span, at: &At<'_>, sink: &mut Sink<'_>) {
    if matches!(file.kind.0, Some((OffsiteType::Restic, _))) {
        let message = format!("`{at}` is in S3, which is not supported yet with the restic program");
        let hint = "write `type = \"embedded\"`: it reads and writes what restic does";
        sink.error(at.key("repository", place), place, message, Extra::hint(hint));
    }
}

fn complete(file: &OffsiteFile, location: &S3Location, place: &Span, at: &At<'_>, sink: &mut Sink<'_>) {
    if file.credentials_file.is_absent() {
        let message = format!("`{at}` has no `credentials_file`");
        let hint = "name a file as AWS's tools have it: `[default]`, `aws_access_key_id = …`, `aws_secret_access_key = …`";
        sink.error(at, place, message, Extra::hint(hint));
    }
    let allowed = match &file.allow_http {
        Maybe::Given(flag, _) => flag.0,
        Maybe::Absent => false,
        Maybe::Broken => return,
    };
    if location.is_plain_http() && !allowed {
        let message = format!("`{at}` would be reached by plain http");
        let hint = "write `https:`; inside a network that is trusted, `allow_http = true` permits it";
        sink.error(at.key("repository", place), place, message, Extra::hint(hint));
    }
}

/// The repository; `None` where something is missing, which was reported.
pub(crate) fn offsite(entry: &NamedEntry<SourceName, OffsiteFile>) -> Option<Offsite> {
    let (file, _) = entry.value.as_ref()?;
    let repository = file.repository.0.as_ref()?.0.0.clone();
    let s3 = match &repository {
        RepoLocation::Directory(_) => None,
        RepoLocation::S3(location) => Some(S3Access {
            region: match file.region.value() {
                Some(region) => region.0.clone(),
                None => location.region().unwrap_or(DEFAULT_REGION).to_owned(),
            },
            credentials_file: file.credentials_file.value()?.0.clone(),
            profile: file.profile.value().map(|profile| profile.0.clone()),
            allow_http: file.allow_http.value().is_some_and(|flag| flag.0),
        }),
    };
    let password_file = file.password_file.0.as_ref()?.0.0.clone();
    Some(match file.kind.0.as_ref()?.0 {
        OffsiteType::Embedded => Offsite::Embedded {
            repository,
            password_file,
            s3,
        },
        OffsiteType::Restic => Offsite::Restic {
            repository,
            password_file,
            s3,
        },
    })
}
