//! How far a stream is, by what `zfs send -P -v` says on its standard error every second: the pipe itself is the kernel's,
//! and nobody counts along.
//!
//! First come the parts with their estimates and their sum, `size`; then, for the part that is being sent, the bytes of it so far.
//! Before `size` such a line counts how far the *estimate* is (a bookmark's may have to be found by reading). Promises that a line
//! it doesn't know is left to whoever reads the words of a failure, and never wrong for being new.

use std::sync::{Arc, Mutex, PoisonError};

use reseed_core::Context;
use reseed_core::event::Event;
use reseed_core::exec::Listener;
use reseed_core::names::DatasetName;

use super::watch::Moves;

/// What a line was.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Line {
    /// Nothing of ours.
    Other,
    /// Ours, and nothing moved.
    Noted,
    /// The stream is so far: bytes, of so many.
    Moved(u64, Option<u64>),
}

/// What was said of one stream so far.
#[derive(Debug, Default)]
struct Stream {
    /// The parts with their estimated sizes, in the order in which they are sent.
    parts: Vec<(String, u64)>,
    /// The estimate is made.
    begun: bool,
    total: Option<u64>,
    furthest: u64,
    /// The last bytes that were told, and of what.
    last: Option<(u64, String)>,
}

impl Stream {
    /// Whether a line tells more than the one before. `zfs` says once a second how far it is, also when it stands still.
    fn is_news(&mut self, line: &str) -> bool {
        let words: Vec<&str> = line.split('\t').collect();
        let told = match words[..] {
            [time, bytes, part] | [time, bytes, _, part] if is_time(time) => {
                bytes.parse().ok().map(|bytes| (bytes, part.to_owned()))
            }
            _ => None,
        };
        match told {
            None => true,
            told if told == self.last => false,
            told => {
                self.last = told;
                true
            }
        }
    }

    fn line(&mut self, line: &str) -> Line {
        let words: Vec<&str> = line.split('\t').collect();
        match words[..] {
            ["full", part, size] | ["incremental", _, part, size] => {
                let Ok(size) = size.parse() else {
                    return Line::Other;
                };
                self.parts.push((part.to_owned(), size));
                Line::Noted
            }
            ["size", size] => {
                let Ok(size) = size.parse::<u64>() else {
                    return Line::Other;
                };
                self.begun = true;
                // What a resumed stream has left is the estimate less what came, which can be below zero.
                self.total = i64::try_from(size).is_ok().then_some(size);
                Line::Moved(0, self.total)
            }
            [time, bytes, part] | [time, bytes, _, part] if is_time(time) => {
                let Ok(bytes) = bytes.parse::<u64>() else {
                    return Line::Other;
                };
                if !self.begun {
                    return Line::Noted;
                }
                let before = match self.parts.iter().position(|(name, _)| name == part) {
                    Some(at) => self.parts[..at].iter().map(|(_, size)| *size).sum(),
                    None => 0_u64,
                };
                // Estimates are not what is sent: a new part must not begin behind the end of the last one.
                self.furthest = self.furthest.max(before.saturating_add(bytes));
                Line::Moved(self.furthest, self.total)
            }
            _ => Line::Other,
        }
    }
}

/// `20:33:00`
fn is_time(word: &str) -> bool {
    let two = |part: &str| part.len() == 2 && part.bytes().all(|byte| byte.is_ascii_digit());
    let mut parts = word.split(':');
    matches!((parts.next(), parts.next(), parts.next(), parts.next()),
        (Some(h), Some(m), Some(s), None) if two(h) && two(m) && two(s))
}

/// Hears a `zfs send -P -v`, tells the run how far what it sends of `dataset` is, and notes that it moves.
pub(crate) fn listener(cx: &Context, dataset: &DatasetName, moves: Arc<Moves>) -> Listener {
    let (cx, dataset, stream) = (cx.clone(), dataset.clone(), Mutex::new(Stream::default()));
    Listener::new(move |line| {
        let Ok(line) = std::str::from_utf8(line) else {
            return false;
        };
        let mut stream = stream.lock().unwrap_or_else(PoisonError::into_inner);
        if stream.is_news(line) {
            moves.note();
        }
        let heard = stream.line(line);
        drop(stream);
        if let Line::Moved(bytes, total) = heard {
            cx.emit(Event::Progress {
                dataset: dataset.clone(),
                bytes,
                total,
                files: 0,
            });
        }
        heard != Line::Other
    })
}

#[cfg(test)]
mod tests {
    use reseed_core::event::Recorder;
    use reseed_core::names::RunId;
    use tokio_util::sync::CancellationToken;

    use super::super::argv::tests::ds;
    use super::*;

    fn moved(words: &str) -> (Vec<(u64, Option<u64>)>, Vec<String>) {
        let (mut stream, mut moved, mut other) = (Stream::default(), Vec::new(), Vec::new());
        for line in words.lines() {
            match stream.line(line) {
                Line::Other => other.push(line.to_owned()),
                Line::Noted => {}
                Line::Moved(bytes, total) => moved.push((bytes, total)),
            }
        }
        (moved, other)
    }

    #[test]
    fn what_several_snapshots_move_is_counted_together() {
        // Composed after libzfs_sendrecv.c, the same in 2.1.11, 2.2.2 and 2.3.2: `send -P -v -I @a tank/x@d`.
        let words = "incremental\ta\ttank/x y@b\t1000\nincremental\tb\ttank/x y@c\t50\nincremental\tc\ttank/x y@d\t2000\n\
            size\t3050\n20:33:01\t400\ttank/x y@b\n20:33:02\t1100\ttank/x y@b\n20:33:03\t10\ttank/x y@d\n20:33:04\t1990\ttank/x y@d\n";
        let (moved, other) = moved(words);
        let all = Some(3050);
        assert_eq!(
            moved,
            [(0, all), (400, all), (1100, all), (1100, all), (3040, all)]
        );
        assert_eq!(other, Vec::<String>::new());
    }

    /// Recorded from 2.1.11 on the module of 2.3.2, into a pipe that was held back.
    #[test]
    fn what_2_1_tells_is_understood() {
        let slow = include_str!("fixtures/send-slow-2.1.11.stderr");
        let (told, other) = moved(slow);
        let all = Some(42_029_680);
        assert_eq!(
            told,
            [(0, all), (14_717_880, all), (26_674_624, all), (40_995_792, all)]
        );
        assert_eq!(other, Vec::<String>::new());
        let (told, _) = moved(include_str!("fixtures/send-since-2.1.11.stderr"));
        assert_eq!(told, [(0, Some(21_016_544))]);
        // The rest of a stream: what is in the token is no progress, and says nothing of an error.
        let (told, other) = moved(include_str!("fixtures/send-rest-2.1.11.stderr"));
        let rest = Some(27_049_344);
        assert_eq!(told, [(0, rest), (13_403_176, rest), (25_490_504, rest)]);
        let words = other.join("\n");
        assert!(words.starts_with("resume token contents:"), "{words}");
        assert_eq!(
            super::super::error::classify(&words),
            super::super::error::Fault::Other
        );
    }

    #[test]
    fn how_far_an_estimate_is_is_no_progress() {
        // From a bookmark without its sizes: the estimate reads, and says so with the same lines.
        let words = "20:33:01\t700\ttank/x@b\n20:33:02\t900\ttank/x@b\nincremental\ttank/x#m\ttank/x@b\t1000\nsize\t1000\n\
            20:33:03\t5\ttank/x@b\n";
        assert_eq!(moved(words).0, [(0, Some(1000)), (5, Some(1000))]);
    }

    #[test]
    fn a_resumed_stream_may_have_less_left_than_nothing() {
        let (moved, other) = moved(
            "resume token contents:\nnvlist version: 0\n\ttoguid = 0x1\nfull\ttank/x@b\t18446744073709551000\n\
             size\t18446744073709551000\n20:33:03\t5\ttank/x@b\n",
        );
        assert_eq!(moved, [(0, None), (5, None)]);
        assert_eq!(other.len(), 3);
    }

    #[test]
    fn what_is_not_known_is_somebody_elses() {
        for line in [
            "",
            "cannot open 'tank/x@a': dataset does not exist",
            "warning: cannot send 'tank/x@a': Input/output error",
            "warning: cannot estimate space for 'tank/x@a'",
            "size\t1.2M",
            "size\t",
            "size",
            "full\ttank/x@a",
            "20:33:1\t5\ttank/x@a",
            "20:33:01\t-5\ttank/x@a",
            "20:33:01   1.2M   tank/x@a",
            "TIME        SENT   SNAPSHOT tank/x@a",
            "full send of tank/x@a estimated size is 1.2M",
            "20:33:01\t5\t6\t7\ttank/x@a",
        ] {
            assert_eq!(Stream::default().line(line), Line::Other, "{line:?}");
        }
        // With blocks, as more `-v` would have it.
        let mut stream = Stream {
            begun: true,
            ..Stream::default()
        };
        assert_eq!(stream.line("20:33:01\t5\t6\ttank/x@a"), Line::Moved(5, None));
    }

    #[test]
    fn a_run_is_told() {
        let events = Arc::new(Recorder::default());
        let run = RunId::new("20261122T203300Z-1").unwrap();
        let cx = Context::new(run, Arc::clone(&events) as Arc<_>, CancellationToken::new());
        let listener = listener(&cx, &ds("tank/x"), Arc::default());
        assert!(listener.hears(b"size\t7"));
        assert!(!listener.hears(b"\xff\t7") && !listener.hears(b"cannot send"));
        let event = Event::Progress {
            dataset: ds("tank/x"),
            bytes: 0,
            total: Some(7),
            files: 0,
        };
        assert_eq!(events.take(), [event]);
    }
}
