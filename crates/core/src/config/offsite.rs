//! An off-site repository: which keys go with which address, and which engine reaches it.

use super::decode::{At, Maybe, NamedEntry};
use super::diagnostic::{Extra, Sink};
use super::file::{OffsiteFile, OffsiteType};
use super::location::{RepoLocation, S3Location};
use super::model::{Access, Offsite, RestAccess, S3Access, SftpAccess};
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
        super::keep::check(file, &at, sink);
        foreign_keys(file, &repository.0, &at, sink);
        match &repository.0 {
            RepoLocation::Directory(_) => {}
            RepoLocation::S3(location) => {
                need(
                    file.credentials_file.is_absent(),
                    "credentials_file",
                    "name a file as AWS's tools have it: `[default]`, `aws_access_key_id = …`, `aws_secret_access_key = …`",
                    place,
                    &at,
                    sink,
                );
                encrypted(file, location.is_plain_http(), place, &at, sink);
            }
            RepoLocation::Rest(url) => {
                only_by_restic(file, "on a REST server", place, &at, sink);
                let (user, password) = (
                    file.server_user.is_absent(),
                    file.server_password_file.is_absent(),
                );
                need(
                    user && !password,
                    "server_user",
                    "name the user whose password that is",
                    place,
                    &at,
                    sink,
                );
                need(
                    password && !user,
                    "server_password_file",
                    "name a file with the user's password",
                    place,
                    &at,
                    sink,
                );
                encrypted(file, url.starts_with("http:"), place, &at, sink);
            }
            RepoLocation::Sftp(_) => {
                only_by_restic(file, "reached by sftp", place, &at, sink);
                need(
                    file.known_hosts.is_absent(),
                    "known_hosts",
                    "name a file with the host's key, as `ssh-keyscan HOST` writes it, compared with what the host itself says",
                    place,
                    &at,
                    sink,
                );
            }
        }
    }
}

/// Keys that are for addresses of another kind.
fn foreign_keys(file: &OffsiteFile, repository: &RepoLocation, at: &At<'_>, sink: &mut Sink<'_>) {
    fn of<T>(key: &Maybe<T>) -> Option<&Span> {
        key.given().map(|given| given.1)
    }
    let (here, s3, rest, sftp) = match repository {
        RepoLocation::Directory(_) => ("a directory", false, false, false),
        RepoLocation::S3(_) => ("in S3", true, false, false),
        RepoLocation::Rest(_) => ("on a REST server", false, true, false),
        RepoLocation::Sftp(_) => ("reached by sftp", false, false, true),
    };
    let (in_s3, on_rest, by_sftp) = ("in S3", "on a REST server", "reached by sftp");
    let given = [
        ("region", of(&file.region), s3, in_s3),
        ("credentials_file", of(&file.credentials_file), s3, in_s3),
        ("profile", of(&file.profile), s3, in_s3),
        ("allow_http", of(&file.allow_http), s3 || rest, in_s3),
        ("server_user", of(&file.server_user), rest, on_rest),
        (
            "server_password_file",
            of(&file.server_password_file),
            rest,
            on_rest,
        ),
        ("known_hosts", of(&file.known_hosts), sftp, by_sftp),
        ("key_file", of(&file.key_file), sftp, by_sftp),
    ];
    for (key, span, fits, place) in given {
        let Some(span) = span.filter(|_| !fits) else {
            continue;
        };
        let message = format!("`{key}` is for repositories {place}, and `{at}` is {here}");
        let hint = match place {
            "in S3" => "remove it, or write the repository's address as in \"s3:https://HOST/BUCKET\"",
            "reached by sftp" => {
                "remove it, or write the repository's address as in \"sftp:USER@HOST:/PATH\""
            }
            _ => "remove it, or write the repository's address as in \"rest:https://HOST/PATH\"",
        };
        sink.error(at.key(key, span), span, message, Extra::hint(hint));
    }
}

fn need(missing: bool, key: &str, hint: &str, place: &Span, at: &At<'_>, sink: &mut Sink<'_>) {
    if missing {
        let message = format!("`{at}` has no `{key}`");
        sink.error(at, place, message, Extra::hint(hint));
    }
}

fn only_by_restic(file: &OffsiteFile, where_: &str, place: &Span, at: &At<'_>, sink: &mut Sink<'_>) {
    if matches!(file.kind.value(), Some(OffsiteType::Embedded)) {
        let message = format!("`{at}` is {where_}, which the embedded engine does not speak");
        let hint = "write `type = \"restic\"`: the restic program reaches it, and reads and writes the same repository";
        sink.error(at.key("repository", place), place, message, Extra::hint(hint));
    }
}

fn encrypted(file: &OffsiteFile, plain_http: bool, place: &Span, at: &At<'_>, sink: &mut Sink<'_>) {
    let allowed = match &file.allow_http {
        Maybe::Given(flag, _) => flag.0,
        Maybe::Absent => false,
        Maybe::Broken => return,
    };
    if plain_http && !allowed {
        let message = format!("`{at}` would be reached by plain http");
        let hint = "write `https:`; inside a network that is trusted, `allow_http = true` permits it";
        sink.error(at.key("repository", place), place, message, Extra::hint(hint));
    }
}

/// The repository; `None` where something is missing, which was reported.
pub(crate) fn offsite(entry: &NamedEntry<SourceName, OffsiteFile>) -> Option<Offsite> {
    let (file, _) = entry.value.as_ref()?;
    let repository = file.repository.0.as_ref()?.0.0.clone();
    let password_file = file.password_file.0.as_ref()?.0.0.clone();
    let allow_http = file.allow_http.value().is_some_and(|flag| flag.0);
    let access = match &repository {
        RepoLocation::Directory(_) => None,
        RepoLocation::S3(location) => Some(Access::S3(s3(file, location, allow_http)?)),
        RepoLocation::Rest(_) => Some(Access::Rest(RestAccess {
            server_user: file.server_user.value().map(|user| user.0.clone()),
            server_password_file: file.server_password_file.value().map(|path| path.0.clone()),
            allow_http,
        })),
        RepoLocation::Sftp(_) => Some(Access::Sftp(SftpAccess {
            known_hosts: file.known_hosts.value()?.0.clone(),
            key_file: file.key_file.value().map(|path| path.0.clone()),
        })),
    };
    let price = super::price::price(file.price.value());
    let kind = match &file.kind {
        // The reference implementation.
        Maybe::Absent => OffsiteType::Restic,
        Maybe::Given(kind, _) => *kind,
        Maybe::Broken => return None,
    };
    match kind {
        OffsiteType::Embedded => Some(Offsite::Embedded {
            repository,
            password_file,
            price,
            s3: match access {
                None => None,
                Some(Access::S3(s3)) => Some(s3),
                Some(_) => return None,
            },
        }),
        OffsiteType::Restic => Some(Offsite::Restic {
            repository,
            password_file,
            access,
            keep: super::keep::keep(file),
            price,
        }),
    }
}

fn s3(file: &OffsiteFile, location: &S3Location, allow_http: bool) -> Option<S3Access> {
    Some(S3Access {
        region: match file.region.value() {
            Some(region) => region.0.clone(),
            None => location.region().unwrap_or(DEFAULT_REGION).to_owned(),
        },
        credentials_file: file.credentials_file.value()?.0.clone(),
        profile: file.profile.value().map(|profile| profile.0.clone()),
        allow_http,
    })
}
