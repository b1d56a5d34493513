//! The plain-directory store, for services without ZFS.
mod attrs;
mod create;
mod data;
mod entry;
mod errors;
mod index;
mod inspect;
mod job;
mod keep;
mod measure;
mod place;
mod records;
mod remove;
mod replicate;
mod root;
mod settle;
mod source;
mod staging;
mod store;
mod sys;
mod tree;

pub use replicate::DirReplicator;
pub use source::DirSource;
pub use store::DirStore;
