//! Prints a directory's tree digest: `digest [--cache FILE] [--threads N] DIR`.

#![allow(clippy::print_stdout, clippy::print_stderr)]

use std::path::PathBuf;
use std::process::ExitCode;

use reseed_core::digest::{DigestCache, DigestOptions, digest_tree};

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            eprintln!("{message}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<(), String> {
    let usage = || "usage: digest [--cache FILE] [--threads N] DIR".to_owned();
    let (mut cache_file, mut threads, mut dir) = (None, 0, None);
    let mut args = std::env::args_os().skip(1);
    while let Some(arg) = args.next() {
        match arg.to_str() {
            Some("--cache") => cache_file = Some(PathBuf::from(args.next().ok_or_else(usage)?)),
            Some("--threads") => {
                let n = args
                    .next()
                    .and_then(|n| n.to_str().map(str::to_owned))
                    .ok_or_else(usage)?;
                threads = n.parse().map_err(|_| usage())?;
            }
            _ if dir.is_none() => dir = Some(PathBuf::from(arg)),
            _ => return Err(usage()),
        }
    }
    let dir = dir.ok_or_else(usage)?;
    let mut cache = None;
    if let Some(file) = &cache_file {
        let (loaded, warning) = DigestCache::load(file, dir.as_os_str().as_encoded_bytes());
        if let Some(warning) = warning {
            eprintln!("{warning}");
        }
        cache = Some(loaded);
    }
    let options = DigestOptions {
        threads,
        cache: cache.as_mut(),
        ..DigestOptions::default()
    };
    let found = digest_tree(&dir, options).map_err(|err| err.to_string())?;
    if let Some(cache) = &mut cache {
        cache
            .save()
            .map_err(|err| format!("cannot save the cache: {err}"))?;
    }
    println!(
        "{}  {} files, {} bytes, {} read",
        found.digest, found.files, found.bytes, found.files_read
    );
    Ok(())
}
