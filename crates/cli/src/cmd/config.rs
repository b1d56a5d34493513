//! `reseed config`

use std::path::Path;

use reseed_core::config::{self, ConfigErrors};
use serde_json::json;

use crate::args::ConfigCmd;
use crate::exit::Exit;
use crate::output::Answer;
use crate::ui::{Mood, Ui};

pub(crate) fn run(command: &ConfigCmd, path: &Path, ui: Ui) -> Answer {
    if matches!(command, ConfigCmd::Schema) {
        let schema = config::schema();
        let text = format!("{schema:#}\n");
        return Answer::new(&schema, text, Exit::Ok);
    }
    let loaded = match config::load(path) {
        Ok(loaded) => loaded,
        Err(errors) => return self::errors(&errors),
    };
    if matches!(command, ConfigCmd::Show) {
        return Answer::new(&loaded.config, config::to_toml(&loaded.config), Exit::Ok);
    }
    let mut text = String::new();
    for warning in &loaded.warnings {
        text.push_str(&format!("{warning}\n"));
    }
    let services = loaded.config.services.len();
    let line = format!(
        "{}: sound, {services} services, {} warnings",
        path.display(),
        loaded.warnings.len()
    );
    text.push_str(&format!("{}\n", ui.paint(Mood::Good, &line)));
    Answer::new(
        &json!({ "ok": true, "services": services, "warnings": loaded.warnings }),
        text,
        Exit::Ok,
    )
}

/// What is wrong with a configuration.
pub(crate) fn errors(errors: &ConfigErrors) -> Answer {
    Answer::new(
        &json!({ "ok": false, "errors": errors }),
        format!("{errors}\n"),
        Exit::Usage,
    )
}
