//! `reseed import`

use std::path::Path;
use std::sync::Arc;

use reseed_backend_zfs::datasets::{Layout, import as pool};
use reseed_backend_zfs::sanoid::import::{self as sanoid, ImportError};
use reseed_backend_zfs::{Imported, sanoid::conf};
use reseed_core::Context;
use reseed_core::clock::{Clock as _, SystemClock};
use reseed_core::entropy::SplitMix;
use reseed_core::error::{OpError, OpKind, StoreKind};
use reseed_core::exec::SystemRunner;
use reseed_core::names::RunId;
use tokio_util::sync::CancellationToken;

use crate::args::ImportCmd;
use crate::exit::Exit;
use crate::output::Answer;
use crate::ui::{Ui, printable};

pub(crate) async fn run(command: &ImportCmd, ui: Ui, cancel: CancellationToken) -> Answer {
    let run = RunId::generate(SystemClock::new().now(), &SplitMix::system());
    let cx = Context::new(run, ui.sink(), cancel);
    let layout = Layout::new(Arc::new(SystemRunner::new()));
    let answer = match command {
        ImportCmd::Sanoid { file, datasets } => from_sanoid(file, datasets.as_deref(), &layout, &cx).await,
        ImportCmd::Pool { pools } => from_pool(pools, &layout, &cx).await,
    };
    answer.unwrap_or_else(|error| Answer::of_error(&ui, &error))
}

async fn from_sanoid(
    file: &Path,
    datasets: Option<&Path>,
    layout: &Layout,
    cx: &Context,
) -> Result<Answer, OpError> {
    let text = read(file)?;
    let parsed = match conf::parse(&text, &file.display().to_string()) {
        Ok(parsed) => parsed,
        Err(errors) => return Ok(super::config::errors(&errors)),
    };
    for warning in &parsed.warnings {
        crate::complain(&warning.to_string());
    }
    let names = match datasets {
        Some(list) => Some(
            read(list)?
                .lines()
                .map(str::trim)
                .filter(|l| !l.is_empty())
                .map(str::to_owned)
                .collect(),
        ),
        None => match layout.names(cx).await {
            Ok(names) => Some(names),
            // What doesn't recurse can be taken over anywhere.
            Err(error) if error.kind() == StoreKind::ToolMissing => None,
            Err(error) if parsed.conf.needs_datasets() => return Err(error.convert(OpKind::Blocked)),
            Err(_) => None,
        },
    };
    match sanoid::import(&parsed.conf, names.as_deref()) {
        Ok(imported) => Ok(answer(&imported)),
        Err(ImportError::Unsound(errors)) => Ok(super::config::errors(&errors)),
        Err(_) => {
            let what = "the sanoid.conf recurses, and which datasets there are can't be found out here";
            let hint = "run it where the pool is; or there `zfs list -H -o name -t filesystem,volume > names`, and here \
                        `--datasets names`";
            Err(OpError::new(OpKind::InvalidInput, what).hint(hint))
        }
    }
}

async fn from_pool(pools: &[String], layout: &Layout, cx: &Context) -> Result<Answer, OpError> {
    let actual = layout
        .read(cx)
        .await
        .map_err(|error| error.convert(OpKind::Blocked))?;
    if let Some(missing) = pools.iter().find(|pool| !actual.contains_key(*pool)) {
        let there: Vec<&str> = actual
            .keys()
            .filter(|name| !name.contains('/'))
            .map(String::as_str)
            .collect();
        let error = OpError::new(OpKind::InvalidInput, format!("there is no pool {missing:?} here"));
        return Err(error.hint(format!("pools here: {}", there.join(", "))));
    }
    match pool::import(&actual, pools) {
        Ok(imported) => Ok(answer(&imported)),
        Err(errors) => Ok(super::config::errors(&errors)),
    }
}

fn read(file: &Path) -> Result<String, OpError> {
    std::fs::read_to_string(file)
        .map_err(|error| OpError::io(format!("can't read {}", file.display()), &error))
}

/// The configuration on standard output, ready for a file; what is not in it as comments behind it.
fn answer(imported: &Imported) -> Answer {
    let mut text = imported.toml.clone();
    if !imported.left_out.is_empty() {
        text.push_str("\n# Not taken over:\n");
    }
    for left in &imported.left_out {
        text.push_str(&format!(
            "# - {}: {}\n",
            printable(&left.what),
            printable(&left.why)
        ));
    }
    Answer::new(imported, text, Exit::Ok)
}
