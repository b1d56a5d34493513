//! Where a repository is, as restic is told. Pure, but for the files with keys and passwords, which are read at each use.
//!
//! No key or password is an argument or in the environment: each reaches restic by a file that only the child has. What restic
//! would take from its surroundings instead (`AWS_…`, `~/.ssh/config`'s word on host keys) isn't there or is overruled.

use std::ffi::{OsStr, OsString};
use std::fmt;
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use reseed_core::clock::Clock;
use reseed_core::exec::{Command, Secret};
use zeroize::Zeroizing;

use crate::embedded::PasswordFrom;
use crate::error::{EngineError, Result};
use crate::repo::Engine;
use crate::s3::{CredentialsFrom, S3Place, may_be_plain};

/// Where a repository is.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum Location {
    /// A directory.
    Local(PathBuf),
    /// A bucket, or a part of one. B2 is reached through its S3 endpoint, as restic's authors recommend.
    S3 {
        /// Where.
        place: S3Place,
        /// The access key.
        credentials: CredentialsFrom,
    },
    /// restic's own server.
    Rest(RestPlace),
    /// A directory of another machine.
    Sftp(SftpPlace),
}

/// A repository on restic's own server.
#[derive(Debug, Clone)]
pub struct RestPlace {
    /// `https://HOST[:PORT]/PATH`, without a user.
    pub url: String,
    /// The user and the password that the server asks for.
    pub login: Option<(String, PasswordFrom)>,
    /// The address may begin with `http:`.
    pub allow_http: bool,
}

/// A repository in a directory of another machine, by way of ssh.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SftpPlace {
    /// `HOST` or `USER@HOST`.
    pub destination: String,
    /// The port, unless it is ssh's own choice.
    pub port: Option<u16>,
    /// The directory there; absolute.
    pub path: PathBuf,
    /// The file with the host's key. Another key is refused, and none is learned.
    pub known_hosts: PathBuf,
    /// The file with the private key; no other is offered then.
    pub key_file: Option<PathBuf>,
}

impl Location {
    /// The directory, where it is one.
    pub fn local_path(&self) -> Option<&Path> {
        match self {
            Self::Local(path) => Some(path),
            Self::S3 { .. } | Self::Rest(_) | Self::Sftp(_) => None,
        }
    }

    /// The options that restic needs for it.
    ///
    /// # Errors
    /// `Invalid` for what can't be said to ssh.
    pub(crate) fn options(&self) -> Result<Vec<OsString>> {
        match self {
            Self::Local(_) | Self::Rest(_) => Ok(Vec::new()),
            Self::S3 { place, .. } => Ok([
                // By path, as the embedded engine does: not every store has names for its buckets.
                "s3.bucket-lookup=path".to_owned(),
                format!("s3.region={}", place.region),
                // restic has a loop of its own around each of these.
                "s3.retries=3".to_owned(),
            ]
            .into_iter()
            .flat_map(|option| ["-o".into(), option.into()])
            .collect()),
            Self::Sftp(place) => {
                let mut command = OsString::from("sftp.command=");
                command.push(place.ssh()?);
                Ok(vec!["-o".into(), as_field(&command)])
            }
        }
    }

    /// Tells a command where the repository is, and gives it the keys to it.
    ///
    /// # Errors
    /// `CredentialsFile`, `PasswordFile`; `PlainHttp` where that isn't allowed.
    pub(crate) fn tell(&self, command: Command) -> Result<Command> {
        Ok(match self {
            Self::Local(path) => command.env("RESTIC_REPOSITORY", path),
            Self::S3 { place, credentials } => {
                place.is_allowed()?;
                let credentials = credentials.read()?;
                let command = command
                    .env("RESTIC_REPOSITORY", place.location())
                    .env_secret_file(
                        "AWS_SHARED_CREDENTIALS_FILE",
                        Secret::new(credentials.file().as_bytes()),
                    );
                credentials
                    .secrets()
                    .fold(command, |command, secret| command.hide(Secret::new(secret)))
            }
            Self::Rest(place) => {
                place.is_allowed(&self.to_string())?;
                let Some((user, password)) = &place.login else {
                    return Ok(command.env("RESTIC_REPOSITORY", self.to_string()));
                };
                let password = password.read()?;
                let encoded = percent(password.expose().as_bytes());
                let with_login = place.with_login(user, &encoded);
                // In the address, and not in variables of their own: those are only known from 0.17 on.
                command
                    .env_secret_file("RESTIC_REPOSITORY_FILE", Secret::new(with_login.as_bytes()))
                    .hide(Secret::new(password.expose()))
                    .hide(Secret::new(encoded.as_bytes()))
            }
            Self::Sftp(_) => command.env("RESTIC_REPOSITORY", self.to_string()),
        })
    }

    /// The embedded engine at this place; none where it doesn't reach.
    pub(crate) fn embedded(&self, clock: Arc<dyn Clock>) -> Option<Engine> {
        match self {
            Self::Local(path) => Some(Engine::local(path, clock)),
            Self::S3 { place, credentials } => Some(Engine::s3(place.clone(), credentials.clone(), clock)),
            Self::Rest(_) | Self::Sftp(_) => None,
        }
    }
}

impl RestPlace {
    /// That plain HTTP, where it is that, was allowed.
    ///
    /// # Errors
    /// `PlainHttp`.
    pub(super) fn is_allowed(&self, location: &str) -> Result<()> {
        may_be_plain(&self.url, self.allow_http, location)
    }

    fn with_login(&self, user: &str, encoded_password: &str) -> Zeroizing<String> {
        let (scheme, rest) = self.url.split_once("://").unwrap_or(("https", &self.url));
        let user = percent(user.as_bytes());
        Zeroizing::new(format!("rest:{scheme}://{}:{encoded_password}@{rest}", *user))
    }
}

/// As a field of CSV, by which restic divides what comes with `-o` into several options.
fn as_field(option: &OsStr) -> OsString {
    let doubled = option.as_bytes().iter().flat_map(|byte| match byte {
        b'"' => &b"\"\""[..],
        other => std::slice::from_ref(other),
    });
    let quoted = b"\"".iter().chain(doubled).chain(b"\"");
    OsString::from_vec(quoted.copied().collect())
}

/// As an address has it: whatever could end the user's part of it is written by its number.
fn percent(bytes: &[u8]) -> Zeroizing<String> {
    let mut text = Zeroizing::new(String::new());
    for byte in bytes {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => {
                text.push(char::from(*byte));
            }
            _ => text.push_str(&format!("%{byte:02X}")),
        }
    }
    text
}

impl SftpPlace {
    /// The command that restic runs. ssh never asks, never learns a host's key, and notices a connection that died.
    fn ssh(&self) -> Result<OsString> {
        let plain = |c: char| c.is_ascii_alphanumeric() || "_-.@:[]".contains(c);
        let destination = self.destination.as_str();
        if destination.is_empty() || destination.starts_with('-') || !destination.chars().all(plain) {
            return Err(invalid(format!("{destination:?} is no destination for ssh")));
        }
        // With a port it is written as an address, in which they end the path or stand for something else.
        if self.port.is_some()
            && self
                .path
                .as_os_str()
                .as_bytes()
                .iter()
                .any(|byte| b"#?%".contains(byte))
        {
            let shown = self.path.display();
            return Err(invalid(format!(
                "{shown:?} can't be named to restic beside a port: it takes # ? % for more than a name"
            )));
        }
        let known_hosts = for_ssh(&self.known_hosts)?;
        let mut words = vec![
            "ssh".to_owned(),
            "-s".to_owned(),
            // ssh itself wants quotes around a name with a space, restic's splitting takes the outer ones.
            "-o".to_owned(),
            format!("'UserKnownHostsFile=\"{known_hosts}\"'"),
        ];
        for option in [
            "BatchMode=yes",
            "StrictHostKeyChecking=yes",
            "GlobalKnownHostsFile=/dev/null",
            "VerifyHostKeyDNS=no",
            "UpdateHostKeys=no",
            "ControlPath=none",
            "ClearAllForwardings=yes",
            "ConnectTimeout=15",
            "ServerAliveInterval=15",
            "ServerAliveCountMax=4",
        ] {
            words.extend(["-o".to_owned(), option.to_owned()]);
        }
        if let Some(port) = self.port {
            words.extend(["-p".to_owned(), port.to_string()]);
        }
        if let Some(key) = &self.key_file {
            let key = for_ssh(key)?;
            let key = format!("'IdentityFile=\"{key}\"'");
            words.extend(["-o", "IdentitiesOnly=yes", "-o", &key].map(str::to_owned));
        }
        words.extend(["--", destination, "sftp"].map(str::to_owned));
        Ok(words.join(" ").into())
    }
}

/// A path that neither restic's splitting nor ssh takes for more than a path.
fn for_ssh(path: &Path) -> Result<&str> {
    let fine =
        |text: &&str| text.starts_with('/') && !text.chars().any(|c| c.is_control() || "'\"\\%$".contains(c));
    path.to_str().filter(fine).ok_or_else(|| {
        let shown = path.display();
        invalid(format!(
            "{shown:?} can't be named to ssh by restic: use an absolute path without ' \" \\ % $"
        ))
    })
}

fn invalid(detail: String) -> EngineError {
    EngineError::Invalid { detail }
}

/// As restic writes it. Holds no secret.
impl fmt::Display for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Local(path) => path.display().fmt(f),
            Self::S3 { place, .. } => f.write_str(&place.location()),
            Self::Rest(place) => write!(f, "rest:{}", place.url),
            Self::Sftp(place) => match place.port {
                None => write!(f, "sftp:{}:{}", place.destination, place.path.display()),
                Some(port) => write!(f, "sftp://{}:{port}/{}", place.destination, place.path.display()),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use std::ffi::OsStr;

    use super::*;
    use crate::s3::S3Credentials;
    use crate::secret::Password;

    fn all_of(location: &Location) -> (String, Command) {
        let options = location.options().unwrap();
        let options: Vec<&OsStr> = options.iter().map(OsString::as_os_str).collect();
        let told = location.tell(Command::new("restic").args(&options)).unwrap();
        (options.join(OsStr::new("|")).into_string().unwrap(), told)
    }

    fn content(command: &Command, variable: &str) -> String {
        let file = command.variable(variable).unwrap();
        String::from_utf8(command.secret_file(file).unwrap().expose().to_vec()).unwrap()
    }

    #[test]
    fn a_key_to_s3_is_in_a_file_that_only_the_child_has() {
        let mut place = S3Place {
            endpoint: "http://127.0.0.1:9000".into(),
            region: "eu-1".into(),
            bucket: "bucket".into(),
            prefix: "a/b".into(),
            allow_http: true,
        };
        let location = |place: &S3Place| Location::S3 {
            place: place.clone(),
            credentials: CredentialsFrom::Given(S3Credentials::new("AKID", "hun#ter;2`=")),
        };
        let (options, command) = all_of(&location(&place));
        assert_eq!(
            options,
            "-o|s3.bucket-lookup=path|-o|s3.region=eu-1|-o|s3.retries=3"
        );
        let at = command.variable("RESTIC_REPOSITORY").unwrap();
        assert_eq!(at, "s3:http://127.0.0.1:9000/bucket/a/b");
        assert_eq!(
            content(&command, "AWS_SHARED_CREDENTIALS_FILE"),
            "[default]\naws_access_key_id = `AKID`\naws_secret_access_key = `hun#ter;2`=`\n"
        );
        assert!(!format!("{command:?} {command} {:?}", location(&place)).contains("hun#ter"));
        assert_eq!(command.redactor().text("key hun#ter;2`= is"), "key *** is");
        place.allow_http = false;
        let refused = location(&place).tell(Command::new("restic")).map(drop);
        assert!(
            matches!(refused, Err(EngineError::PlainHttp { .. })),
            "{refused:?}"
        );
    }

    #[test]
    fn a_password_for_a_rest_server_is_in_a_file_too() {
        let mut place = RestPlace {
            url: "https://host:8000/a@b/".into(),
            login: None,
            allow_http: false,
        };
        let (options, command) = all_of(&Location::Rest(place.clone()));
        assert_eq!(options, "");
        assert_eq!(
            command.variable("RESTIC_REPOSITORY").unwrap(),
            "rest:https://host:8000/a@b/"
        );
        let password = PasswordFrom::Given(Password::new("hun/ter@2"));
        place.login = Some(("us er".into(), password));
        let location = Location::Rest(place.clone());
        let (options, command) = all_of(&location);
        assert_eq!(options, "");
        assert_eq!(
            content(&command, "RESTIC_REPOSITORY_FILE"),
            "rest:https://us%20er:hun%2Fter%402@host:8000/a@b/"
        );
        assert_eq!(location.to_string(), "rest:https://host:8000/a@b/");
        let shown = format!("{command:?} {command} {location:?}");
        assert!(
            !shown.contains("hun/ter") && !shown.contains("hun%2Fter"),
            "{shown}"
        );
        assert_eq!(
            command.redactor().text("at us:hun%2Fter%402@host"),
            "at us:***@host"
        );
        place.url = "http://host/".into();
        let refused = Location::Rest(place).tell(Command::new("restic")).map(drop);
        assert!(
            matches!(refused, Err(EngineError::PlainHttp { .. })),
            "{refused:?}"
        );
    }

    fn sftp() -> SftpPlace {
        SftpPlace {
            destination: "backup@nas.lan".into(),
            port: None,
            path: "/srv/restic".into(),
            known_hosts: "/etc/reseed/known hosts".into(),
            key_file: None,
        }
    }

    #[test]
    fn ssh_trusts_only_the_pinned_key_of_the_host() {
        let (options, command) = all_of(&Location::Sftp(sftp()));
        assert_eq!(
            options,
            "-o|\"sftp.command=ssh -s -o 'UserKnownHostsFile=\"\"/etc/reseed/known hosts\"\"' -o BatchMode=yes \
             -o StrictHostKeyChecking=yes -o GlobalKnownHostsFile=/dev/null -o VerifyHostKeyDNS=no \
             -o UpdateHostKeys=no -o ControlPath=none -o ClearAllForwardings=yes -o ConnectTimeout=15 \
             -o ServerAliveInterval=15 -o ServerAliveCountMax=4 -- backup@nas.lan sftp\""
        );
        assert_eq!(
            command.variable("RESTIC_REPOSITORY").unwrap(),
            "sftp:backup@nas.lan:/srv/restic"
        );
        let place = SftpPlace {
            port: Some(2222),
            key_file: Some("/root/key".into()),
            ..sftp()
        };
        let (options, command) = all_of(&Location::Sftp(place));
        let end =
            "-p 2222 -o IdentitiesOnly=yes -o 'IdentityFile=\"\"/root/key\"\"' -- backup@nas.lan sftp\"";
        assert!(options.ends_with(end), "{options}");
        assert_eq!(
            command.variable("RESTIC_REPOSITORY").unwrap(),
            "sftp://backup@nas.lan:2222//srv/restic"
        );
    }

    #[test]
    fn what_could_be_more_than_a_word_is_refused() {
        for bad in ["", "-oProxyCommand=x", "a b", "a;b", "a'b"] {
            let place = SftpPlace {
                destination: bad.into(),
                ..sftp()
            };
            assert!(Location::Sftp(place).options().is_err(), "{bad:?}");
        }
        for (bad, port) in [("/srv/a#b", 2222), ("/srv/a?b", 2222), ("/srv/a%20b", 2222)] {
            let place = |port| SftpPlace {
                path: bad.into(),
                port,
                ..sftp()
            };
            assert!(Location::Sftp(place(Some(port))).options().is_err(), "{bad:?}");
            assert!(Location::Sftp(place(None)).options().is_ok(), "{bad:?}");
        }
        for bad in ["relative", "/a'b", "/a\"b", "/a\\b", "/a%h", "/${HOME}", "/a\nb"] {
            let place = SftpPlace {
                known_hosts: bad.into(),
                ..sftp()
            };
            assert!(Location::Sftp(place).options().is_err(), "{bad:?}");
            let place = SftpPlace {
                key_file: Some(bad.into()),
                ..sftp()
            };
            assert!(Location::Sftp(place).options().is_err(), "{bad:?}");
        }
    }
}
