use std::sync::Arc;

use reseed_core::error::{StoreError, StoreKind};
use reseed_core::exec::{Command, Exit, SystemRunner};

use super::super::location::{Location, Ssh};
use super::*;

const BANNER: &str = "*** Authorized use only ***\n\nDisconnect now: whatever you do cannot be undone\n\
     ** WARNING: connection is not using a post-quantum key exchange algorithm.\n";

fn missing(location: Location, code: i32, stderr: &str) -> Result<Vec<String>, StoreError> {
    let tool = Tool::new(Arc::new(SystemRunner::new()), location);
    let output = Output::fake(&Command::new("zfs"), Exit::Code(code), "", stderr);
    let wanted = BTreeSet::from(["tank/a", "tank/b c"]);
    only_missing::<StoreKind>(&tool, &output, &wanted).map(|mut names| {
        names.sort();
        names
    })
}

fn there() -> Location {
    Location::Ssh(Ssh::new("nas", "/k").unwrap())
}

#[test]
fn what_others_say_on_the_way_is_no_failure_of_zfs() {
    let gone =
        "cannot open 'tank/a': dataset does not exist\ncannot open 'tank/b c': dataset does not exist\n";
    for words in [gone.to_owned(), format!("{BANNER}{gone}bashrc: no tty\n")] {
        assert_eq!(missing(there(), 1, &words).unwrap(), ["tank/a", "tank/b c"]);
    }
    assert_eq!(missing(Location::Local, 1, gone).unwrap().len(), 2);
}

#[test]
fn nothing_else_is_taken_for_missing() {
    let gone = "cannot open 'tank/a': dataset does not exist\n";
    for more in [
        "cannot open 'tank/b c': I/O error\n",
        "cannot open 'tank/other': dataset does not exist\n",
        "  cannot iterate filesystems: I/O error\n",
        "internal error: out of memory\n",
        "out of memory\n",
    ] {
        for location in [there(), Location::Local] {
            let words = format!("{BANNER}{gone}{more}");
            assert!(missing(location, 1, &words).is_err(), "{more}");
        }
    }
    // ssh broke off, or something else ended it; nothing was said; nobody is between us and a local `zfs`.
    for code in [0, 2, 127, 255] {
        assert!(missing(there(), code, gone).is_err(), "{code}");
    }
    assert!(missing(there(), 1, BANNER).is_err());
    assert!(missing(Location::Local, 1, &format!("{BANNER}{gone}")).is_err());
}
