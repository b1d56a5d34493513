//! What a machine is made of, and the words that tell qemu so.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use super::Boot;

/// What runs first in the guest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Init {
    /// A script that does what the host asks for and nothing else; up in seconds.
    #[default]
    Script,
    /// systemd, with the units of [`Config::units`] and none of the host's own configuration.
    Systemd,
}

/// A raw disk that outlives the machine. Its only partition is `/dev/vda1` for the first disk, `/dev/vdb1` for the
/// second: without udev nobody would make `zpool` see a whole disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Disk {
    path: PathBuf,
}

impl Disk {
    /// Where the partition begins.
    pub const PARTITION_AT: u64 = 1 << 20;

    /// Makes a sparse file of `mib` MiB with one partition.
    pub fn create(path: impl Into<PathBuf>, mib: u32) -> std::io::Result<Self> {
        let path = path.into();
        let file = std::fs::File::create_new(&path)?;
        file.set_len(u64::from(mib) << 20)?;
        let sectors = mib.saturating_sub(1).saturating_mul(2048);
        std::os::unix::fs::FileExt::write_all_at(&file, &partition_table(sectors), 0)?;
        Ok(Self { path })
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

/// A master boot record with one Linux partition of so many sectors, from 1 MiB on.
fn partition_table(sectors: u32) -> [u8; 512] {
    let mut table = [0; 512];
    let entry = &mut table[446..462];
    entry[4] = 0x83;
    entry[8..12].copy_from_slice(&2048_u32.to_le_bytes());
    entry[12..16].copy_from_slice(&sectors.to_le_bytes());
    table[510..].copy_from_slice(&[0x55, 0xaa]);
    table
}

/// A machine to boot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// A directory for what the machine says and brings back: `console`, and below `share` one directory per command.
    pub dir: PathBuf,
    /// Memory; half of it is what the guest can have in `/tmp`. The host gives it as it is used.
    pub memory_mib: u32,
    /// Virtual processors. Where instructions are emulated, two machines with one each do twice the work of one with two; and with two
    /// a machine once hung in ZFS's `txg_sync` (OpenZFS 2.3.2 below qemu 7.2; in one of ten runs).
    pub cpus: u32,
    /// Disks, in order.
    pub disks: Vec<Disk>,
    /// What runs first.
    pub init: Init,
    /// Units for systemd: name and text.
    pub units: Vec<(String, String)>,
    /// By which a pool knows its host. Another one makes a pool look like somebody else's.
    pub hostid: u32,
    /// Directories of the host below its `/tmp` or `/run` that the guest shall see; it has its own otherwise.
    pub shown: Vec<PathBuf>,
}

impl Config {
    /// A machine with 4 GiB, one processor and no disk, whose files are in `dir`.
    pub fn new(dir: impl Into<PathBuf>) -> Self {
        Self {
            dir: dir.into(),
            memory_mib: 4096,
            cpus: 1,
            disks: Vec::new(),
            init: Init::Script,
            units: Vec::new(),
            hostid: 0x5eed_0001,
            shown: Vec::new(),
        }
    }
}

/// How the guest's instructions are carried out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Accel {
    /// By the processor.
    Kvm,
    /// By emulation: some ten times slower, and everywhere.
    Emulated,
}

impl Accel {
    /// What this host can do. `/dev/kvm` alone proves nothing: in a machine that is itself virtual it can be there and
    /// qemu dies of it, so the processor has to have the feature too. `RESEED_VM_ACCEL=tcg` forces emulation.
    pub fn of_this_host() -> Self {
        let forced = std::env::var_os("RESEED_VM_ACCEL").is_some_and(|value| value == "tcg");
        let features = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let device = || {
            std::fs::OpenOptions::new()
                .read(true)
                .write(true)
                .open("/dev/kvm")
                .is_ok()
        };
        if !forced && can_virtualise(&features) && device() {
            Self::Kvm
        } else {
            Self::Emulated
        }
    }
}

fn can_virtualise(cpuinfo: &str) -> bool {
    let mut flags = cpuinfo
        .lines()
        .filter(|line| line.starts_with("flags"))
        .flat_map(str::split_whitespace);
    flags.any(|flag| flag == "vmx" || flag == "svm")
}

/// Files of one machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Files {
    pub(super) share: PathBuf,
    pub(super) console: PathBuf,
    pub(super) pid: PathBuf,
}

impl Files {
    pub(super) fn of(config: &Config) -> Self {
        Self {
            share: config.dir.join("share"),
            console: config.dir.join("console"),
            pid: config.dir.join("qemu.pid"),
        }
    }
}

/// Where the guest's console is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Console {
    /// In a file; requests come on qemu's standard input and are answered on its output.
    File,
    /// On qemu's terminal, with a shell on it; its rows and columns, if known.
    Terminal(Option<(u16, u16)>),
}

impl Console {
    /// That of whoever starts us.
    pub(super) fn of_this_terminal() -> Self {
        let size = rustix::termios::tcgetwinsize(std::io::stderr()).ok();
        // A terminal that doesn't know says 0.
        Self::Terminal(
            size.map(|size| (size.ws_row, size.ws_col))
                .filter(|size| size.0 > 0),
        )
    }
}

/// The arguments of qemu.
pub(super) fn argv(
    config: &Config,
    boot: &Boot,
    files: &Files,
    accel: Accel,
    console: Console,
) -> Vec<OsString> {
    let mut argv: Vec<OsString> = Vec::new();
    let mut add = |option: &str, value: OsString| argv.extend([option.into(), value]);
    add(
        "-accel",
        match accel {
            Accel::Kvm => "kvm".into(),
            Accel::Emulated => "tcg,thread=multi".into(),
        },
    );
    // Emulated, the newest vector instructions cost more than they bring: zfs measures each of its variants when it loads.
    add(
        "-cpu",
        match accel {
            Accel::Kvm => "max".into(),
            Accel::Emulated => "Westmere,+rdrand".into(),
        },
    );
    add("-m", format!("{}M", config.memory_mib).into());
    add("-smp", config.cpus.to_string().into());
    add("-display", "none".into());
    add("-monitor", "none".into());
    add("-nic", "none".into());
    add("-kernel", boot.kernel.clone().into());
    add("-initrd", boot.initrd.clone().into());
    add("-pidfile", files.pid.clone().into());
    add(
        "-virtfs",
        "local,path=/,mount_tag=root,security_model=none,readonly=on,multidevs=remap".into(),
    );
    add(
        "-virtfs",
        with_path(
            "local,path=",
            &files.share,
            ",mount_tag=share,security_model=none",
        ),
    );
    for disk in &config.disks {
        // A power cut is the death of qemu, not of the host: what qemu wrote stays, so its flushes would only cost time.
        add(
            "-drive",
            with_path("if=virtio,format=raw,cache=unsafe,file=", &disk.path, ""),
        );
    }
    let mode = match (console, config.init) {
        (Console::Terminal(_), _) => "shell",
        (Console::File, Init::Script) => "agent",
        (Console::File, Init::Systemd) => "systemd",
    };
    match console {
        Console::Terminal(_) => {
            // Ctrl-C is for the guest; Ctrl-A X ends the machine.
            add("-serial", "mon:stdio".into());
            add("-serial", "null".into());
        }
        Console::File => {
            add("-serial", with_path("file:", &files.console, ""));
            add("-chardev", "stdio,id=requests,signal=off".into());
            add("-serial", "chardev:requests".into());
        }
    }
    // What protects a machine from its own programs makes every system call flush what the emulator has translated; and to
    // clear a huge page takes an emulated processor longer than the faults that it saves.
    let mut kernel = format!(
        "console=ttyS0 quiet panic=-1 oops=panic nokaslr mitigations=off transparent_hugepage=never {} reseed.mode={mode} reseed.hostid={:#x}",
        super::guest::MARK_OF_OURS,
        config.hostid
    );
    if config.init == Init::Systemd {
        kernel.push_str(
            " systemd.unit=reseed.target systemd.show_status=no systemd.log_target=journal systemd.firstboot=no",
        );
    }
    if let Console::Terminal(Some((rows, columns))) = console {
        kernel.push_str(&format!(" reseed.tty={rows}x{columns}"));
    }
    add("-append", kernel.into());
    argv.push("-no-reboot".into());
    argv
}

/// In qemu's lists of options a comma in a value is written twice.
fn with_path(before: &str, path: &Path, after: &str) -> OsString {
    use std::os::unix::ffi::{OsStrExt, OsStringExt};
    let mut word = before.as_bytes().to_vec();
    for &byte in path.as_os_str().as_bytes() {
        word.push(byte);
        if byte == b',' {
            word.push(byte);
        }
    }
    word.extend_from_slice(after.as_bytes());
    OsString::from_vec(word)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(config: &Config, accel: Accel, console: Console) -> String {
        let boot = Boot {
            kernel: "/boot/vmlinuz-1".into(),
            initrd: "/c/initrd".into(),
        };
        argv(config, &boot, &Files::of(config), accel, console)
            .iter()
            .map(|word| word.to_string_lossy().into_owned())
            .collect::<Vec<_>>()
            .join(" ")
    }

    #[test]
    fn a_machine_is_told_whole() {
        let mut config = Config::new("/d,1");
        config.disks.push(Disk { path: "/x,y".into() });
        config.init = Init::Systemd;
        assert_eq!(
            words(&config, Accel::Emulated, Console::File),
            "-accel tcg,thread=multi -cpu Westmere,+rdrand -m 4096M -smp 1 -display none -monitor none -nic none \
             -kernel /boot/vmlinuz-1 -initrd /c/initrd -pidfile /d,1/qemu.pid \
             -virtfs local,path=/,mount_tag=root,security_model=none,readonly=on,multidevs=remap \
             -virtfs local,path=/d,,1/share,mount_tag=share,security_model=none \
             -drive if=virtio,format=raw,cache=unsafe,file=/x,,y \
             -serial file:/d,,1/console -chardev stdio,id=requests,signal=off -serial chardev:requests \
             -append console=ttyS0 quiet panic=-1 oops=panic nokaslr mitigations=off transparent_hugepage=never reseed.vm=1 reseed.mode=systemd \
             reseed.hostid=0x5eed0001 systemd.unit=reseed.target systemd.show_status=no systemd.log_target=journal \
             systemd.firstboot=no -no-reboot"
        );
    }

    #[test]
    fn the_hosts_root_is_never_writable() {
        for console in [Console::File, Console::Terminal(Some((40, 120)))] {
            let words = words(&Config::new("/d"), Accel::Kvm, console);
            assert!(words.contains("path=/,mount_tag=root,security_model=none,readonly=on"));
            assert!(words.contains("-accel kvm"));
        }
    }

    #[test]
    fn kvm_needs_a_processor_that_can() {
        assert!(can_virtualise("processor : 0\nflags\t\t: fpu vmx sse\n"));
        assert!(can_virtualise("flags : fpu svm\n"));
        assert!(!can_virtualise("flags : fpu hypervisor\nvmx flags : x\n"));
    }

    #[test]
    fn a_disk_has_one_partition_from_the_first_mebibyte_to_its_end() {
        let table = partition_table(63 * 2048);
        assert_eq!(table[450], 0x83);
        assert_eq!(table[454..458], [0, 8, 0, 0]);
        assert_eq!(table[458..462], (63 * 2048_u32).to_le_bytes());
        assert_eq!(table[510..], [0x55, 0xaa]);
    }
}
