//! A limit on how fast a stream goes, kept by `pv` in the middle of the pipe, on this machine whichever end is elsewhere.
//! Only then are the bytes copied.

use std::num::NonZeroU64;

use reseed_core::exec::{Command, PipeOutput, Stage};

/// Passes on what it gets, at most so many bytes a second.
pub(crate) fn command(bytes_per_second: NonZeroU64) -> Command {
    Command::new("pv")
        .args(["--quiet", "--rate-limit"])
        .arg(bytes_per_second.to_string())
        .install_hint(
            "install pv, which keeps the replica's `bandwidth`, or take the limit out of the configuration",
        )
}

/// A pipe's answer, without the stage in its middle where that only stopped because an end did: then the end is to blame.
pub(crate) fn without_the_innocent(mut output: PipeOutput) -> PipeOutput {
    let [first, middle, last] = &output.stages[..] else {
        return output;
    };
    let an_end_failed = [first, last]
        .iter()
        .any(|end| !end.exit.success() && !end.exit.broken_pipe());
    if an_end_failed && only_followed(middle) {
        output.stages.remove(1);
    }
    output
}

/// It ended well, or for want of a reader, or without a word.
fn only_followed(stage: &Stage) -> bool {
    let words = stage.stderr.text();
    stage.exit.success()
        || stage.exit.broken_pipe()
        || words.trim().is_empty()
        || words.contains("Broken pipe")
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use reseed_core::exec::{Captured, Exit};

    use super::*;

    #[test]
    fn pv_is_told_bytes_and_says_nothing() {
        let command = command(NonZeroU64::new(10 << 20).unwrap());
        assert_eq!(command.to_string(), "pv --quiet --rate-limit 10485760");
    }

    fn blamed(stages: [(&str, Exit, &str); 3]) -> String {
        let stages = stages.map(|(command, exit, words)| Stage {
            command: command.to_owned(),
            exit,
            stderr: Captured::from_whole(words),
        });
        let output = PipeOutput {
            stages: stages.into(),
            stdout: Captured::from_whole(""),
            elapsed: Duration::ZERO,
            held_open: false,
        };
        let output = without_the_innocent(output);
        output.culprit().map_or("", |stage| &stage.command).to_owned()
    }

    #[test]
    fn the_end_that_failed_is_blamed_and_pv_only_for_its_own_faults() {
        let (ok, pipe, one) = (Exit::Code(0), Exit::Signal(13), Exit::Code(1));
        let full = "cannot receive: out of space\n";
        for (middle, words) in [
            (ok, ""),
            (pipe, ""),
            (one, "pv: write failed: Broken pipe\n"),
            (Exit::Code(16), ""),
        ] {
            let stages = [("send", pipe, ""), ("pv", middle, words), ("receive", one, full)];
            assert_eq!(blamed(stages), "receive", "{middle} {words}");
        }
        // It wouldn't start to work, or was killed while both ends did.
        let usage = "pv: unrecognized option\n";
        let cut = "cannot receive: failed to read from stream\n";
        assert_eq!(
            blamed([("send", pipe, ""), ("pv", one, usage), ("receive", one, cut)]),
            "pv"
        );
        assert_eq!(
            blamed([
                ("send", pipe, ""),
                ("pv", Exit::Signal(9), ""),
                ("receive", ok, "")
            ]),
            "pv"
        );
        assert_eq!(
            blamed([("send", ok, ""), ("pv", ok, ""), ("receive", ok, "")]),
            ""
        );
    }
}
