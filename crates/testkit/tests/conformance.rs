//! The suites over the fakes, and over the fakes in wrappers without a rule.

use reseed_core::store::{Delivery, StoreCaps};
use reseed_testkit::faults::Faults;
use reseed_testkit::world::{MemLab, Place};

mod store {
    use super::*;
    reseed_testkit::conformance_store!(MemLab::new());
}

mod poor_store {
    use super::*;
    reseed_testkit::conformance_store!(MemLab::new().caps(StoreCaps {
        atomic_group: false,
        holds: false,
        native_receive: false,
        set_aside: false,
        checks_reads: false,
    }));
}

mod local_source {
    use super::*;
    reseed_testkit::conformance_source!(MemLab::new().source_in(Place::Local(Delivery::Files)));
}

mod native_local_source {
    use super::*;
    reseed_testkit::conformance_source!(MemLab::new().source_in(Place::Local(Delivery::Native)));
}

mod replica_source {
    use super::*;
    reseed_testkit::conformance_source!(MemLab::new().source_in(Place::Replica(Delivery::Files)));
}

mod native_replica_source {
    use super::*;
    reseed_testkit::conformance_source!(MemLab::new().source_in(Place::Replica(Delivery::Native)));
}

mod offsite_source {
    use super::*;
    reseed_testkit::conformance_source!(MemLab::new().source_in(Place::Offsite));
}

mod replicate {
    use super::*;
    reseed_testkit::conformance_replicate!(MemLab::new());
}

mod offsite {
    use super::*;
    reseed_testkit::conformance_offsite!(MemLab::new());
}

mod pruner {
    use super::*;
    reseed_testkit::conformance_pruner!(MemLab::new());
}

mod wal {
    use super::*;
    reseed_testkit::conformance_wal!(MemLab::new());
}

mod wrapped_store {
    use super::*;
    reseed_testkit::conformance_store!(MemLab::new().with_faults(&Faults::default()));
}

mod wrapped_source {
    use super::*;
    reseed_testkit::conformance_source!(
        MemLab::new()
            .source_in(Place::Replica(Delivery::Native))
            .with_faults(&Faults::default())
    );
}

mod wrapped_replicate {
    use super::*;
    reseed_testkit::conformance_replicate!(MemLab::new().with_faults(&Faults::default()));
}

mod wrapped_offsite {
    use super::*;
    reseed_testkit::conformance_offsite!(MemLab::new().with_faults(&Faults::default()));
}

mod wrapped_wal {
    use super::*;
    reseed_testkit::conformance_wal!(MemLab::new().with_faults(&Faults::default()));
}
