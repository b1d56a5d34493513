//! Off-site repositories: which engine a configured type stands for, and how a configured place is reached.

use std::path::PathBuf;
use std::sync::Arc;

use reseed_backend_restic::repo::Engine as ResticEngine;
use reseed_backend_restic::restic::{Location as ResticLocation, RestPlace, SftpPlace};
use reseed_backend_restic::s3::{CredentialsFrom, S3Place};
use reseed_backend_restic::worker::Worker;
use reseed_backend_restic::{Embedded, PasswordFrom, Restic};
use reseed_core::clock::Clock;
use reseed_core::config::{self, Access, Offsite, RepoLocation};
use reseed_core::error::{OpError, OpKind};
use reseed_core::names::SourceName;
use reseed_core::retention;
use reseed_core::{OffsitePruner, OffsiteRepo, RestoreSource};

use super::{Session, Wiring};

/// What is written to, and the same as what is restored from.
pub(super) type Repository = (Arc<dyn OffsiteRepo>, Arc<dyn RestoreSource>);

impl Session {
    pub(crate) fn repo(&self, name: &str) -> Result<Arc<dyn OffsiteRepo>, OpError> {
        let mut wiring = Wiring::new(self);
        let found = SourceName::new(name).ok().and_then(|name| wiring.offsite(&name));
        found
            .map(|(repo, _)| repo)
            .ok_or_else(|| self.no_such_repository(name))
    }

    pub(crate) fn repos(&self) -> Vec<(SourceName, Arc<dyn OffsiteRepo>)> {
        let mut wiring = Wiring::new(self);
        self.config
            .offsite
            .keys()
            .filter_map(|name| Some((name.clone(), wiring.offsite(name)?.0)))
            .collect()
    }

    /// Where a repository is.
    pub(crate) fn location(&self, repo: &SourceName) -> String {
        match self.config.offsite.get(repo) {
            Some(offsite) => offsite.repository().to_string(),
            None => String::new(),
        }
    }

    /// A repository's name as someone typed it.
    pub(crate) fn offsite_name(&self, name: &str) -> Result<SourceName, OpError> {
        let found = SourceName::new(name).ok();
        found
            .filter(|name| self.config.offsite.contains_key(name))
            .ok_or_else(|| self.no_such_repository(name))
    }

    fn no_such_repository(&self, name: &str) -> OpError {
        let names: Vec<&str> = self.config.offsite.keys().map(SourceName::as_str).collect();
        OpError::new(
            OpKind::InvalidInput,
            format!("no off-site repository {name:?} is configured"),
        )
        .hint(format!("there are: {}", names.join(", ")))
    }

    /// What removes points from a repository, and by which rules; none where no rules are declared.
    pub(crate) fn pruner(&self, name: &SourceName) -> Option<(Arc<dyn OffsitePruner>, retention::Policy)> {
        let Offsite::Restic { keep: Some(keep), .. } = self.config.offsite.get(name)? else {
            return None;
        };
        let pruner = Wiring::new(self).restic(name)?;
        Some((Arc::new(pruner), retention::Policy::Restic(keep.policy())))
    }

    /// Where in S3 a repository is, and the key to it; none for one that is elsewhere.
    pub(crate) fn bucket(&self, name: &SourceName) -> Option<(S3Place, CredentialsFrom)> {
        let offsite = self.config.offsite.get(name)?;
        let access = match offsite {
            Offsite::Embedded { s3, .. } => s3.as_ref()?,
            Offsite::Restic {
                access: Some(Access::S3(access)),
                ..
            } => access,
            _ => return None,
        };
        match offsite.repository() {
            RepoLocation::S3(location) => Some(s3_place(location, access)),
            _ => None,
        }
    }
}

/// The embedded engine at a repository's place.
fn engine(
    repository: &RepoLocation,
    s3: Option<&config::S3Access>,
    clock: Arc<dyn Clock>,
) -> Option<ResticEngine> {
    match (repository, s3) {
        (RepoLocation::Directory(path), _) => Some(ResticEngine::local(path, clock)),
        (RepoLocation::S3(location), Some(access)) => {
            let (place, key) = s3_place(location, access);
            Some(ResticEngine::s3(place, key, clock))
        }
        _ => None,
    }
}

fn s3_place(location: &config::S3Location, access: &config::S3Access) -> (S3Place, CredentialsFrom) {
    let place = S3Place {
        endpoint: location.endpoint.clone(),
        region: access.region.clone(),
        bucket: location.bucket.clone(),
        prefix: location.prefix.clone(),
        allow_http: access.allow_http,
    };
    let key = CredentialsFrom::file(&access.credentials_file);
    let key = match &access.profile {
        Some(profile) => key.of_profile(profile),
        None => key,
    };
    (place, key)
}

/// A repository's place for the restic program.
fn by_restic(repository: &RepoLocation, access: Option<&Access>) -> Option<ResticLocation> {
    Some(match (repository, access) {
        (RepoLocation::Directory(path), _) => ResticLocation::Local(path.clone()),
        (RepoLocation::S3(location), Some(Access::S3(access))) => {
            let (place, credentials) = s3_place(location, access);
            ResticLocation::S3 { place, credentials }
        }
        (RepoLocation::Rest(url), Some(Access::Rest(access))) => ResticLocation::Rest(RestPlace {
            url: url.clone(),
            login: match (&access.server_user, &access.server_password_file) {
                (Some(user), Some(file)) => Some((user.clone(), PasswordFrom::File(file.clone()))),
                _ => None,
            },
            allow_http: access.allow_http,
        }),
        (RepoLocation::Sftp(place), Some(Access::Sftp(access))) => ResticLocation::Sftp(SftpPlace {
            destination: place.destination.clone(),
            port: place.port,
            path: place.path.clone(),
            known_hosts: access.known_hosts.clone(),
            key_file: access.key_file.clone(),
        }),
        _ => return None,
    })
}

impl Wiring<'_> {
    /// A repository, as what is written to and as what is restored from: one for all services, so that its key is derived once, and what it
    /// holds is read once.
    pub(super) fn offsite(&mut self, name: &SourceName) -> Option<Repository> {
        if let Some((_, known)) = self.repositories.iter().find(|(known, _)| known == name) {
            return Some(known.clone());
        }
        let made = self.make_offsite(name)?;
        self.repositories.push((name.clone(), made.clone()));
        Some(made)
    }

    fn make_offsite(&self, name: &SourceName) -> Option<Repository> {
        match self.session.config.offsite.get(name)? {
            Offsite::Embedded {
                repository,
                password_file,
                s3,
                ..
            } => {
                let engine = engine(repository, s3.as_ref(), self.clock())?;
                // The worker is this very program, whatever PATH says.
                let program = std::env::current_exe().unwrap_or_else(|_| PathBuf::from("/proc/self/exe"));
                let worker = Worker::new(
                    [program.into_os_string(), "__restore-worker".into()],
                    Arc::clone(&self.session.runner),
                );
                let repo = Embedded::new(
                    name.clone(),
                    engine,
                    PasswordFrom::File(password_file.clone()),
                    worker,
                );
                let repo = Arc::new(repo.of_host(self.host));
                Some((Arc::<Embedded>::clone(&repo), repo))
            }
            Offsite::Restic { .. } => {
                let repo = Arc::new(self.restic(name)?);
                Some((Arc::<Restic>::clone(&repo), repo))
            }
            _ => None,
        }
    }

    /// A repository that the restic program reaches.
    fn restic(&self, name: &SourceName) -> Option<Restic> {
        let Offsite::Restic {
            repository,
            password_file,
            access,
            ..
        } = self.session.config.offsite.get(name)?
        else {
            return None;
        };
        let repo = Restic::new(
            name.clone(),
            by_restic(repository, access.as_ref())?,
            PasswordFrom::File(password_file.clone()),
            // Part of the paths that are recorded: restic finds the backup before by them.
            self.session.config.state_dir.join("restic").join(name.as_str()),
            Arc::clone(&self.session.runner),
            self.clock(),
        );
        Some(repo.of_host(self.host))
    }
}
