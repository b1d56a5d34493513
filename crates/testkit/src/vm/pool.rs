//! Pools for tests that run inside.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use reseed_core::exec::{Command, ExecError, Output, Runner, SystemRunner};
use tokio_util::sync::CancellationToken;

use super::guest;

/// How long destroying a pool may hold up a test that has ended. A suspended pool is never destroyed; the machine's end
/// takes it.
const DESTROY_LIMIT: Duration = Duration::from_secs(30);

/// A pool of sparse files below `/tmp`, mounted below `/tmp`, destroyed when dropped. Only inside of a machine of ours.
#[derive(Debug)]
pub struct ScratchPool {
    name: String,
    dir: PathBuf,
}

impl ScratchPool {
    /// A pool on one file of `mib` MiB.
    ///
    /// # Panics
    /// Outside of a virtual machine of ours, or when `zpool create` fails.
    pub fn new(mib: u64) -> Self {
        Self::with(mib, 1, &[])
    }

    /// A pool on so many files of `mib` MiB each, with these words between `zpool create` and its name.
    ///
    /// # Panics
    /// As [`new`](Self::new).
    pub fn with(mib: u64, files: usize, options: &[&str]) -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        guest::require();
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let name = format!("scratch{}x{number}", std::process::id());
        let dir = PathBuf::from("/tmp").join(&name);
        let made = std::fs::create_dir(&dir);
        assert!(made.is_ok(), "{} can't be made: {made:?}", dir.display());
        let pool = Self { name, dir };
        let mut create = Command::new("zpool").arg("create").args(options);
        create = create.arg("-m").arg(pool.mountpoint()).arg(&pool.name);
        for file in pool.files(files) {
            let sized = std::fs::File::create_new(&file).and_then(|made| made.set_len(mib << 20));
            assert!(sized.is_ok(), "{} can't be made: {sized:?}", file.display());
            create = create.arg(file);
        }
        if let Err(error) = blocking(create) {
            panic!("{error}");
        }
        pool
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// A dataset in it, by name.
    pub fn dataset(&self, name: &str) -> String {
        format!("{}/{name}", self.name)
    }

    /// Where it is mounted.
    pub fn mountpoint(&self) -> PathBuf {
        self.dir.join("mnt")
    }

    /// The directory with its files, for `zpool import -d`.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Its first file, for those who want to spoil it.
    pub fn file(&self) -> PathBuf {
        self.dir.join("disk0")
    }

    fn files(&self, count: usize) -> Vec<PathBuf> {
        (0..count)
            .map(|number| self.dir.join(format!("disk{number}")))
            .collect()
    }
}

impl Drop for ScratchPool {
    fn drop(&mut self) {
        // Never anywhere else, whoever made this value.
        if !guest::inside() {
            return;
        }
        let (name, dir) = (self.name.clone(), self.dir.clone());
        let (done, wait) = std::sync::mpsc::channel();
        std::thread::spawn(move || {
            // An exported pool can't be destroyed, and its files go all the same.
            let _ = blocking(Command::new("zpool").args(["destroy", "-f"]).arg(name));
            let _ = std::fs::remove_dir_all(dir);
            let _ = done.send(());
        });
        let _ = wait.recv_timeout(DESTROY_LIMIT);
    }
}

/// Runs a command to its end, also where there is a runtime already; anything but the exit code 0 is an error.
pub fn blocking(command: Command) -> Result<Output, ExecError> {
    let run = move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.map_err(|source| ExecError::CannotStart {
            command: command.to_string(),
            source,
        })?;
        runtime
            .block_on(SystemRunner::new().run(&command, &CancellationToken::new()))?
            .require_success()
    };
    match std::thread::spawn(run).join() {
        Ok(result) => result,
        Err(panic) => std::panic::resume_unwind(panic),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[should_panic(expected = "run it by `cargo xtask vm`")]
    fn no_pool_is_made_outside_of_a_machine() {
        ScratchPool::new(64);
    }
}
