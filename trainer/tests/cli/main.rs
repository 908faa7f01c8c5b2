//! The program `smalti` as users meet it: arguments, settings files, runs, outcomes, exit codes.

mod arguments;
mod curve;
mod damaged;
mod data_sets;
mod distil;
mod importing;
mod init;
mod labelling;
mod mistakes;
mod next;
mod outcomes;
mod owning;
mod report;
mod resuming;
mod runs;
mod support;
mod train;
