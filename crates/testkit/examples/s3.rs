//! The S3 server as a program: `s3 DIR BUCKET MILLISECONDS` serves DIR/BUCKET, answers each request so much later, prints endpoint,
//! region, key and secret, a line each, and ends with its standard input.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "it is a program")]

use std::io::Read;
use std::process::ExitCode;
use std::time::Duration;

use reseed_testkit::s3::{S3Fault, S3Rule, S3Server};

fn run(args: &[String]) -> Result<(), Box<dyn std::error::Error>> {
    let [dir, bucket, late] = args else {
        return Err("usage: s3 DIR BUCKET MILLISECONDS".into());
    };
    let late = Duration::from_millis(late.parse()?);
    let server = S3Server::start(dir)?;
    server.make_bucket(bucket)?;
    let _late = server.faults().add(S3Rule::always(S3Fault::Slow(late)));
    let access = server.access();
    for line in [
        &access.endpoint,
        &access.region,
        &access.access_key_id,
        &access.secret_access_key,
    ] {
        println!("{line}");
    }
    std::io::stdin().read_to_end(&mut Vec::new())?;
    Ok(())
}

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    match run(&args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}
