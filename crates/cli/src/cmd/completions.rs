//! `reseed completions` and `reseed man`

use std::path::Path;

use clap::CommandFactory as _;
use serde_json::json;

use crate::args::Cli;
use crate::exit::Exit;
use crate::output::Answer;

pub(crate) fn completions(shell: clap_complete::Shell) -> Answer {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "reseed", &mut script);
    let script = String::from_utf8_lossy(&script).into_owned();
    Answer::new(
        &json!({ "shell": shell.to_string(), "script": script }),
        script,
        Exit::Ok,
    )
}

pub(crate) fn man(dir: Option<&Path>) -> Answer {
    let written = match dir {
        None => {
            let mut page = Vec::new();
            clap_mangen::Man::new(Cli::command())
                .render(&mut page)
                .map(|()| String::from_utf8_lossy(&page).into_owned())
        }
        Some(dir) => std::fs::create_dir_all(dir)
            .and_then(|()| clap_mangen::generate_to(Cli::command(), dir))
            .map(|()| format!("wrote the manual pages to {}\n", dir.display())),
    };
    match written {
        Ok(text) => Answer::new(&json!({ "page": text }), text, Exit::Ok),
        Err(error) => {
            let text = format!("error: the manual page could not be written: {error}\n");
            Answer::new(&json!({ "error": text }), text, Exit::Failed)
        }
    }
}
