//! Listening to what a command says on its standard error while it runs: progress, for tools that tell it there. It
//! promises that a line which the listener doesn't take is kept as if nobody had listened, byte for byte.

use std::fmt;
use std::sync::Arc;

/// The longest line that is offered to a listener; a longer one is kept, unheard.
const LONGEST: usize = 64 * 1024;

/// Hears the lines of a command's standard error, each when it is whole, without its newline.
///
/// It is called from where the output is read, so it must not block. Secrets are not removed from what it hears.
#[derive(Clone)]
pub struct Listener(Arc<Hear>);

type Hear = dyn Fn(&[u8]) -> bool + Send + Sync;

impl Listener {
    /// Of a function that says whether it takes the line: then the line isn't kept with the rest of the words.
    pub fn new(hear: impl Fn(&[u8]) -> bool + Send + Sync + 'static) -> Self {
        Self(Arc::new(hear))
    }

    /// Whether it takes the line; for fakes.
    pub fn hears(&self, line: &[u8]) -> bool {
        (self.0)(line)
    }
}

impl fmt::Debug for Listener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Listener")
    }
}

/// The same one, not one that does the same.
impl PartialEq for Listener {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl Eq for Listener {}

/// Sorts an output into lines that are taken and bytes that are kept.
#[derive(Debug)]
pub(super) struct Sieve {
    listener: Listener,
    line: Vec<u8>,
    /// The current line is too long and goes through unheard.
    through: bool,
}

impl Sieve {
    pub(super) fn new(listener: Listener) -> Self {
        Self {
            listener,
            line: Vec::new(),
            through: false,
        }
    }

    /// What is to be kept after these bytes have come.
    pub(super) fn push(&mut self, bytes: &[u8]) -> Vec<u8> {
        let mut kept = Vec::new();
        for part in bytes.split_inclusive(|byte| *byte == b'\n') {
            let ended = part.ends_with(b"\n");
            if self.through {
                kept.extend_from_slice(part);
                self.through = !ended;
                continue;
            }
            self.line.extend_from_slice(part);
            if ended {
                let text = &self.line[..self.line.len() - 1];
                if text.len() > LONGEST || !self.listener.hears(text) {
                    kept.extend_from_slice(&self.line);
                }
                self.line.clear();
            } else if self.line.len() > LONGEST {
                kept.append(&mut self.line);
                self.through = true;
            }
        }
        kept
    }

    /// What is left at the end: a line that was never ended is nobody's to take.
    pub(super) fn finish(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.line)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;

    /// Takes what begins with `+`; what it heard.
    fn plus() -> (Listener, Arc<Mutex<Vec<Vec<u8>>>>) {
        let heard = Arc::new(Mutex::new(Vec::new()));
        let all = Arc::clone(&heard);
        let listener = Listener::new(move |line| {
            all.lock().unwrap().push(line.to_vec());
            line.starts_with(b"+")
        });
        (listener, heard)
    }

    #[test]
    fn what_is_not_taken_is_kept_wherever_the_reads_were() {
        let text = b"one\n+1\n\n+2\ntwo \xff\n+3\n+not whole";
        for size in 1..=text.len() {
            let (listener, heard) = plus();
            let mut sieve = Sieve::new(listener);
            let mut kept: Vec<u8> = text.chunks(size).flat_map(|part| sieve.push(part)).collect();
            kept.extend(sieve.finish());
            assert_eq!(kept, b"one\n\ntwo \xff\n+not whole");
            assert_eq!(heard.lock().unwrap().len(), 6);
        }
    }

    #[test]
    fn a_line_that_is_too_long_is_kept_entire_and_the_next_one_is_heard() {
        for size in [7, 1000, 200_000] {
            let (listener, heard) = plus();
            let mut sieve = Sieve::new(listener);
            let long = [&b"+"[..], &vec![b'x'; LONGEST + 5], b"y\n"].concat();
            let mut kept: Vec<u8> = long.chunks(size).flat_map(|part| sieve.push(part)).collect();
            kept.extend(sieve.push(b"+1\n"));
            kept.extend(sieve.finish());
            assert!(kept == long, "{} bytes", kept.len());
            assert_eq!(*heard.lock().unwrap(), [b"+1".to_vec()]);
        }
    }
}
