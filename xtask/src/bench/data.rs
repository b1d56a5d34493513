//! Trees of files made from a seed: the same sizes, names and content on every machine.
//!
//! Sizes are spread over three orders of magnitude; half of the files are random, half can be compressed to a quarter.
//! No block occurs twice, so that deduplication has nothing to find.

use std::fs;
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

/// A directory that is removed when it is dropped.
#[derive(Debug)]
pub(super) struct Scratch(PathBuf);

impl Scratch {
    pub(super) fn new(below: Option<&Path>) -> io::Result<Self> {
        let below = below.map_or_else(std::env::temp_dir, Path::to_path_buf);
        let dir = below.join(format!("reseed-bench-{}", std::process::id()));
        fs::create_dir(&dir)?;
        Ok(Self(dir.canonicalize()?))
    }

    pub(super) fn join(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// Files of one directory.
const PER_DIR: usize = 250;

/// Makes `files` files with `bytes` bytes in all below `root`, and returns their names from there.
pub(super) fn tree(root: &Path, files: usize, bytes: u64, seed: u64) -> io::Result<Vec<PathBuf>> {
    let mut names = Vec::with_capacity(files);
    for (index, size) in sizes(files, bytes, seed).into_iter().enumerate() {
        let name = PathBuf::from(format!("d{:03}/f{:03}", index / PER_DIR, index % PER_DIR));
        let path = root.join(&name);
        if index % PER_DIR == 0 {
            fs::create_dir_all(path.parent().unwrap_or(root))?;
        }
        let mut file = BufWriter::with_capacity(1 << 18, fs::File::create(path)?);
        let repeat = if index % 2 == 0 { 1 } else { 4 };
        fill(&mut file, size, repeat, &format!("{seed}/{index}"))?;
        file.flush()?;
        names.push(name);
    }
    Ok(names)
}

/// Blocks of 1 KiB from BLAKE3's output, each written `repeat` times.
fn fill(file: &mut impl Write, size: u64, repeat: u32, key: &str) -> io::Result<()> {
    let mut random = blake3::Hasher::new().update(key.as_bytes()).finalize_xof();
    let mut block = vec![0; if repeat == 1 { 1 << 16 } else { 1 << 10 }];
    let mut left = size;
    while left > 0 {
        random.fill(&mut block);
        for _ in 0..repeat {
            let part = usize::try_from(left).map_or(block.len(), |left| left.min(block.len()));
            file.write_all(&block[..part])?;
            left -= part as u64;
        }
    }
    Ok(())
}

fn sizes(files: usize, bytes: u64, seed: u64) -> Vec<u64> {
    let mut random = blake3::Hasher::new()
        .update(b"sizes")
        .update(&seed.to_le_bytes())
        .finalize_xof();
    let mut next = || {
        let mut word = [0; 4];
        random.fill(&mut word);
        u64::from(u32::from_le_bytes(word))
    };
    let weights: Vec<u64> = (0..files)
        .map(|_| {
            let scale = 16 << (next() % 11);
            scale + next() % scale
        })
        .collect();
    let total: u64 = weights.iter().sum::<u64>().max(1);
    let share = |weight: &u64| u64::try_from(u128::from(bytes) * u128::from(*weight) / u128::from(total));
    let mut sizes: Vec<u64> = weights.iter().map(|weight| share(weight).unwrap_or(0)).collect();
    let rest = bytes - sizes.iter().sum::<u64>();
    if let Some(last) = sizes.last_mut() {
        *last += rest;
    }
    sizes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_add_up_and_spread() {
        let sizes = sizes(5000, 200 << 20, 7);
        assert_eq!(sizes.iter().sum::<u64>(), 200 << 20);
        let (least, most) = (sizes.iter().min().unwrap(), sizes.iter().max().unwrap());
        assert!(most / least > 500, "{least} {most}");
    }

    #[test]
    fn the_same_seed_makes_the_same_tree() {
        let make = || {
            let dir = tempfile::tempdir().unwrap();
            let names = tree(dir.path(), 300, 1 << 20, 1).unwrap();
            let mut hash = blake3::Hasher::new();
            for name in &names {
                hash.update(&fs::read(dir.path().join(name)).unwrap());
            }
            (names, hash.finalize())
        };
        assert_eq!(make(), make());
    }
}
