//! What is to be run, as a value. It promises that no shell is involved, that a secret is never an
//! argument, and that printing it gives a line one can paste into a terminal, with secrets as
//! `***`. It does not run anything.

use std::ffi::{OsStr, OsString};
use std::fmt;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::heard::Listener;
use super::quote::push_quoted;
use super::secret::{REDACTED, Redactor, Secret};

/// The first descriptor a secret file gets in the child; 0 to 2 are the standard ones.
const FIRST_SECRET_FD: usize = 3;

/// Variables taken over from our own environment; everything else is left out, so that a unit and
/// a terminal run the same command. The certificate and locale variables are what a NixOS service
/// needs to reach an S3 store at all.
pub const PASSED_THROUGH: &[&str] = &[
    "PATH",
    "HOME",
    "USER",
    "LOGNAME",
    "TMPDIR",
    "TZ",
    "TZDIR",
    "SSL_CERT_FILE",
    "SSL_CERT_DIR",
    "NIX_SSL_CERT_FILE",
    "SSH_AUTH_SOCK",
];

/// What the child reads on its standard input.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Stdin {
    /// Nothing: `/dev/null`.
    #[default]
    Null,
    /// These bytes, then end of file.
    Bytes(Vec<u8>),
    /// What the caller writes while it runs; only for [`Runner::stream`](super::Runner::stream).
    Piped,
}

/// How much of one output is kept; the rest is read to its end, counted and dropped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Keep {
    /// Bytes kept from the beginning.
    pub head: usize,
    /// Bytes kept from the end.
    pub tail: usize,
}

impl Keep {
    /// The first and the last `kib` KiB.
    pub const fn ends(kib: usize) -> Self {
        Self {
            head: kib * 1024,
            tail: kib * 1024,
        }
    }

    /// Everything up to `bytes`. Beyond that
    /// [`Captured::whole`](super::Captured::whole) answers that it is not whole.
    pub const fn up_to(bytes: usize) -> Self {
        Self { head: bytes, tail: 0 }
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Value {
    Plain(OsString),
    Secret(Secret),
    /// The path of the secret file with this index.
    SecretFile(usize),
}

/// A program with its arguments, environment and limits. Built from an argument vector only.
#[derive(Clone, PartialEq, Eq)]
pub struct Command {
    program: OsString,
    args: Vec<OsString>,
    env: Vec<(OsString, Value)>,
    files: Vec<Secret>,
    hidden: Vec<Secret>,
    stdin: Stdin,
    cwd: Option<PathBuf>,
    time_limit: Option<Duration>,
    grace: Option<Duration>,
    keep_stdout: Keep,
    keep_stderr: Keep,
    install_hint: Option<String>,
    listener: Option<Listener>,
}

impl Command {
    /// A command without arguments, with nothing on its input and no time limit. Of its standard
    /// output 1 MiB from each end is kept, of its standard error 32 KiB.
    pub fn new(program: impl Into<OsString>) -> Self {
        Self {
            program: program.into(),
            args: Vec::new(),
            env: Vec::new(),
            files: Vec::new(),
            hidden: Vec::new(),
            stdin: Stdin::Null,
            cwd: None,
            time_limit: None,
            grace: None,
            keep_stdout: Keep::ends(1024),
            keep_stderr: Keep::ends(32),
            install_hint: None,
            listener: None,
        }
    }

    /// Adds one argument.
    #[must_use]
    pub fn arg(mut self, arg: impl Into<OsString>) -> Self {
        self.args.push(arg.into());
        self
    }

    /// Adds several arguments.
    #[must_use]
    pub fn args<I>(mut self, args: I) -> Self
    where
        I: IntoIterator,
        I::Item: Into<OsString>,
    {
        self.args.extend(args.into_iter().map(Into::into));
        self
    }

    /// Sets a variable in the child's environment.
    #[must_use]
    pub fn env(mut self, key: impl Into<OsString>, value: impl Into<OsString>) -> Self {
        self.set(key.into(), Value::Plain(value.into()));
        self
    }

    /// Sets a variable to a secret.
    #[must_use]
    pub fn env_secret(mut self, key: impl Into<OsString>, secret: Secret) -> Self {
        self.set(key.into(), Value::Secret(secret));
        self
    }

    /// Sets a variable to the path of a file that holds the secret. The file is a sealed memfd
    /// which only this child inherits: the path is `/proc/self/fd/N`, and nothing is written to a
    /// disk. For `RESTIC_PASSWORD_FILE`, `AWS_SHARED_CREDENTIALS_FILE`.
    #[must_use]
    pub fn env_secret_file(mut self, key: impl Into<OsString>, secret: Secret) -> Self {
        let index = self.files.len();
        self.files.push(secret);
        self.set(key.into(), Value::SecretFile(index));
        self
    }

    /// Adds an argument that is the path of such a file.
    #[must_use]
    pub fn arg_secret_file(mut self, secret: Secret) -> Self {
        self.args.push(secret_path(self.files.len()));
        self.files.push(secret);
        self
    }

    /// Registers a secret that is not passed by us (it stands in a file the tool reads) so that it
    /// is removed from the tool's words as well.
    #[must_use]
    pub fn hide(mut self, secret: Secret) -> Self {
        self.hidden.push(secret);
        self
    }

    /// Sets what the child reads.
    #[must_use]
    pub fn stdin(mut self, stdin: Stdin) -> Self {
        self.stdin = stdin;
        self
    }

    /// Sets the working directory.
    #[must_use]
    pub fn cwd(mut self, directory: impl Into<PathBuf>) -> Self {
        self.cwd = Some(directory.into());
        self
    }

    /// Sets how long it may run. In a pipe the shortest limit counts for the whole.
    #[must_use]
    pub fn time_limit(mut self, limit: Duration) -> Self {
        self.time_limit = Some(limit);
        self
    }

    /// Sets how long it may take to clean up after SIGTERM before SIGKILL, where the runner's
    /// default does not fit. In a pipe the longest counts.
    #[must_use]
    pub fn grace(mut self, grace: Duration) -> Self {
        self.grace = Some(grace);
        self
    }

    /// Sets how much of the standard output is kept.
    #[must_use]
    pub fn keep_stdout(mut self, keep: Keep) -> Self {
        self.keep_stdout = keep;
        self
    }

    /// Sets how much of the standard error is kept.
    #[must_use]
    pub fn keep_stderr(mut self, keep: Keep) -> Self {
        self.keep_stderr = keep;
        self
    }

    /// Has the lines of the standard error heard while it runs.
    #[must_use]
    pub fn heard_by(mut self, listener: Listener) -> Self {
        self.listener = Some(listener);
        self
    }

    /// Sets what to tell an operator when the program is not installed.
    #[must_use]
    pub fn install_hint(mut self, hint: impl Into<String>) -> Self {
        self.install_hint = Some(hint.into());
        self
    }

    /// The program as given: a name to be found in `PATH`, or a path.
    pub fn program(&self) -> &OsStr {
        &self.program
    }

    /// The arguments after the program.
    pub fn arguments(&self) -> &[OsString] {
        &self.args
    }

    /// The variable's value as the child will see it, if this command sets it.
    pub fn variable(&self, key: impl AsRef<OsStr>) -> Option<OsString> {
        self.env
            .iter()
            .find(|(name, _)| name == key.as_ref())
            .map(|(_, value)| value.resolve())
    }

    /// What the child reads.
    pub fn input(&self) -> &Stdin {
        &self.stdin
    }

    /// The working directory, if one was set.
    pub fn directory(&self) -> Option<&Path> {
        self.cwd.as_deref()
    }

    /// The time limit, if one was set.
    pub fn limit(&self) -> Option<Duration> {
        self.time_limit
    }

    /// The secret behind a path `/proc/self/fd/N` that this command passes; for fakes.
    pub fn secret_file(&self, path: impl AsRef<OsStr>) -> Option<&Secret> {
        (0..self.files.len())
            .find(|i| secret_path(*i) == path.as_ref())
            .map(|i| &self.files[i])
    }

    /// A redactor for every secret of this command.
    pub fn redactor(&self) -> Redactor {
        let passed = self.env.iter().filter_map(|(_, value)| match value {
            Value::Secret(secret) => Some(secret),
            Value::Plain(_) | Value::SecretFile(_) => None,
        });
        Redactor::new(passed.chain(&self.files).chain(&self.hidden))
    }

    pub(super) fn variables(&self) -> impl Iterator<Item = (&OsStr, OsString)> {
        self.env
            .iter()
            .map(|(key, value)| (key.as_os_str(), value.resolve()))
    }

    /// Descriptor number in the child and content of each secret file.
    pub(super) fn secret_files(&self) -> impl Iterator<Item = (usize, &Secret)> {
        self.files
            .iter()
            .enumerate()
            .map(|(index, secret)| (FIRST_SECRET_FD + index, secret))
    }

    pub(super) fn own_grace(&self) -> Option<Duration> {
        self.grace
    }

    pub(super) fn kept(&self) -> (Keep, Keep) {
        (self.keep_stdout, self.keep_stderr)
    }

    /// Who hears its standard error; for fakes.
    pub fn listener(&self) -> Option<&Listener> {
        self.listener.as_ref()
    }

    pub(super) fn hint(&self) -> Option<&str> {
        self.install_hint.as_deref()
    }

    fn set(&mut self, key: OsString, value: Value) {
        match self.env.iter_mut().find(|(name, _)| *name == key) {
            Some((_, old)) => *old = value,
            None => self.env.push((key, value)),
        }
    }
}

impl Value {
    fn resolve(&self) -> OsString {
        match self {
            Self::Plain(value) => value.clone(),
            Self::Secret(secret) => OsStr::from_bytes(secret.expose()).to_owned(),
            Self::SecretFile(index) => secret_path(*index),
        }
    }
}

fn secret_path(index: usize) -> OsString {
    OsString::from(format!("/proc/self/fd/{}", FIRST_SECRET_FD + index))
}

/// A line to paste into a terminal: quoted where a shell needs it, secrets as `***`.
impl fmt::Display for Command {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut line = Vec::new();
        for (key, value) in &self.env {
            line.extend_from_slice(key.as_bytes());
            line.push(b'=');
            match value {
                Value::Plain(value) => push_quoted(&mut line, value.as_bytes(), false),
                Value::Secret(_) | Value::SecretFile(_) => line.extend_from_slice(REDACTED.as_bytes()),
            }
            line.push(b' ');
        }
        push_quoted(&mut line, self.program.as_bytes(), true);
        for arg in &self.args {
            line.push(b' ');
            if self.secret_file(arg).is_some() {
                line.extend_from_slice(REDACTED.as_bytes());
            } else {
                push_quoted(&mut line, arg.as_bytes(), false);
            }
        }
        let line = String::from_utf8_lossy(&self.redactor().bytes(&line)).into_owned();
        match &self.cwd {
            None => f.write_str(&line),
            Some(cwd) => {
                let mut quoted = Vec::new();
                push_quoted(&mut quoted, cwd.as_os_str().as_bytes(), false);
                write!(f, "(cd {} && {line})", String::from_utf8_lossy(&quoted))
            }
        }
    }
}

impl fmt::Debug for Command {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Command(`{self}`)")
    }
}

/// The stages of a pipe as one line, joined by `|`.
pub(super) fn display_pipe(stages: &[Command]) -> String {
    stages
        .iter()
        .map(ToString::to_string)
        .collect::<Vec<_>>()
        .join(" | ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prints_a_line_to_paste() {
        let command = Command::new("zfs")
            .args(["list", "-Hp", "-o", "name,guid", "tank/a b"])
            .env("X", "it's");
        assert_eq!(
            command.to_string(),
            r"X='it'\''s' zfs list -Hp -o name,guid 'tank/a b'"
        );
        assert_eq!(Command::new("ls").cwd("/a b").to_string(), "(cd '/a b' && ls)");
    }

    #[test]
    fn prints_secrets_as_stars() {
        let command = Command::new("restic")
            .env_secret("RESTIC_PASSWORD", Secret::new("hunter2"))
            .env_secret_file("AWS_SHARED_CREDENTIALS_FILE", Secret::new("key=0123456789"))
            .arg("--password-file")
            .arg_secret_file(Secret::new("other"))
            .arg("-o=hunter2");
        let shown = format!("{command}\n{command:?}");
        assert!(
            !shown.contains("hunter2") && !shown.contains("0123456789"),
            "{shown}"
        );
        assert_eq!(
            command.to_string(),
            "RESTIC_PASSWORD=*** AWS_SHARED_CREDENTIALS_FILE=*** restic --password-file *** -o=***"
        );
    }

    #[test]
    fn secret_files_get_descriptors_in_order() {
        let command = Command::new("x")
            .env_secret_file("A", Secret::new("a"))
            .arg_secret_file(Secret::new("b"));
        assert_eq!(command.variable("A").unwrap(), "/proc/self/fd/3");
        assert_eq!(command.arguments(), ["/proc/self/fd/4"]);
        assert_eq!(command.secret_file("/proc/self/fd/4"), Some(&Secret::new("b")));
    }

    #[test]
    fn a_variable_set_twice_has_the_last_value() {
        let command = Command::new("x").env("A", "1").env("A", "2");
        assert_eq!(command.variable("A").unwrap(), "2");
        assert_eq!(command.to_string(), "A=2 x");
    }
}
