//! What a run keeps when it is killed, when its files are damaged, when the file system fails, when the power does.
//!
//! Each test has a short form, which is the default, and a long one: see docs/reliability.md.

mod damage;
mod failing;
mod kill;
mod power;
mod support;
