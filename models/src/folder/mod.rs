//! What a folder of images holds, the same for trainer and runtime.
//!
//! A [`Tree`] lists the images below a folder; [`Split`] and its neighbours know the names of splits; an
//! [`ImageFolder`] is the tree as a data set: each image with its split and its class. Its notes say what was left out or
//! may be meant otherwise; callers show them.

mod left_out;
mod set;
mod split;
#[cfg(test)]
mod tests;
mod tree;

pub use left_out::ForeignFiles;
pub use set::{FolderImage, ImageFolder};
pub use split::{Split, split_in_name, split_of_name};
pub use tree::{MARKER, Tree};
