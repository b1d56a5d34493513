//! The demo in a virtual machine with OpenZFS, by the workspace's `cargo xtask vm`.

use reseed_core::error::{Effect, OpError, OpKind};
use reseed_core::exec::{Command, Runner as _, SystemRunner};
use serde_json::json;
use tokio_util::sync::CancellationToken;

use crate::exit::Exit;
use crate::output::Answer;
use crate::ui::Ui;

/// Seconds that it may take in the machine, where instructions may be emulated.
const LIMIT: &str = "1200";

pub(super) async fn run(ui: Ui, cancel: &CancellationToken) -> Result<Answer, OpError> {
    let io = |error: &std::io::Error| OpError::io("can't find this program", error);
    let dir = std::env::current_dir().map_err(|error| io(&error))?;
    let root = dir.ancestors().find(|dir| dir.join("xtask/src/vm.rs").is_file());
    let root = root.ok_or_else(|| {
        OpError::new(
            OpKind::InvalidInput,
            "this is no checkout of reseed, whose tests bring the virtual machine",
        )
        .hint("run it there, or `reseed demo --zfs` as root on a machine with ZFS")
    })?;
    let program = std::env::current_exe().map_err(|error| io(&error))?;
    let mut command = Command::new("cargo")
        .args(["xtask", "vm", "--limit", LIMIT, "--"])
        .arg(program)
        .args(["demo", "--zfs"])
        .cwd(root);
    // What cargo, and what the set-up downloads with, go by; a command of ours gets nothing of that by itself.
    for (name, value) in std::env::vars_os().filter(|(name, _)| is_builders(&name.to_string_lossy())) {
        command = command.env(name, value);
    }
    if ui.json {
        command = command.arg("--json");
    } else {
        crate::complain(
            "booting a machine with OpenZFS, and the demo in it; this takes some minutes, more the first time, when Debian's \
             packages for it are installed ...",
        );
    }
    let output = SystemRunner::new().run(&command, cancel).await.map_err(|error| {
        error.into_error::<OpKind>("can't run the demo in a virtual machine", Effect::None)
    })?;
    let text = output.stdout.text().into_owned();
    if output.exit.success() {
        let json = serde_json::from_str(&text).unwrap_or_else(|_| json!({ "said": text }));
        return Ok(Answer::new(&json, text, Exit::Ok));
    }
    Err(
        OpError::new(OpKind::Failed, "the demo failed in the virtual machine")
            .said(format!("{text}\n{}", output.stderr.text()).trim()),
    )
}

/// Whether a variable tells cargo, rustc or apt where and how to work.
fn is_builders(name: &str) -> bool {
    let begins = ["CARGO_", "RUSTUP_", "RUSTC", "RUSTFLAGS", "RESEED_"];
    let proxies = ["http_proxy", "https_proxy", "no_proxy"];
    begins.iter().any(|begin| name.starts_with(begin))
        || proxies.contains(&name.to_lowercase().as_str())
        || matches!(name, "CI" | "DEBIAN_FRONTEND")
}
