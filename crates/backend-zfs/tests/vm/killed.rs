//! A restore whose run was killed: what it left running is waited for, and the next run goes on from the same source.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use async_trait::async_trait;
use reseed_core::exec::{Command, ExecError, Output, PipeOutput, Runner, Streaming, SystemRunner};
use reseed_core::preseed::{Outcome, Stage};
use reseed_testkit::conformance::block_on;
use tokio_util::sync::CancellationToken;

use crate::chain::Chain;
use crate::lab::{run, sure};

const BYTES: usize = 4_000_000;

/// Starts a pipe that outlives it, with something between its ends, and has died by then.
#[derive(Debug)]
struct Killed {
    inner: SystemRunner,
    between: String,
    /// What the pipe makes.
    staged: String,
}

fn quoted(command: &Command) -> String {
    let quote = |word: &std::ffi::OsStr| format!("'{}'", word.to_string_lossy().replace('\'', "'\\''"));
    let words =
        std::iter::once(command.program()).chain(command.arguments().iter().map(|word| word.as_os_str()));
    words.map(quote).collect::<Vec<_>>().join(" ")
}

#[async_trait]
impl Runner for Killed {
    async fn run(&self, command: &Command, cancel: &CancellationToken) -> Result<Output, ExecError> {
        self.inner.run(command, cancel).await
    }
    async fn pipe(&self, stages: &[Command], cancel: &CancellationToken) -> Result<PipeOutput, ExecError> {
        let [send, receive] = stages else {
            panic!("{stages:?}")
        };
        let line = format!(
            "{{ {} | {{ {}; }} | {}; }} >/dev/null 2>&1",
            quoted(send),
            self.between,
            quoted(receive)
        );
        // In a session of its own, so that nobody ends it with whoever began it. The kernel makes the dataset first, and then sets what it
        // was told, and nobody looks between the two.
        let script = "setsid sh -c \"$1\" >/dev/null 2>&1 </dev/null & \
             until zfs get -H -o value receive_resume_token \"$2\" 2>/dev/null | grep -q 1-; do :; done; \
             until zfs get -H -o source reseed:stage \"$2\" 2>/dev/null | grep -q local; do :; done";
        let start = Command::new("sh").args(["-c", script, "sh", &line, &self.staged]);
        let started = self.inner.run(&start, cancel).await?;
        assert!(started.exit.success(), "{}", started.stderr.text());
        Err(ExecError::Cancelled {
            command: send.to_string(),
            stderr: "killed".to_owned(),
        })
    }
    async fn stream(&self, command: &Command, cancel: &CancellationToken) -> Result<Streaming, ExecError> {
        self.inner.stream(command, cancel).await
    }
}

/// Writes down, as a file, that a stream has ended badly: that it has met the one that is still arriving.
#[derive(Debug)]
struct Meeting {
    inner: SystemRunner,
    met: PathBuf,
}

#[async_trait]
impl Runner for Meeting {
    async fn run(&self, command: &Command, cancel: &CancellationToken) -> Result<Output, ExecError> {
        self.inner.run(command, cancel).await
    }
    async fn pipe(&self, stages: &[Command], cancel: &CancellationToken) -> Result<PipeOutput, ExecError> {
        let output = self.inner.pipe(stages, cancel).await?;
        if output.stages.iter().any(|stage| !stage.exit.success()) {
            std::fs::write(&self.met, "").unwrap();
        }
        Ok(output)
    }
    async fn stream(&self, command: &Command, cancel: &CancellationToken) -> Result<Streaming, ExecError> {
        self.inner.stream(command, cancel).await
    }
}

/// Lets some of it through, and what `then` lets through once the next run has met it.
fn until_met(met: &Path, then: &str) -> String {
    format!(
        "head -c 1000000; until [ -e {} ]; do sleep 0.1; done; {then}",
        met.display()
    )
}

fn goes_on(then: &'static str) {
    block_on(async {
        let chain = Chain::of_three("256M");
        let target = chain.pool.target("a");
        let (expected, _) = chain.made(&target, BYTES).await;
        chain.lose(&target);
        let staged = format!("{}/svc/.reseed-stage:a", chain.pool.pool);
        let met = chain.pool.root.join("met");
        let killed = Killed {
            inner: SystemRunner::new(),
            between: until_met(&met, then),
            staged: staged.clone(),
        };
        let mut doomed = chain.service_with(&[&target], Arc::new(killed));
        doomed.sources.truncate(1);
        let report = chain.preseed("killed", &doomed).await;
        assert_ne!(report.outcome, Outcome::Restored);
        let guid = sure(["zfs", "get", "-Hpo", "value", "guid", &staged]);
        // The other source is there, and has the same: it is not asked for.
        let meeting = Arc::new(Meeting {
            inner: SystemRunner::new(),
            met: met.clone(),
        });
        let report = chain
            .preseed("next", &chain.service_with(&[&target], meeting))
            .await;
        assert!(met.exists(), "nothing was met: {report:#?}");
        assert_eq!(report.attempts.len(), 1, "{:#?}", report.attempts);
        chain.is_back(&target, &expected, &report);
        assert_eq!(
            report.source.as_ref().map(ToString::to_string).as_deref(),
            Some("second")
        );
        let stages: Vec<Stage> = report.attempts.iter().map(|attempt| attempt.stage).collect();
        assert_eq!(stages, [Stage::Done], "{report:?}");
        assert_eq!(
            sure(["zfs", "get", "-Hpo", "value", "guid", target.dataset.as_str()]),
            guid,
            "what had arrived was kept"
        );
        assert!(!run(["zfs", "list", &staged]).exit.success());
    });
}

#[test]
fn a_stream_that_a_killed_run_left_behind_is_waited_for_until_it_breaks_off() {
    goes_on("true");
}

#[test]
fn a_stream_that_a_killed_run_left_behind_may_bring_all_of_it() {
    goes_on("cat");
}
