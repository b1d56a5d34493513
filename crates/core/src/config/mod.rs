//! The configuration: read, checked as a whole, and handed out complete.
//!
//! TOML for people and JSON for Nix give the same [`Config`]. Everything that is wrong is reported at once, each error
//! with its place, the line and what was probably meant. Nothing here looks at the world: whether a directory exists or
//! a unit is known is for others to find out; only [`load`] reads, and only the one file.
//!
//! The way: `text` and `read_toml` or `read_json` give a tree of `node`s that know their places; `decode`
//! reads it into the `file`'s shape; `resolve` fills in defaults, looks up `places` and compares directories
//! (`overlap`) and datasets (`lineages`). See docs/configuration.md for what can be configured.

use std::io::Read as _;
use std::path::Path;

mod bandwidth;
mod claims;
mod datasets;
mod declared;
mod decode;
mod diagnostic;
mod file;
mod keep;
mod lineages;
mod location;
mod model;
mod node;
mod offsite;
mod origin;
mod overlap;
mod place_file;
mod places;
mod policy;
mod price;
mod pulls;
mod read_json;
mod read_toml;
mod redact;
mod report;
mod resolve;
mod sender;
mod show;
mod text;
mod units;
mod values;

pub use bandwidth::Bandwidth;
pub use declared::{Declared, Snapshots};
pub use diagnostic::{ConfigErrors, Diagnostic, Severity};
pub use location::{RepoLocation, S3Location, SftpLocation};
pub use model::{
    Access, Config, DEFAULT_STATE_DIR, Keep, Offsite, Place, Policy, Prefer, ReplicaNames, RestAccess,
    Retention, S3Access, Sender, Service, SftpAccess, Ssh, Verify, WhenExhausted,
};
pub use price::{Amount, Listed, Price};
pub use pulls::{Pull, marks};
pub use report::Findings;
pub use show::to_toml;
pub use units::{format_duration, parse_duration};

/// The largest file that is read. Ten thousand services with every key spelled out are half as much.
pub const MAX_BYTES: u64 = 16 * 1024 * 1024;

/// How a configuration is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// For people.
    Toml,
    /// For Nix and other programs.
    Json,
}

impl Format {
    /// By a file's name: JSON when it ends in `.json`, else TOML.
    pub fn of(path: &Path) -> Self {
        match path.extension() {
            Some(extension) if extension.eq_ignore_ascii_case("json") => Self::Json,
            _ => Self::Toml,
        }
    }
}

/// A configuration and what is probably not meant in it.
#[derive(Debug, Clone)]
pub struct Loaded {
    /// The configuration.
    pub config: Config,
    /// Warnings, in the order of the file.
    pub warnings: Vec<Diagnostic>,
}

/// Reads and checks a configuration file.
///
/// # Errors
/// All that is wrong with it, or that it can't be read.
pub fn load(path: &Path) -> Result<Loaded, ConfigErrors> {
    let name = path.display().to_string();
    let bytes =
        read(path).map_err(|(message, hint)| ConfigErrors::one(Diagnostic::of_file(&name, message, hint)))?;
    parse_bytes(&bytes, Format::of(path), &name)
}

fn read(path: &Path) -> Result<Vec<u8>, (String, &'static str)> {
    use std::io::ErrorKind;
    let failed = |error: std::io::Error| match error.kind() {
        ErrorKind::NotFound => (
            "the configuration file does not exist".to_owned(),
            "make one with `reseed init`, or name another with `--config`",
        ),
        ErrorKind::PermissionDenied => (
            "the configuration file can't be read: permission denied".to_owned(),
            "run as root, or as a user who may read it",
        ),
        _ => (
            format!("the configuration file can't be read: {error}"),
            "name another with `--config`",
        ),
    };
    let file = std::fs::File::open(path).map_err(failed)?;
    if file.metadata().map_err(failed)?.is_dir() {
        return Err((
            "the configuration file is a directory".to_owned(),
            "name the file in it, as in `--config /etc/reseed/reseed.toml`",
        ));
    }
    let mut bytes = Vec::new();
    file.take(MAX_BYTES + 1).read_to_end(&mut bytes).map_err(failed)?;
    Ok(bytes)
}

/// Checks a configuration that is at hand as bytes, from wherever it came. `file` is what messages call it.
///
/// # Errors
/// All that is wrong with it.
pub fn parse_bytes(bytes: &[u8], format: Format, file: &str) -> Result<Loaded, ConfigErrors> {
    let refuse = |message: &str, hint: &str| Err(ConfigErrors::one(Diagnostic::of_file(file, message, hint)));
    if bytes.len() as u64 > MAX_BYTES {
        return refuse(
            "the configuration is larger than 16 MiB",
            "is this the right file?",
        );
    }
    if bytes.starts_with(&[0xff, 0xfe]) || bytes.starts_with(&[0xfe, 0xff]) {
        return refuse("the configuration is UTF-16", "save it as UTF-8");
    }
    match std::str::from_utf8(bytes) {
        Ok(text) => parse(text, format, file),
        Err(error) => {
            let good = String::from_utf8_lossy(&bytes[..error.valid_up_to()]);
            let text = text::Text::new(file, &good);
            let mut sink = diagnostic::Sink::new(&text);
            let extra = diagnostic::Extra::hint("save it as UTF-8; is it a text file at all?");
            sink.error(
                "",
                &(good.len()..good.len()),
                "the configuration is not UTF-8 text from here on",
                extra,
            );
            finish(sink, None)
        }
    }
}

/// Checks a configuration that is at hand as text. `file` is what messages call it.
///
/// # Errors
/// All that is wrong with it.
pub fn parse(text: &str, format: Format, file: &str) -> Result<Loaded, ConfigErrors> {
    let machine = rustix::system::uname();
    parse_on(text, format, file, machine.nodename().to_str().ok())
}

/// Like [`parse`], on a machine of the given name.
///
/// # Errors
/// All that is wrong with it.
pub fn parse_on(
    text: &str,
    format: Format,
    file: &str,
    machine: Option<&str>,
) -> Result<Loaded, ConfigErrors> {
    if text.len() as u64 > MAX_BYTES {
        let error = Diagnostic::of_file(
            file,
            "the configuration is larger than 16 MiB",
            "is this the right file?",
        );
        return Err(ConfigErrors::one(error));
    }
    // Some editors put a byte order mark before UTF-8. It means nothing.
    let text = text::Text::new(file, text.strip_prefix('\u{feff}').unwrap_or(text));
    let mut sink = diagnostic::Sink::new(&text);
    let root = match format {
        Format::Toml => read_toml::read(&mut sink),
        Format::Json => read_json::read(&mut sink),
    };
    let config = root.and_then(|root| {
        let at = decode::At::root(&root.span);
        let file = <file::ConfigFile as decode::Decode>::decode(&root, &at, &mut sink)?;
        let mut config = resolve::resolve(&file, machine, &mut sink)?;
        config.origins = origin::Origins::of(&root, &text);
        Some(config)
    });
    finish(sink, config)
}

fn finish(sink: diagnostic::Sink<'_>, config: Option<Config>) -> Result<Loaded, ConfigErrors> {
    let file = sink.text.file;
    let warnings = sink.finish()?;
    match config {
        Some(config) => Ok(Loaded { config, warnings }),
        // Whoever gives up has said why before.
        None => Err(ConfigErrors::one(Diagnostic::of_file(
            file,
            "the configuration is not usable, and no error says why",
            "this is a mistake in reseed; please report it with the file",
        ))),
    }
}

/// The JSON Schema of the configuration, for editors and for those who generate it.
pub fn schema() -> serde_json::Value {
    let schema = schemars::generate::SchemaSettings::draft2020_12().into_generator();
    let mut schema = schema.into_root_schema_for::<file::ConfigFile>();
    schema.insert("title".to_owned(), "reseed".into());
    schema.to_value()
}
