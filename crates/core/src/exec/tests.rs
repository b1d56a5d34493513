//! The runner's contract on real processes. Waiting is for events, never for a time to pass; the
//! time limits that are to expire are a few milliseconds.

use std::path::Path;
use std::time::Duration;

use rustix::process::{Pid, test_kill_process};
use tokio_util::sync::CancellationToken;

use super::*;

fn sh(script: &str) -> Command {
    Command::new("/bin/sh").arg("-c").arg(script)
}

fn runner() -> SystemRunner {
    SystemRunner::new()
        .with_grace(Duration::from_millis(200))
        .with_linger(Duration::from_millis(100))
}

fn never() -> CancellationToken {
    CancellationToken::new()
}

async fn run(command: &Command) -> Result<Output, ExecError> {
    runner().run(command, &never()).await
}

fn text(output: &Output) -> String {
    String::from_utf8(output.whole_stdout().unwrap().to_vec()).unwrap()
}

/// A pid written to a file by a script, once it is there.
async fn pid_in(file: &Path) -> Pid {
    loop {
        let found = std::fs::read_to_string(file).unwrap_or_default();
        if let Some(pid) = found
            .strip_suffix('\n')
            .and_then(|p| p.parse().ok())
            .and_then(Pid::from_raw)
        {
            return pid;
        }
        tokio::task::yield_now().await;
    }
}

/// Whether the process is gone, zombies included. A grandchild of ours is reaped by init, so its
/// pid may stay for a moment as a zombie: that counts as gone, a zombie child of ours does not.
fn gone(pid: Pid) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", pid.as_raw_pid())).unwrap_or_default();
    let (state, parent) = stat.rsplit_once(") ").map_or(("", ""), |(_, rest)| {
        let mut fields = rest.split(' ');
        (fields.next().unwrap_or(""), fields.next().unwrap_or(""))
    });
    let ours = parent == std::process::id().to_string();
    test_kill_process(pid).is_err() || (state == "Z" && !ours)
}

async fn until_gone(pid: Pid) {
    while !gone(pid) {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn exec_1_arguments_arrive_byte_for_byte() {
    let odd = [
        "a b",
        "",
        "'",
        "\"$HOME\"",
        "`id`",
        "*",
        "-n",
        "\n",
        "\\",
        "ü",
        ";|&",
    ];
    let mut command = Command::new("printf").arg("%s\\0");
    command = command.args(odd);
    let out = run(&command).await.unwrap();
    assert_eq!(text(&out).split_terminator('\0').collect::<Vec<_>>(), odd);
}

#[tokio::test]
async fn exec_1_a_printed_command_is_the_command() {
    let command = Command::new("printf")
        .arg("[%s]")
        .args(["a b", "it's", "$x", "=y"])
        .env("A B", "c d");
    let command = command.cwd("/");
    let direct = run(&command).await.unwrap();
    // A variable name with a blank can't be pasted; leave it out of the pasted line.
    let pasted = command.to_string().replace("A B='c d' ", "");
    assert_eq!(text(&run(&sh(&pasted)).await.unwrap()), text(&direct));
}

#[tokio::test]
async fn exec_2_the_environment_is_ours() {
    let out = run(&Command::new("env").env("GIVEN", "x y")).await.unwrap();
    let out = text(&out);
    assert!(
        out.contains("LC_ALL=C\n") && out.contains("GIVEN=x y\n") && out.contains("PATH="),
        "{out}"
    );
    for line in out.lines() {
        let key = line.split('=').next().unwrap();
        assert!(
            ["LC_ALL", "GIVEN"].contains(&key) || PASSED_THROUGH.contains(&key),
            "{line}"
        );
    }
    // The test runner sets this one for us.
    assert!(
        std::env::var_os("CARGO_MANIFEST_DIR").is_some() && !out.contains("CARGO"),
        "{out}"
    );
}

#[tokio::test]
async fn exec_3_secrets_arrive_and_do_not_show() {
    let command =
        sh("cat \"$FILE\" \"$FILE\" \"$1\"; echo \"$WORD\"; cat \"$FILE\" >&2; echo \" $WORD\" >&2; exit 7")
            .arg("sh")
            .arg_secret_file(Secret::new("third"))
            .env_secret("WORD", Secret::new("first"))
            .env_secret_file("FILE", Secret::new("second"));
    let out = run(&command).await.unwrap();
    assert_eq!(text(&out), "secondsecondthirdfirst\n");
    assert_eq!(out.stderr.text(), "*** ***\n");
    let error = out.require_success().unwrap_err();
    let shown = format!("{error} {error:?}");
    assert!(
        !["first", "second", "third"].iter().any(|s| shown.contains(s)),
        "{shown}"
    );
}

#[tokio::test]
async fn exec_3_a_secret_file_cannot_be_changed_by_the_child() {
    let command = sh("echo x >> \"$FILE\"; cat \"$FILE\"").env_secret_file("FILE", Secret::new("kept"));
    assert_eq!(text(&run(&command).await.unwrap()), "kept");
}

#[tokio::test]
async fn exec_3_another_child_does_not_inherit_a_secret_file() {
    let with_secret = sh("cat \"$F\" | wc -c").env_secret_file("F", Secret::new("x".repeat(5)));
    let other = || sh("cat; readlink /proc/self/fd/3 || echo none");
    let out = runner().pipe(&[with_secret, other()], &never()).await.unwrap();
    assert_eq!(out.stdout.whole().unwrap(), b"5\nnone\n");
    assert_eq!(text(&run(&other()).await.unwrap()), "none\n");
}

#[tokio::test]
async fn exec_4_a_flood_on_both_outputs_is_read_in_bounded_memory() {
    let keep = Keep { head: 4, tail: 4 };
    let command = sh("yes | head -c 3000000; yes no | head -c 3000000 >&2; echo end; echo END >&2")
        .keep_stdout(keep)
        .keep_stderr(keep);
    let out = run(&command).await.unwrap();
    assert!(out.exit.success());
    assert_eq!((out.stdout.total(), out.stderr.total()), (3_000_004, 3_000_004));
    assert_eq!(out.stdout.text(), "y\ny\n\n[2999996 bytes left out]\nend\n");
    assert_eq!(out.stderr.text(), "no\nn\n[2999996 bytes left out]\nEND\n");
    assert!(matches!(
        out.whole_stdout(),
        Err(ExecError::TooMuchOutput { total: 3_000_004, .. })
    ));
}

#[tokio::test]
async fn exec_4_a_large_input_and_output_do_not_wait_for_each_other() {
    let bytes: Vec<u8> = (0..2_000_000_u32)
        .map(|n| u8::try_from(n % 251).unwrap())
        .collect();
    let command = Command::new("cat")
        .stdin(Stdin::Bytes(bytes.clone()))
        .keep_stdout(Keep::up_to(4_000_000));
    assert_eq!(run(&command).await.unwrap().whole_stdout().unwrap(), bytes);
}

#[tokio::test]
async fn exec_4_a_child_that_does_not_read_its_input_is_no_error() {
    let out = run(&Command::new("true").stdin(Stdin::Bytes(vec![0; 1_000_000])))
        .await
        .unwrap();
    assert!(out.exit.success() && !out.held_open);
}

#[tokio::test]
async fn exec_5_cancellation_ends_a_child_that_ignores_sigterm() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("pid");
    let command = sh("trap '' TERM; echo said >&2; echo $$ > \"$1\"; while :; do sleep 1000; done")
        .arg("sh")
        .arg(&file);
    let cancel = never();
    let runner = runner();
    let (result, pid) = tokio::join!(runner.run(&command, &cancel), async {
        let pid = pid_in(&file).await;
        cancel.cancel();
        pid
    });
    assert!(
        matches!(&result, Err(ExecError::Cancelled { stderr, .. }) if stderr == "said"),
        "{result:?}"
    );
    assert!(gone(pid), "reaped before the answer");
}

#[tokio::test]
async fn exec_5_a_child_that_cleans_up_on_sigterm_may() {
    let dir = tempfile::tempdir().unwrap();
    let (file, cleaned) = (dir.path().join("pid"), dir.path().join("cleaned"));
    let command = sh("trap 'echo yes > \"$2\"; exit 1' TERM; echo $$ > \"$1\"; sleep 1000 & wait")
        .arg("sh")
        .args([&file, &cleaned]);
    let cancel = never();
    let runner = runner().with_grace(Duration::from_secs(30));
    let (result, _) = tokio::join!(runner.run(&command, &cancel), async {
        pid_in(&file).await;
        cancel.cancel();
    });
    assert!(matches!(result, Err(ExecError::Cancelled { .. })));
    assert_eq!(std::fs::read_to_string(cleaned).unwrap(), "yes\n");
}

#[tokio::test]
async fn exec_5_the_time_limit_ends_a_stopped_child() {
    let command = sh("kill -STOP $$").time_limit(Duration::from_millis(30));
    let result = run(&command).await;
    assert!(
        matches!(result, Err(ExecError::TimedOut { limit, .. }) if limit.as_millis() == 30),
        "{result:?}"
    );
}

#[tokio::test]
async fn exec_5_every_stage_and_grandchild_of_a_pipe_is_killed() {
    let dir = tempfile::tempdir().unwrap();
    let file = |name: &str| dir.path().join(name);
    let stubborn = |name: &str| {
        sh("trap '' TERM; sh -c 'trap \"\" TERM; echo $$ > \"$1.grandchild\"; exec sleep 1000' sh \"$1\" & echo $$ > \"$1\"; wait; wait; sleep 1000")
            .arg("sh")
            .arg(file(name))
    };
    let cancel = never();
    let stages = [stubborn("a"), stubborn("b"), stubborn("c")];
    let runner = runner();
    let (result, pids) = tokio::join!(runner.pipe(&stages, &cancel), async {
        let mut pids = Vec::new();
        for name in ["a", "b", "c", "a.grandchild", "b.grandchild", "c.grandchild"] {
            pids.push(pid_in(&file(name)).await);
        }
        cancel.cancel();
        pids
    });
    assert!(matches!(result, Err(ExecError::Cancelled { .. })), "{result:?}");
    assert!(
        pids[..3].iter().all(|pid| gone(*pid)),
        "children are reaped before the answer"
    );
    for pid in pids {
        until_gone(pid).await;
    }
}

#[tokio::test]
async fn exec_5_dropping_the_future_kills_and_reaps() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("pid");
    let command = sh("trap '' TERM; echo $$ > \"$1\"; while :; do sleep 1000; done")
        .arg("sh")
        .arg(&file);
    let runner = runner();
    let cancel = never();
    let pid = tokio::select! {
        _ = runner.run(&command, &cancel) => panic!("it does not end"),
        pid = pid_in(&file) => pid,
    };
    assert!(!cancel.is_cancelled(), "the caller's token is the caller's");
    runner.settled().await;
    assert!(gone(pid));
}

#[test]
fn exec_5_a_runtime_torn_down_under_a_run_leaves_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("pid");
    let command = sh("trap '' TERM; echo $$ > \"$1\"; while :; do sleep 1000; done")
        .arg("sh")
        .arg(&file);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .unwrap();
    let runner = runner();
    runtime.spawn(async move { runner.run(&command, &never()).await });
    let pid = runtime.block_on(pid_in(&file));
    drop(runtime);
    assert!(gone(pid));
}

#[tokio::test]
async fn exec_5_a_grandchild_that_holds_the_output_open_does_not_hold_us() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("pid");
    let command = sh("echo $$ > \"$1\"; sh -c 'echo $$ > \"$1.2\"; exec sleep 1000' sh \"$1\" & echo done")
        .arg("sh")
        .arg(&file);
    let out = run(&command).await.unwrap();
    assert!(out.exit.success() && out.held_open);
    assert_eq!(text(&out), "done\n");
    until_gone(pid_in(&dir.path().join("pid.2")).await).await;
}

#[tokio::test]
async fn exec_5_one_that_left_the_group_is_no_longer_listened_to() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("pid");
    let command = sh("setsid sh -c 'echo $$ > \"$1\"; exec sleep 1000' sh \"$1\" & while ! test -s \"$1\"; do :; done; echo done").arg("sh").arg(&file);
    let out = run(&command).await.unwrap();
    assert!(out.exit.success() && out.held_open);
    assert_eq!(text(&out), "done\n");
    let pid = pid_in(&file).await;
    assert!(!gone(pid), "it is not ours to kill");
    rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
}

#[tokio::test]
async fn exec_5_a_cancelled_token_starts_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("file");
    let cancel = never();
    cancel.cancel();
    let result = runner().run(&Command::new("touch").arg(&file), &cancel).await;
    assert!(matches!(result, Err(ExecError::Cancelled { .. })) && !file.exists());
}

#[tokio::test]
async fn exec_6_every_stage_answers() {
    let stages = [
        sh("cat; echo one >&2").stdin(Stdin::Bytes(b"b\na\n".to_vec())),
        sh("sort; echo two >&2; exit 3"),
        sh("tr a-z A-Z; echo three >&2"),
    ];
    let out = runner().pipe(&stages, &never()).await.unwrap();
    assert_eq!(out.stdout.whole().unwrap(), b"A\nB\n");
    assert_eq!(
        out.stages.iter().map(|s| s.exit).collect::<Vec<_>>(),
        [Exit::Code(0), Exit::Code(3), Exit::Code(0)]
    );
    assert_eq!(
        out.stages.iter().map(|s| s.stderr.text()).collect::<Vec<_>>(),
        ["one\n", "two\n", "three\n"]
    );
    let error = out.require_success().unwrap_err();
    assert!(
        matches!(&error, ExecError::Failed { exit: Exit::Code(3), stderr, .. } if stderr == "two"),
        "{error}"
    );
}

#[tokio::test]
async fn exec_6_a_sender_learns_of_a_closed_pipe() {
    let out = runner()
        .pipe(&[Command::new("yes"), sh("head -n 1; exit 1")], &never())
        .await
        .unwrap();
    assert!(out.stages[0].exit.broken_pipe(), "{:?}", out.stages[0].exit);
    assert!(out.culprit().unwrap().command.contains("head"));
}

#[tokio::test]
async fn exec_6_a_stage_that_cannot_start_ends_the_ones_before_it() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("pid");
    let first = sh("trap '' TERM; echo $$ > \"$1\"; while :; do sleep 1000; done")
        .arg("sh")
        .arg(&file);
    let result = runner()
        .pipe(&[first, Command::new("no-such-program")], &never())
        .await;
    assert!(
        matches!(result, Err(ExecError::NotInstalled { .. })),
        "{result:?}"
    );
    // It may have been killed before it wrote its pid; if it got that far it is gone.
    if let Some(pid) = std::fs::read_to_string(&file)
        .ok()
        .and_then(|p| p.trim().parse().ok())
        .and_then(Pid::from_raw)
    {
        assert!(gone(pid));
    }
}

#[tokio::test]
async fn exec_6_input_in_the_middle_of_a_pipe_is_refused() {
    let stages = [
        Command::new("true"),
        Command::new("cat").stdin(Stdin::Bytes(vec![1])),
    ];
    assert!(matches!(
        runner().pipe(&stages, &never()).await,
        Err(ExecError::Invalid { .. })
    ));
    assert!(matches!(
        runner().pipe(&[], &never()).await,
        Err(ExecError::Invalid { .. })
    ));
    assert!(matches!(
        run(&Command::new("cat").stdin(Stdin::Piped)).await,
        Err(ExecError::Invalid { .. })
    ));
}

#[tokio::test]
async fn exec_7_a_signal_is_not_an_exit_code() {
    assert_eq!(run(&sh("kill -KILL $$")).await.unwrap().exit, Exit::Signal(9));
    assert_eq!(run(&sh("exit 137")).await.unwrap().exit, Exit::Code(137));
    let error = run(&sh("echo no >&2; kill -TERM $$"))
        .await
        .unwrap()
        .require_success()
        .unwrap_err();
    assert!(
        error.to_string().ends_with("failed with signal 15 (SIGTERM): no"),
        "{error}"
    );
}

#[tokio::test]
async fn exec_7_not_installed_says_what_to_do() {
    let command = Command::new("no-such-program").install_hint("apt install it");
    let error = run(&command).await.unwrap_err();
    assert!(matches!(&error, ExecError::NotInstalled { program, .. } if program == "no-such-program"));
    assert_eq!(error.hint(), Some("apt install it"));
    assert!(!error.may_have_acted());
}

#[tokio::test]
async fn exec_7_a_missing_directory_is_not_a_missing_program() {
    let error = run(&Command::new("true").cwd("/no/such/directory"))
        .await
        .unwrap_err();
    assert!(matches!(error, ExecError::WorkingDirectory { .. }), "{error}");
}

#[tokio::test]
async fn exec_7_not_executable_and_nul_are_told_apart() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("plain");
    std::fs::write(&file, "text").unwrap();
    assert!(matches!(
        run(&Command::new(&file)).await,
        Err(ExecError::CannotStart { .. })
    ));
    assert!(matches!(
        run(&Command::new("true").arg("a\0b")).await,
        Err(ExecError::Invalid { .. })
    ));
}

#[tokio::test]
async fn exec_8_each_stage_is_heard_while_it_runs_and_the_rest_is_kept() {
    let (send, receive) = std::sync::mpsc::channel();
    let heard = |who: &'static str| {
        let send = send.clone();
        Listener::new(move |line| {
            let text = String::from_utf8_lossy(line).into_owned();
            let taken = text.starts_with('+');
            if taken {
                send.send(format!("{who}{text}")).unwrap();
            }
            taken
        })
    };
    // The first stage ends only once its line was heard: it was heard while it ran.
    let dir = tempfile::tempdir().unwrap();
    let gate = dir.path().join("gate");
    let script = format!(
        "echo +1 >&2; while [ ! -e {0} ]; do sleep 0.01; done; echo words >&2; printf +2 >&2; exit 3",
        gate.display()
    );
    let stages = [
        sh(&script).heard_by(heard("a")),
        sh("echo +3 >&2; cat; echo more >&2; exit 4").heard_by(heard("b")),
        sh("cat; echo +4 >&2"),
    ];
    let runner = runner();
    let cancel = never();
    let run = runner.pipe(&stages, &cancel);
    let open = async {
        let all = tokio::task::spawn_blocking(move || [receive.recv().unwrap(), receive.recv().unwrap()]);
        let mut all = all.await.unwrap();
        all.sort();
        std::fs::write(&gate, "").unwrap();
        all
    };
    let (output, all) = tokio::join!(run, open);
    assert_eq!(all, ["a+1", "b+3"]);
    let output = output.unwrap();
    let words: Vec<_> = output
        .stages
        .iter()
        .map(|stage| stage.stderr.text().into_owned())
        .collect();
    assert_eq!(words, ["words\n+2", "more\n", "+4\n"]);
    assert_eq!(output.stages[0].exit, Exit::Code(3));
}

#[tokio::test]
async fn exec_8_what_is_taken_leaves_room_for_what_is_not() {
    let script = "i=0; while [ $i -lt 20000 ]; do echo +progress >&2; i=$((i+1)); done; echo why >&2; exit 1";
    let command = sh(script).heard_by(Listener::new(|line| line.starts_with(b"+")));
    let output = run(&command.keep_stderr(Keep::ends(1))).await.unwrap();
    assert_eq!((output.stderr.text(), output.stderr.total()), ("why\n".into(), 4));
}

#[tokio::test]
async fn stream_talks_both_ways() {
    let worker =
        sh("while read -r line; do echo \"{\\\"got\\\":$line}\"; done; echo bye; exit 4").stdin(Stdin::Piped);
    let mut talk = runner().stream(&worker, &never()).await.unwrap();
    for n in 0..3 {
        talk.send_line(n.to_string().as_bytes()).await.unwrap();
        assert_eq!(
            talk.next_line().await.unwrap().bytes,
            format!("{{\"got\":{n}}}").into_bytes()
        );
    }
    talk.close_input();
    assert_eq!(talk.next_line().await.unwrap().bytes, b"bye");
    assert_eq!(talk.next_line().await, None);
    let out = talk.finish().await.unwrap();
    assert_eq!((out.exit, out.stdout.total()), (Exit::Code(4), 34));
}

#[tokio::test]
async fn stream_a_caller_who_does_not_listen_causes_no_sigpipe() {
    let talk = runner()
        .stream(&sh("yes | head -n 500000"), &never())
        .await
        .unwrap();
    let out = talk.finish().await.unwrap();
    assert_eq!(
        (out.exit, out.stdout.total(), out.held_open),
        (Exit::Code(0), 1_000_000, false)
    );
}

#[tokio::test]
async fn stream_a_slow_listener_gets_every_line() {
    let runner = runner().with_linger(Duration::from_millis(5));
    let mut talk = runner.stream(&sh("seq 3000"), &never()).await.unwrap();
    // The child ends long before; what is on its way must not count as held open.
    let mut lines = 0;
    while talk.next_line().await.is_some() {
        lines += 1;
        if lines % 1000 == 0 {
            run(&Command::new("sleep").arg("0.03")).await.unwrap();
        }
    }
    assert_eq!(lines, 3000);
    assert!(!talk.finish().await.unwrap().held_open);
}

#[tokio::test]
async fn stream_dropping_the_talk_ends_the_child() {
    let runner = runner();
    let worker = sh("trap '' TERM; echo $$; while :; do sleep 1000; done");
    let mut talk = runner.stream(&worker, &never()).await.unwrap();
    let line = talk.next_line().await.unwrap();
    let pid = Pid::from_raw(String::from_utf8(line.bytes).unwrap().parse().unwrap()).unwrap();
    drop(talk);
    runner.settled().await;
    assert!(gone(pid));
}

#[tokio::test]
async fn stream_a_dead_worker_refuses_more() {
    let mut talk = runner()
        .stream(&sh("exec 0<&-; kill -KILL $$").stdin(Stdin::Piped), &never())
        .await
        .unwrap();
    assert_eq!(talk.next_line().await, None);
    while talk.send_line(b"more").await.is_ok() {
        tokio::task::yield_now().await;
    }
    assert_eq!(talk.finish().await.unwrap().exit, Exit::Signal(9));
}

mod quoting {
    use super::*;
    use proptest::prelude::*;
    use std::ffi::OsString;
    use std::os::unix::ffi::{OsStrExt, OsStringExt};

    /// Words as nasty as they come: shell characters and arbitrary bytes without NUL.
    fn word() -> impl Strategy<Value = Vec<u8>> {
        prop_oneof![
            proptest::collection::vec(1..=255_u8, 0..12),
            proptest::collection::vec(
                proptest::sample::select(b" '\"\\$`!*?[]{}()<>|&;#~=-\n\t%^a".to_vec()),
                0..12
            ),
            proptest::sample::select(vec![&b"if"[..], b"A=b", b"=ls", b"~", b"-n", b"--", b"!", b"{"])
                .prop_map(<[u8]>::to_vec),
        ]
    }

    fn split_by_sh(runtime: &tokio::runtime::Runtime, line: &std::ffi::OsStr) -> Vec<Vec<u8>> {
        let mut script = b"printf '%s\\0' ".to_vec();
        script.extend_from_slice(line.as_bytes());
        let command = Command::new("/bin/sh").arg("-c").arg(OsString::from_vec(script));
        let out = runtime
            .block_on(run(&command))
            .unwrap()
            .require_success()
            .unwrap();
        let bytes = out.whole_stdout().unwrap().to_vec();
        bytes
            .strip_suffix(b"\0")
            .unwrap()
            .split(|b| *b == 0)
            .map(<[u8]>::to_vec)
            .collect()
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(200))]
        #[test]
        fn sh_splits_a_quoted_line_back(words in proptest::collection::vec(word(), 1..6)) {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            let argv: Vec<OsString> = words.iter().cloned().map(OsString::from_vec).collect();
            let line = quote_for_ssh(&argv).unwrap();
            prop_assert_eq!(split_by_sh(&runtime, &line), words);
        }

        #[test]
        fn a_plain_word_needs_no_quotes(word in word()) {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            let word = OsString::from_vec(word);
            // Few of these are plain; what is left of one is, mostly.
            let rest: Vec<u8> = word.as_bytes().iter().copied().filter(|b| b.is_ascii_alphanumeric() || b"_=-".contains(b)).collect();
            for word in [word, OsString::from_vec(rest)] {
                if is_plain_word(&word) {
                    prop_assert_eq!(split_by_sh(&runtime, &word), vec![word.into_vec()]);
                }
            }
        }

        #[test]
        fn a_first_word_is_a_program_whatever_it_looks_like(name in proptest::sample::select(
            vec!["if", "A=b", "=x", "~", "time", "{", "!", "a b", "-x", "+x", "--", "case", "for"]
        )) {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            let dir = tempfile::tempdir().unwrap();
            std::os::unix::fs::symlink("/bin/echo", dir.path().join(name)).unwrap();
            let line = quote_for_ssh([name, "ran"]).unwrap();
            let command = Command::new("/bin/sh").arg("-c").arg(line).env("PATH", dir.path());
            let out = runtime.block_on(run(&command)).unwrap();
            prop_assert_eq!(out.whole_stdout().unwrap(), b"ran\n", "{}", out.stderr.text());
        }
    }

    #[test]
    fn plain_words_stay_readable() {
        let line = quote_for_ssh(["zfs", "recv", "-o", "canmount=noauto", "tank/a@b", "a b"]).unwrap();
        assert_eq!(line, "zfs recv -o canmount=noauto tank/a@b 'a b'");
    }

    #[test]
    fn what_a_shell_takes_apart_is_no_plain_word() {
        for bad in [
            "", "a b", "$(x)", "a;b", "a'b", "a\"b", "a\\b", "~/x", "/a*", "/a?", "/[a]", "a\nb", "a&b",
            "a|b", "`x`", "{a,b}", "-x", "+x", "=x", "%h", "é", "a<b", "#a", "!a",
        ] {
            assert!(!is_plain_word(bad), "{bad:?}");
        }
        for good in ["/etc/reseed/known_hosts", "a@b.c:d", "A=b", "x,y+z-1"] {
            assert!(is_plain_word(good), "{good:?}");
        }
    }

    #[test]
    fn nothing_and_nul_are_refused() {
        assert!(quote_for_ssh(Vec::<OsString>::new()).is_err());
        assert!(quote_for_ssh(["a\0b"]).is_err());
    }
}
