//! Images in: where they lie, what they show, and how they reach the model in batches.
//!
//! The order of the modules is the way of the data. [`layout`] tells what kind of data set a path holds; a reader
//! ([`folder`], [`table`], [`idx`], [`cifar`], [`tar`]) makes a [`listing`] of its images, which lie in a [`source`];
//! [`splits`] opens a split of it as a [`Dataset`]. [`labels`] draws the labelled images, [`augment`] changes one image
//! and [`mix`] a batch, and the [`loader`] does all of it ahead of time on threads of its own. [`mod@statistics`] and
//! [`audit`] look a data set over before any training, a [`Fingerprint`] tells whether it changed since, and
//! [`synthetic`] draws one.

mod cifar;
mod classes;
mod dataset;
mod folder;
mod idx;
mod layout;
mod listing;
mod shards;
mod source;
mod splits;
mod table;
mod tar;

pub mod audit;
pub mod augment;
pub mod fingerprint;
pub mod labels;
pub mod loader;
pub mod mix;
pub mod statistics;
pub mod synthetic;

pub use smalti_models::folder::Split;

pub use augment::{Augment, CropKind, View};
pub use classes::MAX_CLASSES;
pub use dataset::Dataset;
pub use fingerprint::Fingerprint;
pub use labels::{LabelSpec, pick_labels};
pub use loader::{Batch, CacheBudget, Loader, LoaderSettings, OnBad, Share, Stream};
pub use mix::Mix;
pub use splits::Splits;
pub use statistics::{Statistics, statistics};
pub use table::{LabelTable, Row};
