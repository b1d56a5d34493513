//! Permission bits as the repository format keeps them, which are Go's and not Unix's. Pure.

const PERMISSIONS: u32 = 0o777;
const PAIRS: [(u32, u32); 3] = [(0o4000, 1 << 23), (0o2000, 1 << 22), (0o1000, 1 << 20)];

/// Go's bits for the kinds of file, which restic keeps in the mode although a node has a type as well.
pub(crate) const GO_DIR: u32 = 1 << 31;
pub(crate) const GO_SYMLINK: u32 = 1 << 27;
pub(crate) const GO_DEVICE: u32 = 1 << 26;
pub(crate) const GO_FIFO: u32 = 1 << 25;
pub(crate) const GO_SOCKET: u32 = 1 << 24;
pub(crate) const GO_CHAR_DEVICE: u32 = 1 << 21;

/// Go's permission bits of a Unix mode, without the kind.
pub(crate) fn to_go(unix: u32) -> u32 {
    PAIRS
        .iter()
        .filter(|(bit, _)| unix & bit != 0)
        .fold(unix & PERMISSIONS, |go, (_, flag)| go | flag)
}

/// The Unix permission bits of a mode in the repository; its kind is ignored, the node's type decides.
pub(crate) fn from_go(go: u32) -> u32 {
    PAIRS
        .iter()
        .filter(|(_, flag)| go & flag != 0)
        .fold(go & PERMISSIONS, |unix, (bit, _)| unix | bit)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_permission_survives() {
        for mode in 0..=0o7777 {
            assert_eq!(from_go(to_go(mode)), mode, "{mode:o}");
            assert_eq!(
                from_go(to_go(mode) | GO_DIR | GO_SYMLINK | GO_FIFO),
                mode,
                "{mode:o}"
            );
        }
    }

    #[test]
    fn the_special_bits_are_gos() {
        // Go: ModeSetuid is 1<<23, ModeSetgid 1<<22, ModeSticky 1<<20.
        assert_eq!(to_go(0o4755), (1 << 23) | 0o755);
        assert_eq!(to_go(0o1777), (1 << 20) | 0o777);
    }
}
