//! The command line: what can be asked, in the words of the field. Decides nothing.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

/// Where the configuration is unless `--config` or `RESEED_CONFIG` names another.
pub(crate) const DEFAULT_CONFIG: &str = "/etc/reseed/reseed.toml";

const EXIT_CODES: &str = "\
Exit codes:
  0    all is well: done, nothing to do, data present, first start, or started empty as the policy says
  1    something failed
  2    the command line or the configuration is wrong
  3    partial: something was done, something is missing
  4    blocked or held: the service must not start
  5    another run holds the service's lock
  130  interrupted; the next run goes on";

/// Keeps the data of a homelab recoverable, puts it back when it is missing, and proves that it can.
#[derive(Debug, Parser)]
#[command(name = "reseed", version, after_help = EXIT_CODES, disable_help_subcommand = true, propagate_version = true)]
pub(crate) struct Cli {
    /// The configuration, TOML or JSON [default: $RESEED_CONFIG or /etc/reseed/reseed.toml]
    #[arg(long, short, global = true, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    /// Print one JSON document instead of text
    #[arg(long, global = true)]
    pub(crate) json: bool,
    /// No progress and no events, only the result
    #[arg(long, short, global = true)]
    pub(crate) quiet: bool,
    /// When to use colour
    #[arg(long, global = true, value_enum, default_value_t = Colour::Auto, value_name = "WHEN")]
    pub(crate) color: Colour,
    #[command(subcommand)]
    pub(crate) command: Cmd,
}

/// When to use colour.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Colour {
    /// On a terminal, unless NO_COLOR is set
    Auto,
    /// Always
    Always,
    /// Never
    Never,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Cmd {
    /// Write a first configuration, or make the stores and repositories that one declares
    Init(InitArgs),
    /// Check, explain or show the configuration
    #[command(subcommand)]
    Config(ConfigCmd),
    /// Show each service's state, and from where and how far it would come back if it vanished now
    Status(StatusArgs),
    /// Take a snapshot
    Snapshot(SnapshotArgs),
    /// Send snapshots to the replicas
    Replicate(ReplicateArgs),
    /// Fetch snapshots from other machines
    Pull(PullArgs),
    /// Back up to the off-site repositories
    Backup(Change),
    /// Put missing data back before a service starts; data that is there is never touched
    Preseed(PreseedArgs),
    /// Restore a service, or a part of it, of a chosen moment and from a chosen source
    Restore(RestoreArgs),
    /// Go back to a snapshot: says first what that would discard, and keeps it under another name
    Rollback(RollbackArgs),
    /// Prove that recovery points are whole, by restoring them into a scratch directory
    Verify(VerifyArgs),
    /// Remove snapshots that the retention policy no longer wants
    Prune(Change),
    /// Off-site repositories: which points stay, what the bucket may delete
    #[command(subcommand)]
    Offsite(OffsiteCmd),
    /// Say that what is there is the service's data; ends its being unseeded
    Adopt(Change),
    /// Compare the declared ZFS datasets with the pool, and show what `apply` would do
    Plan,
    /// Create declared ZFS datasets that are missing and set properties that drifted; destroys nothing
    Apply(ApplyArgs),
    /// Read everything on ZFS pools and compare it with its checksums
    Scrub(ScrubArgs),
    /// Take over another tool's configuration, or a pool's
    #[command(subcommand)]
    Import(ImportCmd),
    /// Have the declared datasets' snapshots taken and pruned by sanoid
    #[command(subcommand)]
    Sanoid(SanoidCmd),
    /// Check what would go wrong unseen: a bucket's rules that would eat a repository, or what a user may do in a replication
    Doctor(DoctorArgs),
    /// Show what was done
    History(HistoryArgs),
    /// Make a lab of real files, break it in five ways and watch it heal
    Demo(DemoArgs),
    /// Print a completion script for a shell
    Completions {
        /// Which shell
        shell: clap_complete::Shell,
    },
    /// Print the manual page, or write one page per command into a directory
    Man {
        /// Where to write the pages
        dir: Option<PathBuf>,
    },
    /// Restore in a process of its own; started by reseed itself
    #[command(name = "__restore-worker", hide = true)]
    RestoreWorker,
}

#[derive(Debug, Args)]
pub(crate) struct Services {
    /// The services
    #[arg(
        required_unless_present = "all",
        conflicts_with = "all",
        value_name = "SERVICE"
    )]
    pub(crate) services: Vec<String>,
    /// Every service
    #[arg(long)]
    pub(crate) all: bool,
}

#[derive(Debug, Args)]
pub(crate) struct ReplicateArgs {
    #[command(flatten)]
    pub(crate) change: Change,

    /// At once. It always does; for those who want to say so beside a timer
    #[arg(long)]
    pub(crate) now: bool,
}

#[derive(Debug, Args)]
pub(crate) struct PullArgs {
    /// What to fetch, by its name in the configuration's `pulls`
    #[arg(required_unless_present = "all", conflicts_with = "all", value_name = "PULL")]
    pub(crate) names: Vec<String>,
    /// All of them
    #[arg(long)]
    pub(crate) all: bool,
    #[command(flatten)]
    pub(crate) how: How,
}

#[derive(Debug, Args)]
pub(crate) struct Change {
    #[command(flatten)]
    pub(crate) which: Services,
    #[command(flatten)]
    pub(crate) how: How,
}

#[derive(Debug, Args)]
pub(crate) struct How {
    /// Say what would be done, and do nothing
    #[arg(long, short = 'n')]
    pub(crate) dry_run: bool,
    /// How long to wait for another run on the same service, such as `30s` or `5m`
    #[arg(long, value_name = "TIME", default_value = "0s", value_parser = duration)]
    pub(crate) wait: std::time::Duration,
}

#[derive(Debug, Args)]
pub(crate) struct DoctorArgs {
    /// Check what this user may do in a replication, instead of the off-site repositories
    #[arg(long, value_name = "NAME", requires = "datasets")]
    pub(crate) user: Option<String>,
    /// What it sends: this dataset of this host, and those below it
    #[arg(long, value_name = "DATASET", group = "datasets", requires = "user")]
    pub(crate) send: Vec<String>,
    /// Where it receives: below this dataset of this host
    #[arg(long, value_name = "DATASET", group = "datasets", requires = "user")]
    pub(crate) receive: Vec<String>,
    /// Try as that user, on scratch datasets, that a forced receive is refused; as root
    #[arg(long = "try", requires = "receive")]
    pub(crate) trial: bool,
}

#[derive(Debug, Subcommand)]
pub(crate) enum OffsiteCmd {
    /// Remove points that the repository's `keep` no longer wants, and the data that only they needed
    Prune {
        /// The repositories [default: all that have `keep`]
        #[arg(value_name = "REPOSITORY")]
        repositories: Vec<String>,
        #[command(flatten)]
        how: How,
    },
    /// Tell how large a repository is, how it grows, and what that costs
    Cost {
        /// The repositories [default: all]
        #[arg(value_name = "REPOSITORY")]
        repositories: Vec<String>,
    },
    /// Print lifecycle rules for the repository's bucket that take nothing from it
    Lifecycle {
        /// The repository
        repository: String,
        /// Whose rules [default: B2's own for B2, else S3's]
        #[arg(long = "for", value_name = "STORE", value_enum)]
        store: Option<Dialect>,
        /// After so many days what was deleted or replaced is gone for good
        #[arg(long, value_name = "DAYS", default_value_t = 30, value_parser = clap::value_parser!(u32).range(1..=3650))]
        days: u32,
    },
}

/// Whose lifecycle rules.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Dialect {
    /// S3's
    S3,
    /// B2's own
    B2,
}

#[derive(Debug, Args)]
pub(crate) struct InitArgs {
    /// Say what would be made, and make nothing
    #[arg(long, short = 'n')]
    pub(crate) dry_run: bool,
    /// Make this store or repository although one was there before and is missing, or take the one that stands there now
    #[arg(long, value_name = "NAME")]
    pub(crate) anew: Vec<String>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum ConfigCmd {
    /// Check it, and say everything that is wrong at once
    Check,
    /// Print its JSON Schema
    Schema,
    /// Print it as it is understood, with defaults filled in
    Show,
}

#[derive(Debug, Args)]
pub(crate) struct StatusArgs {
    /// Only these services
    #[arg(value_name = "SERVICE")]
    pub(crate) services: Vec<String>,
}

#[derive(Debug, Args)]
pub(crate) struct SnapshotArgs {
    #[command(flatten)]
    pub(crate) which: Services,
    /// Which retention rule it is for; without one no rule ever removes it
    #[arg(long, value_name = "KIND", conflicts_with = "due", value_parser = kind)]
    pub(crate) kind: Option<reseed_core::retention::sanoid::Kind>,
    /// Of every kind that the service's retention wants and that is due
    #[arg(long)]
    pub(crate) due: bool,
    #[command(flatten)]
    pub(crate) how: How,
}

#[derive(Debug, Args)]
pub(crate) struct PreseedArgs {
    #[command(flatten)]
    pub(crate) which: Services,
    /// Say what would be done, and do nothing
    #[arg(long, short = 'n')]
    pub(crate) dry_run: bool,
    /// How long to wait for another run on the same service
    #[arg(long, value_name = "TIME", default_value = "60s", value_parser = duration)]
    pub(crate) wait: std::time::Duration,
    /// For the demo and tests: end the process, as a power cut would, once so many bytes are restored
    #[arg(long, hide = true, value_name = "BYTES")]
    pub(crate) crash_after: Option<u64>,
}

#[derive(Debug, Args)]
pub(crate) struct RestoreArgs {
    /// The service
    pub(crate) service: String,
    /// Only from this source
    #[arg(long, value_name = "SOURCE")]
    pub(crate) from: Option<String>,
    /// From what another host backed up or replicated
    #[arg(long, value_name = "HOST")]
    pub(crate) from_host: Option<String>,
    /// Of this moment: a time (`2026-11-22 14:00`, `2h ago` is `-2h`), a point's id, or a snapshot's name
    #[arg(long, value_name = "TIME|POINT", allow_hyphen_values = true)]
    pub(crate) at: Option<String>,
    /// Only this file or directory, relative to the service's root; needs --to
    #[arg(long, value_name = "PATH", requires = "to")]
    pub(crate) path: Option<PathBuf>,
    /// Into this directory, which must be empty or not there yet
    #[arg(long, value_name = "DIR", conflicts_with = "set_aside")]
    pub(crate) to: Option<PathBuf>,
    /// Go on in a directory that an earlier restore of the service left unfinished: what fits is kept, whatever else is in it is removed
    #[arg(long, requires = "to")]
    pub(crate) resume: bool,
    /// In place although data is there: keep that under another name. Stop the service first
    #[arg(long)]
    pub(crate) set_aside: bool,
    #[command(flatten)]
    pub(crate) how: How,
}

#[derive(Debug, Args)]
pub(crate) struct RollbackArgs {
    /// The service. Stop it first
    pub(crate) service: String,
    /// The snapshot, by its whole name or its guid; `reseed restore` takes a moment
    pub(crate) snapshot: String,
    /// Don't ask; needed where nobody can answer
    #[arg(long, short = 'y')]
    pub(crate) yes: bool,
    #[command(flatten)]
    pub(crate) how: How,
}

#[derive(Debug, Subcommand)]
pub(crate) enum VerifyCmd {
    /// Look for damage in off-site repositories, and say which services it costs a recovery point
    Offsite(VerifyOffsiteArgs),
}

#[derive(Debug, Args)]
pub(crate) struct VerifyOffsiteArgs {
    /// The repositories [default: every one]
    #[arg(value_name = "REPOSITORY")]
    pub(crate) repositories: Vec<String>,
    /// How much to read: `structure` (none of the data), `rotating` (one part each time, the next one), `everything`, or a part such as
    /// `3/30`
    #[arg(long, value_name = "DEPTH", default_value = "rotating")]
    pub(crate) depth: String,
    /// In how many checks a rotation has read everything; run daily, that is days. Of a repository that no service backs up to the day decides
    /// which part it is
    #[arg(long, value_name = "N", default_value_t = 30, value_parser = clap::value_parser!(u32).range(1..=256))]
    pub(crate) parts: u32,
    /// Say what would be read, and read nothing
    #[arg(long, short = 'n')]
    pub(crate) dry_run: bool,
}

#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true)]
pub(crate) struct VerifyArgs {
    #[command(subcommand)]
    pub(crate) what: Option<VerifyCmd>,
    /// The services
    #[arg(value_name = "SERVICE")]
    pub(crate) services: Vec<String>,
    /// Every service
    #[arg(long, conflicts_with = "services")]
    pub(crate) all: bool,
    /// Only from this source
    #[arg(long, value_name = "SOURCE")]
    pub(crate) from: Option<String>,
    /// Where to restore to; it needs room for the largest service [default: `scratch` in the state directory]
    #[arg(long, value_name = "DIR")]
    pub(crate) scratch: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) how: How,
}

#[derive(Debug, Args)]
pub(crate) struct HistoryArgs {
    /// Only of this service
    pub(crate) service: Option<String>,
    /// At most so many runs
    #[arg(long, short = 'l', default_value_t = 30, value_name = "N")]
    pub(crate) limit: u32,
    /// Only of one kind, such as `preseed` or `backup`
    #[arg(long, value_name = "KIND")]
    pub(crate) kind: Option<String>,
}

#[derive(Debug, Args)]
pub(crate) struct ScrubArgs {
    /// The pools
    #[arg(required = true, value_name = "POOL")]
    pub(crate) pools: Vec<String>,
    /// Wait for its end, tell how far it is, and fail when it finds damage
    #[arg(long)]
    pub(crate) wait: bool,
    /// Say what would be done, and do nothing
    #[arg(long, short = 'n')]
    pub(crate) dry_run: bool,
}

#[derive(Debug, Args)]
pub(crate) struct ApplyArgs {
    /// Say what would be done, and do nothing
    #[arg(long, short = 'n')]
    pub(crate) dry_run: bool,
}

#[derive(Debug, Subcommand)]
pub(crate) enum ImportCmd {
    /// Print a configuration for what a sanoid.conf manages
    Sanoid {
        /// The sanoid.conf
        file: PathBuf,
        /// A file with one dataset a line, where `zfs list` can't be asked
        #[arg(long, value_name = "FILE")]
        datasets: Option<PathBuf>,
    },
    /// Print a configuration for the filesystems that are on the pools, with the properties that were set
    Pool {
        /// Only of these pools
        #[arg(value_name = "POOL")]
        pools: Vec<String>,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum SanoidCmd {
    /// Print the sanoid.conf that sanoid is given
    Conf {
        /// The one it is given for pruning
        #[arg(long)]
        prune: bool,
    },
    /// Take the snapshots that are due
    Take {
        /// Say what would be taken, and take nothing
        #[arg(long, short = 'n')]
        dry_run: bool,
    },
    /// Prune the snapshots that are no longer wanted
    Prune {
        /// Say what would go, and remove nothing
        #[arg(long, short = 'n')]
        dry_run: bool,
    },
}

#[derive(Debug, Args)]
pub(crate) struct DemoArgs {
    /// Where to make the lab [default: a new temporary directory]
    #[arg(long, value_name = "DIR")]
    pub(crate) dir: Option<PathBuf>,
    /// On real ZFS: two pools on files in the lab; needs root and ZFS
    #[arg(long)]
    pub(crate) zfs: bool,
    /// On real ZFS in a virtual machine; in a checkout of reseed, which sets the machine up
    #[arg(long, conflicts_with_all = ["zfs", "dir"])]
    pub(crate) vm: bool,
    /// For tests: with a tenth of the data
    #[arg(long, hide = true)]
    pub(crate) small: bool,
    /// Say what it would do, and do nothing
    #[arg(long, short = 'n')]
    pub(crate) dry_run: bool,
}

fn duration(text: &str) -> Result<std::time::Duration, String> {
    if text == "0" {
        return Ok(std::time::Duration::ZERO);
    }
    reseed_core::config::parse_duration(text)
}

fn kind(text: &str) -> Result<reseed_core::retention::sanoid::Kind, String> {
    use reseed_core::retention::sanoid::Kind;
    Kind::ALL
        .into_iter()
        .find(|kind| kind.as_str() == text)
        .ok_or_else(|| {
            let names: Vec<_> = Kind::ALL.iter().map(|kind| kind.as_str()).collect();
            format!("the kinds are {}", names.join(", "))
        })
}
