//! Collects the directories of a configuration for [`overlap`], and looks where the passwords lie.

use std::path::Path;

use super::decode::{At, Maybe, Named};
use super::diagnostic::{Extra, Sink};
use super::file::{ConfigFile, ServiceFile};
use super::model::DEFAULT_STATE_DIR;
use super::overlap::{self, Claim, Role};
use super::place_file::{ReplicaFile, StoreFile};
use super::places::Places;
use super::text::Span;
use crate::names::ServiceName;

/// Reports directories that get in each other's way, and passwords that would be lost with what they open.
pub(crate) fn check(
    file: &ConfigFile,
    places: &Places<'_>,
    services: &Named<ServiceName, ServiceFile>,
    root: &At<'_>,
    sink: &mut Sink<'_>,
) {
    let mut claims = Vec::new();
    let state = |path, span| Claim {
        path,
        role: Role::State,
        key: "state_dir".to_owned(),
        span,
    };
    match &file.state_dir {
        Maybe::Given(path, span) => claims.push(state(path.0.as_path(), Some(span.clone()))),
        Maybe::Absent => claims.push(state(Path::new(DEFAULT_STATE_DIR), None)),
        Maybe::Broken => {}
    }
    of_places(places, root, &mut claims);
    of_services(services, root, &mut claims);
    overlap::check(&mut claims, sink);
    check_passwords(places, root, &claims, sink);
}

fn claim<'a>(path: &'a Path, role: Role, at: &At<'_>, span: &Span) -> Claim<'a> {
    Claim {
        path,
        role,
        key: at.to_string(),
        span: Some(span.clone()),
    }
}

fn of_places<'a>(places: &Places<'a>, root: &At<'_>, claims: &mut Vec<Claim<'a>>) {
    let at = root.key("stores", root.span);
    for entry in places.stores {
        if let Some((StoreFile::Directory(file), _)) = &entry.value
            && let Some((path, span)) = &file.path.0
        {
            let at = at.key(entry.name.as_str(), span);
            claims.push(claim(&path.0, Role::Root, &at, span));
        }
    }
    let at = root.key("replicas", root.span);
    for entry in places.replicas {
        if let Some((ReplicaFile::Directory(file), _)) = &entry.value
            && let Some((path, span)) = &file.path.0
        {
            let at = at.key(entry.name.as_str(), span);
            claims.push(claim(&path.0, Role::Root, &at, span));
        }
    }
    let at = root.key("offsite", root.span);
    for entry in places.offsite {
        let path = entry
            .value
            .as_ref()
            .and_then(|(offsite, _)| offsite.repository.0.as_ref());
        if let Some((repository, span)) = path
            && let Some(path) = repository.0.directory()
        {
            claims.push(claim(path, Role::Root, &at.key(entry.name.as_str(), span), span));
        }
    }
}

fn of_services<'a>(
    services: &'a Named<ServiceName, ServiceFile>,
    root: &At<'_>,
    claims: &mut Vec<Claim<'a>>,
) {
    let at_services = root.key("services", root.span);
    for entry in &services.entries {
        let Some((service, span)) = &entry.value else {
            continue;
        };
        let at = at_services.key(entry.name.as_str(), span);
        if let Some((path, span)) = service.path.given() {
            claims.push(claim(&path.0, Role::Data, &at, span));
        }
        let at = at.key("datasets", span);
        for dataset in service
            .datasets
            .value()
            .map_or(&[][..], |datasets| &datasets.entries)
        {
            if let Some((path, span)) = &dataset.value {
                claims.push(claim(&path.0, Role::Data, &at.key(&dataset.name.0, span), span));
            }
        }
    }
}

fn check_passwords(places: &Places<'_>, root: &At<'_>, claims: &[Claim<'_>], sink: &mut Sink<'_>) {
    let at = root.key("offsite", root.span);
    for entry in places.offsite {
        let Some((offsite, _)) = &entry.value else {
            continue;
        };
        let password = offsite.password_file.0.as_ref();
        let files = [
            (
                "password",
                "password_file",
                password.map(|(path, span)| (path, span)),
            ),
            ("key", "credentials_file", offsite.credentials_file.given()),
            ("key", "key_file", offsite.key_file.given()),
            (
                "server's password",
                "server_password_file",
                offsite.server_password_file.given(),
            ),
        ];
        for (what, key, file) in files {
            let Some((path, span)) = file else { continue };
            let at = at.key(entry.name.as_str(), span);
            let (message, hint) = if let Some(data) = overlap::inside(claims, &path.0, Role::Data) {
                (
                    format!("the {what} of `{at}` lies in the data of `{}`", data.key),
                    format!(
                        "when that data is lost, so is the {what} of its backup: keep it elsewhere, and a copy off this machine"
                    ),
                )
            } else if let Some(place) = overlap::inside(claims, &path.0, Role::Root) {
                (
                    format!("the {what} of `{at}` lies in the directory of `{}`", place.key),
                    "whoever gets hold of the one has the other: keep them apart".to_owned(),
                )
            } else {
                continue;
            };
            sink.warn(at.key(key, span), span, message, Extra::hint(hint));
        }
    }
}
